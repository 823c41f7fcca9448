"""LatentModel, which composes the parts."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqlatent.chain import Chain, MarkovChain, first_state, sample_path
from seqlatent.distributions import sample
from seqlatent.emissions.emission import Emission
from seqlatent.inference.base import Inference, Latest, States, at, position
from seqlatent.memory import Memory, NoMemory
from seqlatent.model.belief import Belief, continuing, require_room, upcoming
from seqlatent.sequences import Context, Sequences
from seqlatent.transitions.transition import LargeVarianceStart, LinearTransition, Transition

__all__ = ["LatentModel", "Paths"]


_PATHS = 8192


class Paths(NamedTuple):
    """Sampled futures.

    Attributes:
        y: Observations ``(S, B, H, D)``, in the units of the data.
        z: Latent states ``(S, B, H, K)``.
    """

    y: Tensor
    z: Tensor


class LatentModel(nn.Module):
    r"""A sequential latent-variable model: memory, transition, emission and inference.

    .. math:: p(y, z) = \prod_t p(z_t \mid z_{t-1}, c_t)\, p(y_t \mid z_t, c_t), \quad
        c_t = (m_t, u_t, \Delta_t, \mathrm{codes}), \quad m_t = f(y_{<t}, u_{\le t})

    Composition only: the parts do the work. Another inference on trained parts is another
    LatentModel of the same parts.

    Args:
        transition: Distribution of the latent path.
        emission: Distribution of the observations.
        inference: Kalman, Amortised, Particles or Prior.
        memory: Features of the past; none by default.

    Example:
        >>> model = seqlatent.zoo.structural(trend=True)
        >>> belief = model.belief(Sequences.of(torch.arange(20.0).reshape(1, 20, 1)))
        >>> model.forecast(belief, 3, n=10).y.shape
        torch.Size([10, 1, 3, 1])

    Raises:
        TypeError: If a part is of the wrong kind, or the inference does not fit the others.
    """

    def __init__(
        self,
        transition: Transition,
        emission: Emission,
        inference: Inference,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        memory = NoMemory() if memory is None else memory
        for name, part, kind in (
            ("transition", transition, Transition),
            ("emission", emission, Emission),
            ("inference", inference, Inference),
            ("memory", memory, Memory),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name} must be of class {kind.__name__}, found {type(part).__name__}."
                )
        self.memory = memory
        self.transition = transition
        self.emission = emission
        self.inference = inference
        inference.check(self)

    def context(self, sequences: Sequences) -> Context:
        """What every step may condition on; checks that the sequences fit the model.

        Raises:
            ValueError: If a width differs, a value lies outside the emission's support, or times
                are irregular and the transition ignores them.
        """
        self._check(sequences)
        return Context.of(sequences, self.memory(sequences))

    def _check(self, sequences: Sequences) -> None:
        if not isinstance(sequences, Sequences):
            raise TypeError(
                f"expected Sequences, found {type(sequences).__name__}; build them with "
                "Sequences.of."
            )
        self._check_kind(sequences.y)
        self.emission.check(sequences.y, sequences.observed)
        if not sequences.regular:
            self._check_gaps(sequences.dt)

    def _check_kind(self, y: Tensor) -> None:
        for p in self.parameters():
            if (p.dtype, p.device) != (y.dtype, y.device):
                raise ValueError(
                    f"the model is {p.dtype} on {p.device}, the sequences are {y.dtype} on "
                    f"{y.device}; move them with sequences.to(dtype={p.dtype}, "
                    f"device='{p.device}')."
                )
            return  # the parts of a model are moved together

    def _check_gaps(self, dt: Tensor) -> None:
        if self.transition.handles_gaps or bool((dt == 1).all()):
            return
        b, i = (int(x) for x in (dt != 1).nonzero()[0])
        raise ValueError(
            f"{type(self.transition).__name__} ignores the gaps between steps and expects every "
            f"gap to be 1 step, found {dt[b, i].item():g} at series {b}, step {i}; put the series "
            "on a grid with missing cells, or use a transition that reads dt (OrnsteinUhlenbeck, "
            "LinearSDE, NeuralODE)."
        )

    def prior(self, sequences: Sequences) -> Chain:
        """Distribution of the latent path before ``y`` is seen, given covariates, times, memory."""
        return MarkovChain(self.transition, self.context(sequences))

    def posterior(self, sequences: Sequences) -> Chain:
        """Distribution of the latent path given all of ``y``, as the inference has it."""
        return self.inference(self, sequences)

    def log_joint(self, z: Tensor, sequences: Sequences, c: Context | None = None) -> Tensor:
        """``log p(y_t, z_t | z_{t-1})`` of each step ``(*S, B, T)``."""
        c = self.context(sequences) if c is None else c
        prior = MarkovChain(self.transition, c).log_prob(z)
        return prior + self.emission.log_prob(sequences.y, sequences.observed, z, c)

    def filter(self, sequences: Sequences, *, generator: torch.Generator | None = None) -> States:
        """Latent states given past and present, and the evidence of each step."""
        return self.inference.filter(self, sequences, generator=generator)

    def smooth(self, sequences: Sequences, *, generator: torch.Generator | None = None) -> States:
        """Latent states given everything."""
        return self.inference.smooth(self, sequences, generator=generator)

    def belief(
        self,
        sequences: Sequences,
        *,
        end: bool | Tensor = True,
        generator: torch.Generator | None = None,
    ) -> Belief:
        """What filtering leaves of the past, without gradients.

        Args:
            sequences: Observations.
            end: Whether the belief stands at the last step, observed or not, so that forecasts
                begin with the step after it; False for each series' last observation, where what
                comes after is padding; or the index of the step at which it stands ``(B,)``.
            generator: Source of randomness where the inference samples.
        """
        with torch.no_grad():
            return self._belief(sequences, end, generator)

    def _belief(
        self, sequences: Sequences, end: bool | Tensor, generator: torch.Generator | None
    ) -> Belief:
        self._check(sequences)
        index = position(sequences, end)
        m, memory = self.memory.read(sequences, index)
        c = Context.of(sequences, m)
        fresh = (index < 0)[:, None]
        y, observed = at(sequences.y, index), at(sequences.observed, index)
        return Belief(
            latest=self.inference.latest(self, sequences, c, end=end, generator=generator),
            memory=memory,
            y=torch.where(fresh, torch.zeros_like(y), y),
            observed=observed & ~fresh,
            t=torch.where(index < 0, sequences.t[:, 0] - 1, at(sequences.t, index)),
            u=at(sequences.u, index),
            codes=sequences.codes,
            shift=sequences.shift,
            scale=sequences.scale,
        )

    @torch.no_grad()
    def update(
        self, belief: Belief, rows: Sequences, *, generator: torch.Generator | None = None
    ) -> Belief:
        """Moves a belief over new rows, at a cost that does not depend on the length of the past.

        The new belief stands at the last row, observed or not.

        Args:
            belief: Where the past left off.
            rows: The rows that follow, ``t`` in the same steps; their codes, shift and scale are
                the belief's own.
            generator: Source of randomness where the inference samples.

        Raises:
            ValueError: If the number of series differs, or rows do not come after those of the
                belief.
        """
        rows = continuing(belief, rows)
        self._check_kind(rows.y)
        self.emission.check(rows.y, rows.observed)
        memory, features = belief.memory, []
        y, observed = belief.y, belief.observed
        known = self._context_after(belief, rows)
        for i, c in enumerate(known.unbind()):
            m, memory = self.memory.step(memory, y, observed, c)
            features.append(m)
            y, observed = rows.y[:, i], rows.observed[:, i]
        c = known.replace(m=torch.stack(features, -2))
        latest = self.inference.latest(
            self, rows, c, start=belief.latest, end=True, generator=generator
        )
        return replace(
            belief,
            latest=latest,
            memory=memory,
            y=y,
            observed=observed,
            t=rows.t[:, -1],
            u=rows.u[:, -1],
        )

    def forecast(
        self,
        belief: Belief,
        horizon: int,
        *,
        n: int = 100,
        u: Tensor | None = None,
        t: Tensor | None = None,
        gradient: bool = False,
        generator: torch.Generator | None = None,
    ) -> Paths:
        """Samples joint futures; each path feeds its own samples back through the memory.

        Args:
            belief: Where the past left off.
            horizon: Steps ahead ``H``, at least 1.
            n: Number of paths ``S``.
            u: Covariates of the future ``(B, H, U)``; required where the model has covariates.
            t: Times of the future ``(B, H)`` or ``(H,)``; one sampling step apart by default.
            gradient: Whether the paths are differentiable in the parameters, where the families
                allow it, for objectives that score forecasts.
            generator: Source of randomness.

        Returns:
            Observations and states of each path.

        Raises:
            ValueError: If ``horizon < 1``, ``n < 1``, covariates or times do not fit, or the paths
                are more than memory holds.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a number of paths of at least 1, found {n!r}.")
        # states and observations, in parts and joined
        width = 2 * (self.transition.latent_dim + self.emission.obs_dim)
        require_room(belief, horizon, width, n)
        future = upcoming(belief, horizon, u, t)
        if gradient:
            return self._roll(belief, self._context_after(belief, future), n, generator)
        # A few thousand paths at a time stay in the cache, and bound the memory.
        size = max(1, _PATHS // n)
        parts = []
        with torch.no_grad():
            for first in range(0, belief.batch, size):
                part = slice(first, first + size)
                now, rows = belief.select(part), future.select(part)
                parts.append(self._roll(now, self._context_after(now, rows), n, generator))
        return Paths(*(torch.cat(x, 1) for x in zip(*parts, strict=True)))

    def upcoming(
        self, belief: Belief, horizon: int, *, u: Tensor | None = None, t: Tensor | None = None
    ) -> Context:
        """Context of the steps after a belief, without memory.

        Args:
            belief: Where the past left off.
            horizon: Steps ahead ``H``, at least 1.
            u: Covariates of the future ``(B, H, U)``; required where the model has covariates.
            t: Times of the future ``(B, H)`` or ``(H,)``; one sampling step apart by default.
        """
        return self._context_after(belief, upcoming(belief, horizon, u, t))

    def rollout(
        self, sequences: Sequences, *, n: int = 1, generator: torch.Generator | None = None
    ) -> Paths:
        """Samples series from the prior, given all of ``sequences`` but ``y``.

        Args:
            sequences: What to condition on.
            n: Number of paths ``S``.
            generator: Source of randomness.
        """
        batch, like = sequences.batch, sequences.y
        empty = Latest(
            None,
            None,
            like.new_zeros(1, batch, self.transition.latent_dim),
            like.new_zeros(1, batch),
            torch.zeros(batch, dtype=torch.bool, device=like.device),
        )
        belief = Belief(
            latest=empty,
            memory=self.memory.initial((batch,), like),
            y=torch.zeros_like(like[:, 0]),
            observed=torch.zeros_like(sequences.observed[:, 0]),
            t=sequences.t[:, 0] - 1,
            u=torch.zeros_like(sequences.u[:, 0]),
            codes=sequences.codes,
            shift=sequences.shift,
            scale=sequences.scale,
        )
        width = self.transition.latent_dim + self.emission.obs_dim
        require_room(belief, sequences.steps, width, n)
        with torch.no_grad():
            return self._roll(belief, self._context_after(belief, sequences), n, generator)

    def _context_after(self, belief: Belief, rows: Sequences) -> Context:
        """Context of rows after a belief, without memory; the first gap counts from its time."""
        c = Context.of(rows, rows.y[..., :0])
        first = torch.where(belief.latest.started, rows.t[:, 0] - belief.t, 1.0).to(rows.dt)
        dt = torch.cat([first[:, None], rows.dt[:, 1:]], 1)
        self._check_gaps(dt)
        return c.replace(dt=dt[..., None])

    def _roll(self, belief: Belief, c: Context, n: int, generator: torch.Generator | None) -> Paths:
        state, started = belief.latest.draw(n, generator), belief.latest.started
        transition = self.transition
        if belief.latest.mean is not None and isinstance(transition, LinearTransition):
            # A series of which nothing was observed is forecast too, from a wide first state.
            transition = LargeVarianceStart(transition)
        if self.memory.out_dim == 0:
            z = sample_path(transition, c, (n,), generator, (state, started))
            return Paths(_float(sample(self.emission(z, c), (), generator), c), z)
        steps = c.unbind()
        # All paths start from the same past: its features are computed once, not once per path.
        advance = self.memory.advance(belief.memory)
        now = steps[0].replace(m=advance(belief.y, belief.observed, steps[0]))
        state = first_state(transition, now, torch.Size((n,)), generator, (state, started))
        y = _float(sample(self.emission(state, now), (), generator), now)
        observed = torch.ones_like(y, dtype=torch.bool)
        ys, zs = [y], [state]
        for now in steps[1:]:
            now = now.replace(m=advance(y, observed, now))
            state = sample(self.transition(state, now), (), generator)
            y = _float(sample(self.emission(state, now), (), generator), now)
            ys.append(y)
            zs.append(state)
        return Paths(torch.stack(ys, -2), torch.stack(zs, -2))


def _float(y: Tensor, c: Context) -> Tensor:
    return y.to(c.dt.dtype)
