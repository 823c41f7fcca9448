"""Inference in switching linear systems, by mixtures of normal distributions."""

from abc import abstractmethod

import torch
from torch import Tensor

from seqlatent import switching
from seqlatent.chain import Chain
from seqlatent.distributions import CovarianceNormal, Switched, regime_of
from seqlatent.emissions.by_regime import ByRegime
from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference.base import Generative, Inference, Latest, States, at, position
from seqlatent.inference.hmm import check_count, kept
from seqlatent.sequences import Context, Sequences
from seqlatent.transitions.regimes import Regimes, SwitchingLinear

__all__ = ["GPB2", "IMM", "RaoBlackwell", "Switching"]

Problem = tuple["switching.SwitchingSystem", Tensor, Tensor]


class Switching(Inference):
    """What the inferences of switching linear systems share.

    The distribution of the state is a mixture of normal distributions, each in a regime; between
    two runs it is held as it is. The posterior over whole paths is not given, only the distribution
    of each state.
    """

    def check(self, model: Generative) -> None:
        name, emission = type(self).__name__, model.emission
        if not isinstance(model.transition, SwitchingLinear):
            hint = (
                "ForwardBackward is exact for Regimes alone"
                if isinstance(model.transition, Regimes)
                else "use Kalman, Amortised or Particles"
            )
            raise TypeError(
                f"{name} needs the transition SwitchingLinear, found "
                f"{type(model.transition).__name__}; {hint}."
            )
        if isinstance(emission, ByRegime):
            check_count(emission, model.transition.states)
        if not isinstance(emission, LinearEmission) and not (
            isinstance(emission, ByRegime) and emission.linear
        ):
            raise TypeError(
                f"{name} needs an emission that is linear and Gaussian in each regime, found "
                f"{type(emission).__name__}; use emissions.LinearGaussian(transition.latent_dim, "
                "...), or ByRegime of LinearGaussian emissions of the vector, or Particles."
            )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        raise TypeError(
            f"{type(self).__name__} gives the distribution of each state and the evidence, not a "
            "chain over paths: use the objective evidence, smooth(), or Particles to draw paths."
        )

    @abstractmethod
    def _run(
        self,
        problem: Problem,
        start: "switching.Start | None",
        generator: torch.Generator | None,
    ) -> "switching.Cloud":
        """The filter, with the mixture that it goes on with after every step."""

    def _problem(self, model: Generative, sequences: Sequences, c: Context) -> Problem:
        """What the functions of ``switching`` take, in standardised units."""
        return _system(model, c), sequences.normalised, sequences.observed

    def _filtered(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        start: Latest | None,
        generator: torch.Generator | None,
    ) -> "switching.Cloud":
        assert isinstance(model.transition, SwitchingLinear)
        begin = None if start is None else _start(start, model.transition.states)
        cloud = self._run(self._problem(model, sequences, c), begin, generator)
        # the filter runs in standardised units; a density in those of the data has a Jacobian
        jacobian = (sequences.observed * sequences.scale.log()[:, None]).sum(-1)
        filtered = cloud.filtered
        filtered = filtered._replace(log_evidence=filtered.log_evidence - jacobian)
        return cloud._replace(filtered=filtered)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered = self._filtered(model, sequences, c, None, generator).filtered
        return States(_distribution(*filtered[:3]), filtered.log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered = self._filtered(model, sequences, c, None, generator).filtered
        smoothed = switching.smoother(_system(model, c), filtered)
        return States(_distribution(*smoothed), filtered.log_evidence)

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
        cloud = self._filtered(model, sequences, c, start, generator)
        index = position(sequences, end)
        log_weights, regime, mean, cov = (at(x, index) for x in cloud[1:])
        states = cloud.filtered.log_prob.shape[-1]
        named = torch.nn.functional.one_hot(regime, states).to(mean.dtype)
        values = torch.cat([named, mean], -1).transpose(0, 1)
        cov = torch.nn.functional.pad(cov, (states, 0, states, 0))
        latest = Latest(None, cov, values, log_weights.log_softmax(-1).T, index >= 0)
        return latest if start is None else kept(latest, start)


class IMM(Switching):
    r"""Interacting multiple models: one normal distribution per regime, mixed before each step.

    The cheapest filter of a switching linear system, and a good one. Its evidence is an
    approximation, exact with one regime, and can be trained by ``evidence``. Smoothed distributions
    are Kim's.

    Example:
        >>> model = seqlatent.zoo.switching(states=2)
        >>> rough = seqlatent.LatentModel(model.transition, model.emission, IMM())
        >>> rough.filter(Sequences.of(torch.zeros(3, 5, 1))).mean.shape
        torch.Size([3, 5, 3])

    References:
        The Interacting Multiple Model Algorithm for Systems with Markovian Switching Coefficients
        (Blom & Bar-Shalom, 1988).
    """

    def _run(
        self,
        problem: Problem,
        start: "switching.Start | None",
        generator: torch.Generator | None,
    ) -> "switching.Cloud":
        return _as_cloud(switching.imm(*problem, start=start))


class GPB2(Switching):
    r"""Generalised pseudo-Bayes of order two: the filter and smoother of Kim (1994).

    One normal distribution per regime, each of which goes into every next regime before those that
    meet are merged. The usual choice to estimate a switching linear system by ``evidence``.

    Example:
        >>> model = seqlatent.zoo.switching(states=2)
        >>> model.inference, model.smooth(Sequences.of(torch.zeros(3, 5, 1))).mean.shape
        (GPB2(), torch.Size([3, 5, 3]))

    References:
        Dynamic Linear Models with Markov-Switching (Kim, 1994).
    """

    def _run(
        self,
        problem: Problem,
        start: "switching.Start | None",
        generator: torch.Generator | None,
    ) -> "switching.Cloud":
        return _as_cloud(switching.gpb2(*problem, start=start))


class RaoBlackwell(Switching):
    r"""Particle filter over regimes with an exact Kalman filter for each particle.

    Its evidence is unbiased, and exact while there are no more paths of regimes than particles. To
    check an approximation, or to filter when regimes are remembered for long; the gradient of its
    evidence leaves out the choice of particles, so train with :class:`GPB2`. Smoothed distributions
    come from as many paths of regimes, drawn backwards, along which the state is smoothed exactly;
    they have no gradient.

    Args:
        n: Number of particles, and of paths.

    Example:
        >>> model = seqlatent.zoo.switching(states=2)
        >>> exact = seqlatent.LatentModel(model.transition, model.emission, RaoBlackwell(32))
        >>> data = Sequences.of(torch.arange(5.0).reshape(1, 5, 1))
        >>> torch.allclose(exact.filter(data).mean[:, :2], model.filter(data).mean[:, :2])
        True

    References:
        On-Line Inference for Hidden Markov Models via Particle Filters (Fearnhead & Clifford,
        2003). Mixture Kalman Filters (Chen & Liu, 2000). Rao-Blackwellized Particle Smoothers for
        Conditionally Linear Gaussian Models (Lindsten et al., 2016).
    """

    def __init__(self, n: int = 100) -> None:
        super().__init__()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a number of particles of at least 1, found {n!r}.")
        self.n = n

    def _run(
        self,
        problem: Problem,
        start: "switching.Start | None",
        generator: torch.Generator | None,
    ) -> "switching.Cloud":
        return switching.rao_blackwell(*problem, particles=self.n, start=start, generator=generator)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        cloud = self._filtered(model, sequences, c, None, generator)
        problem = self._problem(model, sequences, c)
        paths = switching.sample_paths(*problem, cloud=cloud, paths=self.n, generator=generator)
        smoothed = paths.smoothed(cloud.filtered.log_prob.shape[-1])
        return States(_distribution(*smoothed), cloud.filtered.log_evidence)

    def extra_repr(self) -> str:
        return f"{self.n}"


def _system(model: Generative, c: Context) -> "switching.SwitchingSystem":
    transition = model.transition
    assert isinstance(transition, SwitchingLinear)
    return switching.SwitchingSystem(
        transition.regimes.log_initial(c[0]),
        transition.regimes.log_transition(c),
        *transition.matrices(c),
        *transition.initial_moments(c[0]),
        *_emission(model.emission, c, transition.states),
    )


def _emission(emission: object, c: Context, states: int) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings, offsets and covariances of each regime."""
    if isinstance(emission, ByRegime):
        return emission.matrices(c)
    assert isinstance(emission, LinearEmission)
    H, d, R = emission.matrices(c)
    named, H, R = H[..., :states].mT, H[..., states:].unsqueeze(-3), R.unsqueeze(-3)
    H = H.expand(*H.shape[:-3], states, *H.shape[-2:])
    R = R.expand(*R.shape[:-3], states, *R.shape[-2:])
    return H, d.unsqueeze(-2) + named, R


def _distribution(log_prob: Tensor, mean: Tensor, cov: Tensor) -> Switched:
    parts = zip(mean.unbind(-2), cov.unbind(-3), strict=True)
    return Switched(log_prob, [CovarianceNormal(m, P) for m, P in parts])


def _as_cloud(filtered: "switching.Filtered") -> "switching.Cloud":
    """The mixture of a filter that keeps one distribution per regime."""
    log_prob, mean, cov, _ = filtered
    regime = torch.arange(log_prob.shape[-1], device=log_prob.device).expand(log_prob.shape)
    return switching.Cloud(filtered, log_prob, regime, mean, cov)


def _start(start: Latest, states: int) -> "switching.Start":
    if start.values is None or start.log_weights is None:
        raise ValueError(
            "a switching filter continues from a belief with regimes, found one with moments; "
            "filter the data again with this model."
        )
    values = start.values.transpose(0, 1)
    mean, regime = values[..., states:], regime_of(values, states)
    if start.cov is None:
        cov = mean.new_zeros(*mean.shape, mean.shape[-1])
    else:
        cov = start.cov[..., states:, states:]
    return switching.Start(switching.Mixture(start.log_weights.T, regime, mean, cov), start.started)
