"""Standard errors of the parameters of an exact model, from the curvature of its evidence."""

import copy
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training.likelihood.natural_parameters import Natural, natural, unconstrained_names
from seqlatent.training.likelihood.parameter_vectors import Vectors

__all__ = ["Estimates", "StandardErrors", "standard_errors"]

_STEP = 1e-4
_SHOWN = 40


@dataclass(frozen=True)
class Estimates:
    """Estimates with their errors: of parameters that series share, or of each row of tables.

    An error is infinite where the evidence does not say it: see ``at_bound``, ``undetermined``.

    Args:
        names: Names of the parameters.
        value: Estimates ``(P,)``, or of N rows ``(N, P)``.
        error: Standard errors, shaped alike.
        cov: Covariances ``(P, P)`` or ``(N, P, P)``.
        at_bound: Whether a parameter is on its bound, such as a variance that is zero: the
            evidence does not curve there, and errors of the others are those given it.
        undetermined: Whether the evidence is flat, or curves upwards, in a direction that moves a
            parameter.
    """

    names: tuple[str, ...]
    value: Tensor
    error: Tensor
    cov: Tensor
    at_bound: Tensor
    undetermined: Tensor

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        """Estimate and standard error of a parameter."""
        if name not in self.names:
            raise KeyError(f"{name!r} is none of the parameters {', '.join(self.names)}.")
        i = self.names.index(name)
        return self.value[..., i], self.error[..., i]


