"""Exact inference in hidden Markov models: forward filter, backward messages, posterior chain."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent import hmm
from seqlatent.chain import Chain
from seqlatent.distributions import OneHot, regime_of
from seqlatent.emissions.by_regime import ByRegime
from seqlatent.inference.base import Generative, Inference, Latest, States, at, position
from seqlatent.sequences import Context, Sequences
from seqlatent.transitions.regimes import Regimes

__all__ = ["ForwardBackward"]


class ForwardBackward(Inference):
    r"""Exact posterior of a hidden Markov model, with an emission of any family.

    .. math:: q(s_t \mid s_{t-1}) \propto p(s_t \mid s_{t-1})\, p(y_t \mid s_t)\, \beta_t(s_t)

    The state is a one-hot regime, so the mean of a marginal is the probability of each regime. The
    evidence has a hand-written gradient, and :math:`\log p(y, s) - \log q(s)` is the log evidence
    on every path.

    Args:
        scan: Whether filter and smoother are associative scans, parallel in time, rather than
            loops.

    Example:
        >>> model = seqlatent.zoo.hidden_markov(states=2)
        >>> model.smooth(Sequences.of(torch.zeros(3, 5, 1))).mean.shape
        torch.Size([3, 5, 2])

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition (Rabiner,
        1989).
    """

    def __init__(self, *, scan: bool = False) -> None:
        super().__init__()
        self.scan = scan

    def check(self, model: Generative) -> None:
        if not isinstance(model.transition, Regimes):
            raise TypeError(
                "ForwardBackward sums over regimes and needs the transition Regimes, found "
                f"{type(model.transition).__name__}; use IMM, GPB2 or RaoBlackwell for "
                "SwitchingLinear, Kalman where the model is linear and Gaussian, else Amortised or "
                "Particles."
            )
        if isinstance(model.emission, ByRegime):
            check_count(model.emission, model.transition.latent_dim)

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        c = model.context(sequences) if c is None else c
        return RegimeChain(hmm.posterior_kernels(*self._logs(model, sequences, c)), c)

    def likelihoods(self, model: Generative, sequences: Sequences, c: Context) -> Tensor:
        """Log density of each step in every regime ``(B, T, S)``."""
        transition, emission = model.transition, model.emission
        assert isinstance(transition, Regimes)
        y, observed = sequences.y, sequences.observed
        shape = (sequences.batch, sequences.steps)
        if isinstance(emission, ByRegime):
            return emission.log_probs(y, observed, y.new_zeros(*shape, 0), c)
        states = transition.latent_dim
        z = torch.eye(states, dtype=y.dtype, device=y.device)[:, None, None]
        z = z.expand(states, *shape, states)
        return emission.log_prob(y, observed, z, c).movedim(0, -1)

    def _logs(
        self, model: Generative, sequences: Sequences, c: Context, start: Latest | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of the first distribution, of the transitions and of the likelihoods."""
        transition, ll = model.transition, self.likelihoods(model, sequences, c)
        assert isinstance(transition, Regimes)
        first, M = transition.log_initial(c[0]), transition.log_transition(c)
        if start is not None and bool(start.started.any()):
            if start.values is None or start.log_weights is None:
                raise ValueError(
                    "ForwardBackward continues from a belief about regimes, found one with moments;"
                    " filter the data again with this model."
                )
            before = (start.log_weights[..., None] + start.values.log()).logsumexp(0)
            step = transition.log_transition(c[0])
            moved = (before[..., :, None] + step).logsumexp(-2)
            first = torch.where(start.started[:, None], moved, first)
        return first, M, ll

    def _filtered(
        self, model: Generative, sequences: Sequences, c: Context, start: Latest | None = None
    ) -> "hmm.Filtered":
        run = hmm.filter_scan if self.scan else hmm.filter
        return run(*self._logs(model, sequences, c, start))

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered = self._filtered(model, sequences, c)
        return States(OneHot(filtered.log_prob), filtered.log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        run = hmm.smoother_scan if self.scan else hmm.smoother
        smoothed = run(*self._logs(model, sequences, c))
        return States(OneHot(smoothed.log_prob), smoothed.log_evidence)

    def evidence(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        c = model.context(sequences) if c is None else c
        if self.scan:
            return super().evidence(model, sequences, c=c)
        return hmm.log_evidence(*self._logs(model, sequences, c))

    def latest(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        *,
        start: Latest | None = None,
        end: bool | Tensor = False,
        generator: torch.Generator | None = None,
    ) -> Latest:
        filtered = self._filtered(model, sequences, c, start)
        index = position(sequences, end)
        started = index >= 0
        log_weights = at(filtered.log_prob, index).log_softmax(-1).T
        states = len(log_weights)
        values = torch.eye(states, dtype=log_weights.dtype, device=log_weights.device)
        values = values[:, None].expand(states, sequences.batch, states)
        latest = Latest(None, None, values, log_weights, started)
        return latest if start is None else kept(latest, start)

    def paths(
        self, model: Generative, sequences: Sequences, *, c: Context | None = None
    ) -> "hmm.Viterbi":
        """The most probable path of regimes of each series ``(B, T)``, and its log joint."""
        c = model.context(sequences) if c is None else c
        return hmm.viterbi(*self._logs(model, sequences, c))

    def extra_repr(self) -> str:
        return "scan=True" if self.scan else ""


class RegimeChain(Chain):
    """The exact posterior over paths of regimes, by its forward kernels.

    Args:
        kernels: Logarithms of the first distribution and of the transition into each later step.
        context: What the model conditions on.
    """

    def __init__(self, kernels: "hmm.Kernels", context: Context) -> None:
        self.kernels = kernels
        self.context = context

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        path = hmm.sample_chain(self.kernels, shape, generator)
        first = self.kernels.log_initial
        return torch.nn.functional.one_hot(path, first.shape[-1]).to(first.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        first, rest = self.conditionals(z)
        start = first.log_prob(z[..., 0, :])
        return torch.cat([start[..., None], rest.log_prob(z[..., 1:, :])], -1)

    def conditionals(
        self, z: Tensor, prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        first, rest = self.kernels
        index = regime_of(z[..., :-1, :], first.shape[-1])[..., None, None]
        rows = rest.expand(*index.shape[:-2], *rest.shape[-2:])
        rows = rows.gather(-2, index.expand(*index.shape[:-1], rest.shape[-1]))[..., 0, :]
        return OneHot(first.expand(*z.shape[:-2], -1)), OneHot(rows)


def check_count(emission: ByRegime, states: int) -> None:
    """Verifies that there is an emission for each regime."""
    if emission.states != states:
        raise TypeError(
            f"ByRegime has {emission.states} emissions for {states} regimes; give one for each."
        )


def kept(latest: Latest, start: Latest) -> Latest:
    """Where a series had no step, what was known before, if it is held in the same way."""
    now = latest.started
    if (
        start.values is not None
        and start.log_weights is not None
        and latest.values is not None
        and latest.log_weights is not None
        and start.values.shape == latest.values.shape
    ):
        latest = latest.replace(
            values=torch.where(now[:, None], latest.values, start.values),
            log_weights=torch.where(now, latest.log_weights, start.log_weights),
        )
        if latest.cov is not None and start.cov is not None:
            cov = torch.where(now[:, None, None, None], latest.cov, start.cov)
            latest = latest.replace(cov=cov)
    return latest.replace(started=now | start.started)
