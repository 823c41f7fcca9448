"""Exact inference for linear Gaussian models: Kalman filter, smoother and posterior chain."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent import kalman
from seqlatent.chain import Chain, ConditionallyLinear
from seqlatent.distributions import CovarianceNormal, FactorNormal, standard_normal
from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference.base import Generative, Inference, Latest, States, at, position
from seqlatent.inference.outliers import Outliers
from seqlatent.linalg import condition
from seqlatent.sequences import Context, Sequences

__all__ = ["Kalman", "PosteriorChain"]

# Variance of a prediction, in units of the noise, up to which one step needs no factors.
_PLAIN = 1e4


class Kalman(Inference):
    r"""Exact posterior of a model that is linear and Gaussian given its context.

    Filtering and smoothing marginals come from the Kalman recursions, the evidence from the
    innovations. The posterior over paths is the model's own chain corrected by the backward
    messages :math:`\beta_t(z_t) = p(y_{t:T} \mid z_t)`:

    .. math:: q(z_t \mid z_{t-1}) \propto p(z_t \mid z_{t-1}) \beta_t(z_t)

    which moves on the same subspace as the prior where that is singular, so that
    :math:`\log p(y, z) - \log q(z)` is the log evidence on every path.

    A first state of infinite variance, ``initial_scale=math.inf``, is exact too: the evidence is
    the diffuse one, filtered and smoothed variances are infinite where data leave a state open, and
    forecasts take the variance (1e4)^2 there, in standardised units.

    With :class:`Outliers` each value counts for as much as the values before it make it credible,
    and all else is exact given these weights; the evidence is that of the mixture.

    Args:
        outliers: The law of outliers; None where there are none.
        scan: Whether filter and smoother are associative scans, parallel in time, rather than
            loops.

    Example:
        >>> model = seqlatent.zoo.structural()
        >>> model.inference, model.filter(Sequences.of(torch.zeros(2, 5, 1))).mean.shape
        (Kalman(), torch.Size([2, 5, 1]))

    References:
        A New Approach to ConditionallyLinear Filtering and Prediction Problems (Kalman, 1960).
        Maximum Likelihood Estimates of ConditionallyLinear Dynamic Systems (Rauch, Tung & Striebel,
        1965). Temporal Parallelization of Bayesian Smoothers (Särkkä & García-Fernández, 2021).
        Filtering and Smoothing of State Vector for Diffuse State-Space Models (Koopman & Durbin,
        2003).
    """

    def __init__(self, outliers: Outliers | None = None, *, scan: bool = False) -> None:
        super().__init__()
        self.outliers = outliers
        self.scan = scan

    @property
    def doubts(self) -> bool:
        """Whether some values may be outliers."""
        return self.outliers is not None and self.outliers.any

    def check(self, model: Generative) -> None:
        lacking = [
            (part, module)
            for part, module, kind in (
                ("transition", model.transition, ConditionallyLinear),
                ("emission", model.emission, LinearEmission),
            )
            if not isinstance(module, kind)
        ]
        if lacking:
            names = " and ".join(f"the {part} {type(module).__name__}" for part, module in lacking)
            raise TypeError(
                f"Kalman needs matrices(c) of transition and emission: {names} is not linear and "
                "Gaussian. Use Amortised (a trained encoder) or Particles instead, or a "
                "LinearTransition and a LinearEmission."
            )
        if self.outliers is not None and model.emission.obs_dim != 1:
            raise TypeError(
                "Outliers are told apart in one observed dimension, found an emission of "
                f"{model.emission.obs_dim}; use Kalman() without them, or a model for each."
            )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        c = model.context(sequences) if c is None else c
        matrices, _ = self._weighed(_matrices(model, c), sequences)
        G, G0, system = matrices.G, matrices.G0, matrices.system()
        potentials = kalman.potentials(system, sequences.normalised, sequences.observed)
        kernels = kalman.posterior_kernels(system, potentials, G=G, G0=G0)
        return PosteriorChain(kernels, c, (G0.shape[-1], G.shape[-1]))

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered, _ = self._filtered(model, sequences, c, None)
        return States(CovarianceNormal(filtered.mean, filtered.cov), filtered.log_evidence)

    def doubted(
        self, model: Generative, sequences: Sequences, *, c: Context | None = None
    ) -> kalman.Doubted | None:
        """What is made of each value given those before it; None where there are no outliers."""
        c = model.context(sequences) if c is None else c
        return self._weighed(_matrices(model, c), sequences)[1]

    def outlying(
        self, model: Generative, sequences: Sequences, *, c: Context | None = None
    ) -> Tensor:
        """Probability that each value is an outlier given all others ``(B, T)``."""
        if self.outliers is None or not self.outliers.any:
            return sequences.y.new_zeros(sequences.batch, sequences.steps)
        c = model.context(sequences) if c is None else c
        system = _matrices(model, c).system()
        return self.outliers.probability(system, sequences.normalised, sequences.observed)

    def evidence(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if self.scan or self.doubts:
            return super().evidence(model, sequences, c=c, generator=generator)
        c = model.context(sequences) if c is None else c
        system = _matrices(model, c).system()
        value = kalman.log_likelihood(system, sequences.normalised, sequences.observed)
        return value - sequences.log_units

    def predict(
        self, model: Generative, sequences: Sequences, *, c: Context | None = None
    ) -> States:
        """States given the steps before each, and the evidence of each step.

        So that observations have a predictive distribution at every step, directions of a diffuse
        first state that are not yet determined have the variance (1e4)^2 here, in standardised
        units.
        """
        c = model.context(sequences) if c is None else c
        filtered, _ = self._filtered(model, sequences, c, None, kalman.LARGE_VARIANCE)
        marginals = CovarianceNormal(filtered.predicted_mean, filtered.predicted_cov)
        return States(marginals, filtered.log_evidence)

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
        going = start is not None and bool(start.started.all())
        if start is not None and going and sequences.steps == 1 and end is True and not self.doubts:
            one = _one_step(model, sequences, c[0], start)
            if one is not None:
                return one
        filtered, run = self._filtered(model, sequences, c, start, kalman.LARGE_VARIANCE)
        index = position(sequences, end)
        started = index >= 0
        mean = at(filtered.mean, index)
        cov = at(filtered.cov.expand(*filtered.mean.shape, filtered.mean.shape[-1]), index)
        if start is not None and start.mean is not None and start.cov is not None:
            mean = torch.where(started[:, None], mean, start.mean)
            cov = torch.where(started[:, None, None], cov, start.cov)
            started = started | start.started
        if run is None:
            return Latest(mean, cov, None, None, started)
        last = torch.where(index >= 0, at(run, index), _run(start, sequences))
        return Latest(mean, cov, None, None, started, (last,))

    def _weighed(
        self,
        matrices: "_Matrices",
        sequences: Sequences,
        first: tuple[Tensor, Tensor] | None = None,
        run: Tensor | None = None,
    ) -> tuple["_Matrices", kalman.Doubted | None]:
        """The noise with which each value counts in the place of the emission's."""
        if self.outliers is None or not self.outliers.any:
            return matrices, None
        y, observed = sequences.normalised, sequences.observed
        found = self.outliers(matrices.system(first), y, observed, run)
        return matrices._replace(R=found.noise[..., None, None]), found

    def _filtered(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        start: Latest | None,
        undetermined: float = math.inf,
    ) -> tuple["kalman.Filtered", Tensor | None]:
        """Moments, and how many of the last values lay apart; None where that is not asked."""
        if start is not None and start.mean is None and bool(start.started.any()):
            raise ValueError(
                "Kalman continues from a belief with moments, found one with particles; "
                "filter the data again with this model."
            )
        matrices, found = _matrices(model, c), []
        diffuse = bool(matrices.G0.isinf().any())
        if start is None or (diffuse and not bool(start.started.all())):
            found.append(self._run(matrices, sequences, undetermined=undetermined))
        if start is not None and (not diffuse or bool(start.started.any())):
            # what is known of a series that goes on is finite, if of large variance where it is not
            # determined
            first, run = _moved(model, c, start, matrices), _run(start, sequences)
            found.append(self._run(matrices, sequences, first, run))
        filtered, run = found[-1]
        if start is not None and len(found) > 1:
            filtered = _either(start.started, filtered, found[0][0])
            run = None if run is None else torch.where(start.started[:, None], run, found[0][1])
        # the filter runs in standardised units; a density in those of the data has a Jacobian
        jacobian = (sequences.observed * sequences.scale.log()[:, None]).sum(-1)
        return filtered._replace(log_evidence=filtered.log_evidence - jacobian), run

    def _run(
        self,
        matrices: "_Matrices",
        sequences: Sequences,
        first: tuple[Tensor, Tensor] | None = None,
        run: Tensor | None = None,
        undetermined: float = math.inf,
    ) -> tuple["kalman.Filtered", Tensor | None]:
        """One filter, in standardised units."""
        matrices, doubted = self._weighed(matrices, sequences, first, run)
        filter = kalman.filter_scan if self.scan else kalman.filter
        y, observed = sequences.normalised, sequences.observed
        found = filter(matrices.system(first), y, observed, undetermined=undetermined)
        if doubted is None:
            return found, None
        return found._replace(log_evidence=doubted.log_evidence), doubted.run

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered, _ = self._filtered(model, sequences, c, None)
        run = kalman.smoother_scan if self.scan else kalman.smoother
        matrices, doubted = self._weighed(_matrices(model, c), sequences)
        y, observed = sequences.normalised, sequences.observed
        # what a filter that doubts calls evidence is none of the noises that it found
        known = filtered if doubted is None else None
        smoothed = run(matrices.system(), y, observed, filtered=known)
        return States(CovarianceNormal(smoothed.mean, smoothed.cov), filtered.log_evidence)