@dataclass(frozen=True)
class StandardErrors:
    """What :func:`standard_errors` returns; its text is a table.

    Args:
        kind: How the covariance was found.
        natural: Variances, dampings, periods, coefficients.
        unconstrained: The parameters as they are stored.
        rows: The row of the tables of each estimate; empty where parameters are shared.
        gain: What a step of Newton would add to the log evidence, infinite where that curves
            upwards: above 0 the model is not at a maximum, and the errors mean little.
    """

    kind: str
    natural: Estimates
    unconstrained: Estimates
    rows: Tensor
    gain: Tensor
    _natural: Natural = field(repr=False)

    def interval(self, level: int | float = 0.95) -> tuple[Tensor, Tensor]:
        """Confidence limits of the natural parameters, shaped as their estimates.

        They are those of the unconstrained scale where a parameter is a function of one, and so
        never leave its range; symmetric where it is a function of several, as of a covariance.

        Args:
            level: Coverage, in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), found {level!r}.")
        z = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()
        return _interval(self._natural, self.unconstrained, self.natural, z)

    def __str__(self) -> str:
        found, (low, high) = self.natural, self.interval()
        width = max(9, *(len(name) for name in found.names))
        head = f"{'parameter':{width}}  {'estimate':>11}  {'error':>11}  95% interval"
        lines = [f"standard errors ({self.kind})", head]
        tables = bool(len(self.rows))
        for i in range(min(len(self.rows), _SHOWN) if tables else 1):
            if tables:
                lines.append(f"row {int(self.rows[i])}")
            at = i if tables else ...
            columns = (found.value, found.error, low, high, found.at_bound, found.undetermined)
            for name, *x in zip(found.names, *(c[at].tolist() for c in columns), strict=True):
                lines.append(_line(name.ljust(width), *x))
        if len(self.rows) > _SHOWN:
            lines.append(f"and {len(self.rows) - _SHOWN} rows more")
        worst = float(self.gain.max())
        if worst > 0.01:
            lines.append(f"not at a maximum, from which a step would gain {worst:.2g}: fit on.")
        return "\n".join(lines)


def _line(
    name: str, value: float, error: float, low: float, high: float, bound: bool, flat: bool
) -> str:
    text = f"{name}  {value:11.5g}  "
    if bound:
        return text + f"{'-':>11}  on its bound"
    if flat or error == float("inf"):
        return text + f"{'-':>11}  not determined by the data"
    return text + f"{error:11.5g}  [{low:.5g}, {high:.5g}]"


def standard_errors(
    model: LatentModel,
    sequences: Sequences,
    *,
    kind: str = "observed",
) -> StandardErrors:
    r"""Standard errors of the parameters of an exact model at the maximum of its evidence.

    .. math::
        I = -\frac{\partial^2 \log p(y)}{\partial \theta^2}, \quad
        O = \sum_{b, t} s_{bt} s_{bt}^\top, \; s_{bt} =
            \frac{\partial \log p(y_{bt} \mid y_{b, <t})}{\partial \theta}, \qquad
        V = I^{-1}, \; O^{-1} \text{ or } I^{-1} O I^{-1}

    The information is a central difference of gradients that are exact, computed in double
    precision on a copy of the model. The natural scale, on which variances, dampings and periods
    are read, follows by the delta method. Where each series has parameters of its own, all rows
    are done at once.

    Args:
        model: A model whose inference is ``Kalman``, fitted to the series.
        sequences: The series.
        kind: The inverse of the ``"observed"`` information; of outer products of the scores of
            single observations, ``"opg"``; or a ``"sandwich"`` of both, which holds also where
            noises are not normal.

    Raises:
        TypeError: If the inference of the model is not exact.
        ValueError: If nothing is learned or observed, or the kind is none of these.

    Example:
        >>> from seqlatent.training import em
        >>> model = seqlatent.zoo.structural()
        >>> data = seqlatent.Sequences.of(torch.randn(3, 50, 1).cumsum(1) + torch.randn(3, 50, 1))
        >>> history = em(model, data)
        >>> errors = standard_errors(model, data)
        >>> errors.natural.names
        ('transition.components.0.variance', 'emission.noise.variance')
        >>> value, error = errors.natural["emission.noise.variance"]
        >>> low, high = errors.interval()
        >>> bool(low[1] < value < high[1])
        True

    References:
        Maximum Likelihood Estimation of Misspecified Models (White, 1982).
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 7.3.6.
    """
    if kind not in ("observed", "opg", "sandwich"):
        raise ValueError(f"kind must be 'observed', 'opg' or 'sandwich', found {kind!r}.")
    dtype = sequences.y.dtype
    double = copy.deepcopy(model).double()
    vectors = Vectors(double, sequences.to(dtype=torch.float64), "standard_errors")
    theta = vectors.read()
    every = torch.arange(len(vectors), device=theta.device)
    _, gradient = vectors(every, theta)
    scale = natural(vectors)
    observed = None if kind == "opg" else _observed(vectors, theta, every)
    products = None if kind == "observed" else _products(vectors, theta, every)
    information = products if observed is None else observed
    assert information is not None
    bounded = torch.zeros(theta.shape[1], dtype=torch.bool, device=theta.device)
    for j, has in zip(scale.source, scale.bounded, strict=True):
        bounded[j] |= has and j >= 0
    at_bound = _at_bound(information, gradient, bounded)
    cov, undetermined, upward = _inverse(information, at_bound)
    gain = 0.5 * (gradient.unsqueeze(-2) @ cov @ gradient.unsqueeze(-1))[:, 0, 0]
    gain = torch.where(upward, torch.inf, gain)
    if kind == "sandwich" and products is not None:
        cov = cov @ products @ cov
    raw = _estimates(unconstrained_names(vectors), theta, cov, at_bound, undetermined)
    J = scale.jacobian(theta)
    touched = (J != 0).to(J.dtype)
    at, flat = (
        ((touched @ x[..., None].to(J.dtype)) > 0)[..., 0] for x in (at_bound, undetermined)
    )
    with torch.no_grad():
        value = scale.map(theta)
    own = _estimates(scale.names, value, J @ cov @ J.mT, at, flat & ~at)
    if not vectors.tables:
        raw, own, gain = _alone(raw), _alone(own), gain[0]
    rows = vectors.row if vectors.tables else vectors.row[:0]
    return StandardErrors(kind, _cast(own, dtype), _cast(raw, dtype), rows, gain, scale)


def _observed(vectors: Vectors, theta: Tensor, every: Tensor) -> Float[Tensor, "N P P"]:
    """Negative second derivatives of the evidence of each problem."""
    columns = []
    for j in range(theta.shape[1]):
        step = _steps(theta, j)
        up, down = vectors(every, theta + step)[1], vectors(every, theta - step)[1]
        columns.append((down - up) / (2 * step[:, j : j + 1]))
    vectors.write(theta)
    found = torch.stack(columns, -1)
    return (found + found.mT) / 2


@torch.no_grad()
def _products(vectors: Vectors, theta: Tensor, every: Tensor) -> Float[Tensor, "N P P"]:
    """Outer products of the scores of all steps, added up in each problem."""
    scores = []
    for j in range(theta.shape[1]):
        step = _steps(theta, j)
        values = []
        for sign in (1, -1):
            vectors.write(theta + sign * step)
            values.append(vectors.model.filter(vectors.data).log_evidence)
        width = 2 * step[vectors.owner, j : j + 1]
        scores.append((values[0] - values[1]) / width)
    vectors.write(theta)
    found = torch.stack(scores, -1)
    return vectors.together(found.mT @ found, vectors.owner, len(vectors))


def _steps(theta: Tensor, j: int) -> Tensor:
    step = torch.zeros_like(theta)
    step[:, j] = _STEP * theta[:, j].abs().clamp_min(1.0)
    return step


def _at_bound(
    information: Float[Tensor, "N P P"], gradient: Float[Tensor, "N P"], bounded: Bool[Tensor, " P"]
) -> Bool[Tensor, "N P"]:
    """Where the evidence has lost its curvature on the way to the end of a parameter's range.

    There it is nearly exponential in the unconstrained parameter, with a slope of the order of
    its curvature; at a maximum inside it has no slope.
    """
    curvature = information.diagonal(dim1=-2, dim2=-1)
    on_the_way = (gradient.abs() > 0.25 * curvature.abs()) & (curvature.abs() < 0.25)
    return bounded & (on_the_way | (curvature.abs() < 1e-6))


def _inverse(
    information: Float[Tensor, "N P P"], left_out: Bool[Tensor, "N P"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance of the parameters that are not left out.

    And which of them it says nothing of, and whether the evidence curves upwards anywhere.
    """
    curvature = information.diagonal(dim1=-2, dim2=-1)
    largest = curvature.amax(-1, keepdim=True).clamp_min(0)
    none = left_out | ~(curvature > 1e-12 * largest)
    unit = torch.where(none, 1.0, curvature.clamp_min(torch.finfo(curvature.dtype).tiny).sqrt())
    used = ~(none.unsqueeze(-1) | none.unsqueeze(-2))
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    scaled = torch.where(used, information / (unit.unsqueeze(-1) * unit.unsqueeze(-2)), eye)
    values, vectors = torch.linalg.eigh(scaled)
    flat = values < 1e-6
    inverse = (vectors * torch.where(flat, 0, 1 / values).unsqueeze(-2)) @ vectors.mT
    moved = (flat.unsqueeze(-2) & (vectors.abs() > 0.05)).any(-1)
    cov = torch.where(used, inverse / (unit.unsqueeze(-1) * unit.unsqueeze(-2)), 0)
    return cov, (moved | none) & ~left_out, (values < -1e-3).any(-1)


