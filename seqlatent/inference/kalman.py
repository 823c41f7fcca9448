"""Exact inference for linear Gaussian models: Kalman filter, smoother and posterior chain."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent import kalman
from seqlatent.chain import Chain, ConditionallyLinear, MarkovChain
from seqlatent.distributions import CovarianceNormal, Empirical, FactorNormal, standard_normal
from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference.base import Generative, Inference, Latest, States, at, position
from seqlatent.linalg import condition
from seqlatent.sequences import Context, Sequences

__all__ = ["Kalman", "PosteriorChain", "Prior"]

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

    Args:
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

    def __init__(self, *, scan: bool = False) -> None:
        super().__init__()
        self.scan = scan

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

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        c = model.context(sequences) if c is None else c
        matrices = _matrices(model, c)
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
        filtered = self._filtered(model, sequences, c, None)
        return States(CovarianceNormal(filtered.mean, filtered.cov), filtered.log_evidence)

    def evidence(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if self.scan:
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
        filtered = self._filtered(model, sequences, c, None, kalman.LARGE_VARIANCE)
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
        if start is not None and sequences.steps == 1 and end is True and bool(start.started.all()):
            one = _one_step(model, sequences, c[0], start)
            if one is not None:
                return one
        filtered = self._filtered(model, sequences, c, start, kalman.LARGE_VARIANCE)
        index = position(sequences, end)
        started = index >= 0
        mean = at(filtered.mean, index)
        cov = at(filtered.cov.expand(*filtered.mean.shape, filtered.mean.shape[-1]), index)
        if start is not None and start.mean is not None and start.cov is not None:
            mean = torch.where(started[:, None], mean, start.mean)
            cov = torch.where(started[:, None, None], cov, start.cov)
            started = started | start.started
        return Latest(mean, cov, None, None, started)

    def _filtered(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        start: Latest | None,
        undetermined: float = math.inf,
    ) -> "kalman.Filtered":
        if start is not None and start.mean is None and bool(start.started.any()):
            raise ValueError(
                "Kalman continues from a belief with moments, found one with particles; "
                "filter the data again with this model."
            )
        run = kalman.filter_scan if self.scan else kalman.filter
        y, observed = sequences.normalised, sequences.observed
        matrices, filtered = _matrices(model, c), None
        diffuse = bool(matrices.G0.isinf().any())
        if start is None or (diffuse and not bool(start.started.all())):
            filtered = run(matrices.system(), y, observed, undetermined=undetermined)
        if start is not None and (not diffuse or bool(start.started.any())):
            # what is known of a series that goes on is finite, if of large variance where it is not
            # determined
            later = run(matrices.system(_moved(model, c, start, matrices)), y, observed)
            filtered = later if filtered is None else _either(start.started, later, filtered)
        assert filtered is not None
        # the filter runs in standardised units; a density in those of the data has a Jacobian
        jacobian = (sequences.observed * sequences.scale.log()[:, None]).sum(-1)
        return filtered._replace(log_evidence=filtered.log_evidence - jacobian)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        filtered = self._filtered(model, sequences, c, None)
        run = kalman.smoother_scan if self.scan else kalman.smoother
        system, y, observed = _matrices(model, c).system(), sequences.normalised, sequences.observed
        smoothed = run(system, y, observed, filtered=filtered)
        return States(CovarianceNormal(smoothed.mean, smoothed.cov), filtered.log_evidence)


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


class Prior(Inference):
    """Inference for a model without random latents, whose posterior is its prior."""

    def check(self, model: Generative) -> None:
        if model.transition.latent_dim:
            raise TypeError(
                f"Prior infers nothing, and {type(model.transition).__name__} has "
                f"{model.transition.latent_dim} latent dimensions; use Kalman, Amortised or "
                "Particles."
            )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        return MarkovChain(model.transition, model.context(sequences) if c is None else c)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        z = sequences.y.new_zeros(sequences.batch, sequences.steps, 0)
        log_evidence = model.emission.log_prob(sequences.y, sequences.observed, z, c)
        return States(Empirical(z[None], torch.zeros_like(log_evidence)[None]), log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        return self.filter(model, sequences, c=c, generator=generator)

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
        values = sequences.y.new_zeros(1, sequences.batch, 0)
        started = position(sequences, end) >= 0
        if start is not None:
            started = started | start.started
        return Latest(None, None, values, values.sum(-1), started)