def _run(start: Latest | None, sequences: Sequences) -> Tensor:
    """How many of the last values lay apart before the first step ``(B,)``."""
    if start is not None and start.encoder:
        return start.encoder[0]
    return sequences.y.new_zeros(sequences.batch)


def _one_step(model: Generative, sequences: Sequences, c: Context, start: Latest) -> Latest | None:
    """A row more, without what filters do for many; None where subtracting would cost digits."""
    if start.mean is None or start.cov is None:
        return None
    transition, emission = _linear(model)
    F, b, G = transition.matrices(c)
    mean, cov = _step(F, b, G, start.mean, start.cov)
    H, d, R = emission.matrices(c)
    noise, spread = (x.diagonal(dim1=-2, dim2=-1) for x in (R, H @ cov @ H.mT))
    if not bool((spread <= _PLAIN * noise).all()):
        return None
    y, observed = sequences.normalised[:, 0], sequences.observed[:, 0]
    mean, cov, _ = condition(mean, cov, H, d, R, y, observed)
    return Latest(mean, cov, None, None, start.started)


def _step(F: Tensor, b: Tensor, G: Tensor, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Moments a step later."""
    return (F @ mean[..., None])[..., 0] + b, F @ cov @ F.mT + G @ G.mT


def _moved(
    model: Generative, c: Context, start: Latest, matrices: "_Matrices"
) -> tuple[Tensor, Tensor]:
    """Moments of the first state: where a series goes on, a step after its last."""
    m0, P0 = matrices.m0, kalman.prior(matrices.G0)[0]
    if start.mean is None or start.cov is None:
        return m0, P0
    F, b, G = _linear(model)[0].matrices(c[0])
    mean, cov = _step(F, b, G, start.mean, start.cov)
    going = start.started[:, None]
    return torch.where(going, mean, m0), torch.where(going[..., None], cov, P0)


def _either(going: Tensor, later: "kalman.Filtered", fresh: "kalman.Filtered") -> "kalman.Filtered":
    """Moments of series that go on, and of the others."""
    chosen = [
        torch.where(going.reshape(-1, *(1,) * (x.ndim - 1)), x, y)
        for x, y in zip(later, fresh, strict=True)
    ]
    return kalman.Filtered(*chosen)


def _linear(model: Generative) -> tuple[ConditionallyLinear, LinearEmission]:
    assert isinstance(model.transition, ConditionallyLinear)
    assert isinstance(model.emission, LinearEmission)
    return model.transition, model.emission


class _Matrices(NamedTuple):
    """The matrices of a model, and factors of its covariances."""

    F: Tensor
    b: Tensor
    G: Tensor
    m0: Tensor
    G0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor

    def system(self, first: tuple[Tensor, Tensor] | None = None) -> kalman.LinearGaussianSystem:
        """The system, or the one that starts with other moments, which are finite."""
        P0, diffuse = kalman.prior(self.G0)
        m0, P0, diffuse = (self.m0, P0, diffuse) if first is None else (*first, None)
        Q, emission = self.G @ self.G.mT, (self.H, self.d, self.R)
        return kalman.LinearGaussianSystem(self.F, self.b, Q, m0, P0, *emission, diffuse=diffuse)


def _matrices(model: Generative, c: Context) -> _Matrices:
    transition, emission = _linear(model)
    F, b, G = transition.matrices(c)
    m0, G0 = transition.initial_moments(c.first)
    return _Matrices(F, b, G, m0, G0, *emission.matrices(c))


class PosteriorChain(Chain):
    """The exact posterior over paths, by its forward kernels.

    Args:
        kernels: The kernels of all steps.
        context: What the model conditions on.
        ranks: Number of noises of the first state, and of each later step.
    """

    def __init__(self, kernels: kalman.Kernels, context: Context, ranks: tuple[int, int]) -> None:
        self.kernels = kernels
        self.context = context
        self.ranks = ranks

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        size = torch.Size(shape) + self.kernels.offset.shape[:-1] + self.kernels.factor.shape[-1:]
        return kalman.sample_paths(
            self.kernels, standard_normal(size, self.kernels.offset, generator)
        )

    def log_prob(self, z: Tensor) -> Tensor:
        first, rest = self.conditionals(z)
        start = first.log_prob(z[..., 0, :])
        return torch.cat([start[..., None], rest.log_prob(z[..., 1:, :])], -1)

    def conditionals(
        self, z: Tensor, prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        A, offset, factor = self.kernels
        first = FactorNormal(offset[..., 0, :], factor[..., 0, :, : self.ranks[0]])
        loc = (A[..., 1:, :, :] @ z[..., :-1, :, None])[..., 0] + offset[..., 1:, :]
        return first, FactorNormal(loc, factor[..., 1:, :, : self.ranks[1]])