def _estimates(
    names: tuple[str, ...], value: Tensor, cov: Tensor, at_bound: Tensor, undetermined: Tensor
) -> Estimates:
    unknown = at_bound | undetermined
    either = unknown.unsqueeze(-1) | unknown.unsqueeze(-2)
    cov = torch.where(either, 0, cov)
    cov = torch.where(torch.diag_embed(unknown), torch.inf, cov)
    error = cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return Estimates(names, value, error, cov, at_bound, undetermined)


def _interval(scale: Natural, raw: Estimates, own: Estimates, z: float) -> tuple[Tensor, Tensor]:
    """Limits so many errors away, by the unconstrained scale where there is one."""
    shape, dtype = own.value.shape, own.value.dtype
    value, error = (x.double().reshape(-1, x.shape[-1]) for x in (raw.value, raw.error))
    with torch.no_grad():
        low, high = (scale.map(value + sign * error).reshape(shape).to(dtype) for sign in (-z, z))
    single = torch.tensor([j >= 0 for j in scale.source], device=own.value.device)
    return (
        torch.where(single, torch.minimum(low, high), own.value - z * own.error),
        torch.where(single, torch.maximum(low, high), own.value + z * own.error),
    )


def _alone(x: Estimates) -> Estimates:
    tensors = (x.value, x.error, x.cov, x.at_bound, x.undetermined)
    return Estimates(x.names, *(t[0] for t in tensors))


def _cast(x: Estimates, dtype: torch.dtype) -> Estimates:
    return replace(x, value=x.value.to(dtype), error=x.error.to(dtype), cov=x.cov.to(dtype))
