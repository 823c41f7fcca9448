"""The reduced form of a model without a prior: a moving average, filtered in O(K) a step."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent.derivatives import first_order

_LOG_2PI = math.log(2 * math.pi)
# Steps of which one is kept for the way back.
_KEPT = 16


class Reduced(NamedTuple):
    r"""What the characteristic polynomial of the transition makes of a scalar observation.

    .. math:: w_t = \sum_{j=0}^K \phi_j y_{t-j} = \sum_{i<K} c_i\, \varepsilon_{t-i}
        + \sum_{j \le K} \phi_j v_{t-j}, \quad c_i = \sum_{j \le i} \phi_j H F^{i-j}

    No state is left in it: by the theorem of Cayley and Hamilton, :math:`\phi(F) = 0`.

    Args:
        polynomial: :math:`\phi` ``(K + 1,)``, the first of them 1.
        state: How the covariance Q enters the autocovariances of w ``(K K, K + 1)``.
        noise: How the variance R does ``(K + 1,)``.
        shocks: The coefficients c ``(K, K)``.
        rows: The observability matrix :math:`H F^i` ``(K, K)``.
        log_det: Logarithm of its absolute determinant.
        angles: Frequencies of the transition, at which w may have least power.
    """

    polynomial: Float[Tensor, " L"]
    state: Float[Tensor, "KK L"]
    noise: Float[Tensor, " L"]
    shocks: Float[Tensor, "K K"]
    rows: Float[Tensor, "K K"]
    log_det: float
    angles: Float[Tensor, " K"]

    def to(self, like: Tensor) -> "Reduced":
        """The same on the device of a tensor."""
        moved = {name: x.to(like.device) for name, x in self._asdict().items() if name != "log_det"}
        return Reduced(**moved, log_det=self.log_det)


def reduce(F: Float[Tensor, "K K"], H: Float[Tensor, "1 K"]) -> Reduced | None:
    """The reduced form, or None where the state is not observable or digits would be lost."""
    cells = torch.cat([F, H]).detach()
    form = _reduce(tuple(cells.flatten().tolist()), F.shape[-1])
    return None if form is None else form.to(cells)


@lru_cache(maxsize=16)
def _reduce(cells: tuple[float, ...], K: int) -> Reduced | None:
    """A descent asks for the same form at every step."""
    F, H = torch.tensor(cells, dtype=torch.float64).reshape(K + 1, K).split((K, 1))
    eye = torch.eye(K, dtype=F.dtype, device=F.device)
    coefficients, M = [torch.ones_like(F[0, 0])], torch.zeros_like(F)
    for k in range(1, K + 1):  # Faddeev and LeVerrier
        M = F @ M + coefficients[-1] * eye
        coefficients.append(-(F @ M).diagonal().sum() / k)
    polynomial = torch.stack(coefficients)
    # a season's zeros are not all found exactly
    polynomial = torch.where(polynomial.abs() < 1e2 * torch.finfo(F.dtype).eps, 0.0, polynomial)
    rows = [H[0]]
    for _ in range(K):
        rows.append(rows[-1] @ F)
    responses = torch.stack(rows)
    sign, log_det = torch.linalg.slogdet(responses[:K])
    size = polynomial.abs().sum() * responses.abs().max()
    left = (polynomial.flip(0) @ responses).abs().max()
    lost = left > 1e3 * torch.finfo(F.dtype).eps * size
    condition = torch.linalg.cond(responses[:K]) > 1e10
    if bool(lost | condition | (sign == 0)) or float(size) > 1e6:
        return None
    lags = torch.arange(K + 1, device=F.device)
    shift = lags[:K, None] - lags[:K]
    c = torch.where(shift >= 0, polynomial[shift.clamp_min(0)], 0.0) @ responses[:K]
    later = torch.nn.functional.pad(c, (0, 0, 0, K + 1))
    state = torch.stack([c.mT @ later[k : k + K] for k in range(K + 1)], -1)
    state = ((state + state.transpose(0, 1)) / 2).flatten(0, 1)
    wide = torch.nn.functional.pad(polynomial, (0, K + 1))
    noise = torch.stack([polynomial @ wide[k : k + K + 1] for k in range(K + 1)])
    angles = torch.linalg.eigvals(F).angle().abs()
    return Reduced(polynomial, state, noise, c, responses[:K], float(log_det), angles)


def likelihood(
    reduced: Reduced,
    Q: Float[Tensor, "*q K K"],
    R: Float[Tensor, "*r 1 1"],
    y: Float[Tensor, "B T"],
    ends: Int[Tensor, " B"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Log likelihoods of series without gaps, with a diffuse start of all coordinates.

    And by how much rounding was amplified in each.

    Args:
        reduced: The reduced form of their common transition and loadings.
        Q: Covariance of the transition.
        R: Variance of the observation noise.
        y: Observations, 0 after the end of a series.
        ends: Their numbers, none smaller than the order.
    """
    order = len(reduced.polynomial) - 1
    autocovariance = Q.flatten(-2) @ reduced.state + R.squeeze(-1) * reduced.noise
    w = difference(y, reduced.polynomial)
    counted = None
    if bool((ends < y.shape[-1]).any()):
        counted = torch.arange(order, y.shape[-1], device=y.device) < ends[:, None]
        counted = counted.to(y.dtype)
    start = reduced.log_det + 0.5 * order * _LOG_2PI
    value, condition = moving_average(autocovariance, w, counted)
    with torch.no_grad():
        power = least_power(autocovariance, reduced.angles, w.shape[-1])
        level = y - y[:, :1] if float(reduced.polynomial.sum()) == 0.0 else y
        level = (
            level
            if counted is None
            else level * (torch.arange(y.shape[-1], device=y.device) < ends[:, None])
        )
        size = reduced.polynomial.abs().sum() * level.abs().amax(-1)
        condition = torch.maximum(condition, autocovariance[..., 0].abs() / power)
        condition = torch.maximum(condition, size / power.sqrt())
    return value - start, condition


def least_power(
    autocovariance: Float[Tensor, "*g L"], angles: Float[Tensor, " K"], steps: int
) -> Float[Tensor, "*g"]:
    """About the least eigenvalue of the covariance of so many values of a moving average.

    Without shocks the polynomial takes all power from the frequencies of the transition; of a
    series of some length, that of the nearest other one is left.
    """
    lags = torch.arange(autocovariance.shape[-1], device=angles.device)
    near = torch.cat([angles - math.pi / steps, angles + math.pi / steps])
    waves = torch.where(lags[:, None] > 0, 2.0, 1.0) * (lags[:, None] * near).cos()
    power = (autocovariance @ waves).amin(-1)
    eps = torch.finfo(power.dtype).eps
    return torch.maximum(power, eps * autocovariance.abs().sum(-1))


def difference(y: Float[Tensor, "B T"], polynomial: Float[Tensor, " L"]) -> Float[Tensor, "B N"]:
    """Applies the polynomial of the lag operator; K steps fewer come out."""
    order = len(polynomial) - 1
    w = y[:, order:].clone()
    for lag, p in enumerate(polynomial.tolist()):
        if lag and p:  # most of a season's are zero
            w.add_(y[:, order - lag : -lag], alpha=p)
    return w


def moving_average(
    autocovariance: Float[Tensor, "*g L"],
    w: Float[Tensor, "B N"],
    counted: Float[Tensor, "B N"] | None,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    r"""Log density of moving averages, by the algorithm of Schur, and its condition.

    The covariance of w is a banded Toeplitz matrix, whose displacement has rank two: two vectors of
    the length of the band make each column of its factor out of the one before. From
    :math:`a = (\gamma_0, \dots, \gamma_K)` and :math:`b = (\gamma_1, \dots, \gamma_K, 0)`,

    .. math::
        v_t = a_0, \quad \rho = b_0 / a_0, \quad a' = a - \rho\, b, \quad
        b' = Z (b - \rho\, a)

    with the shift Z to the left: :math:`v_t` is the variance of an innovation, :math:`a / a_0` what
    it adds to the values that follow. The gradient is the same recursion in reverse, by hand.

    Args:
        autocovariance: Of lag 0 to K, of each series or of all.
        w: Values.
        counted: 1 for values that count, 0 for those after the end of a series; all by default.

    References:
        Fast Reliable Algorithms for Matrices with Structure (Kailath & Sayed, 1999), ch. 1.
        Some New Algorithms for Recursive Estimation in Constant Linear Systems (Kailath, 1973).
    """
    a = autocovariance if autocovariance.dim() == 2 else autocovariance[None]
    ends = None if counted is None else counted.mT
    value, condition = _MovingAverage.apply(a.mT, w.mT, ends)  # type: ignore[misc]
    number = w.shape[-1] if counted is None else counted.sum(-1)
    return value - 0.5 * _LOG_2PI * number, condition.expand(value.shape)


class _MovingAverage(torch.autograd.Function):
    """Time and lags first, so that what a step reads of all series is one piece of memory.

    Memory that is written for the first time costs more than the arithmetic: only every so many
    steps are a and b kept, and those between are computed again on the way back.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, w: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        (length, width), (steps, batch) = a.shape, w.shape
        error = torch.nn.functional.pad(w, (0, 0, 0, length - 1))
        variance, gain = a.new_empty(steps, width), a.new_empty(steps, batch)
        kept = a.new_empty(-(-steps // _KEPT), 2, length, width)
        pairs = _pair(length, width, a), _pair(length, width, a)
        now = pairs[0]
        now.a.copy_(a)
        now.b[:-1].copy_(a[1:])
        for t in range(steps):
            if t % _KEPT == 0:
                kept[t // _KEPT, 0].copy_(now.a)
                kept[t // _KEPT, 1].copy_(now.b)
            f, v = gain[t], variance[t]
            v.copy_(now.a[0])
            torch.div(error[t], v, out=f)
            error[t + 1 : t + length].addcmul_(now.a[1:], f, value=-1)
            now = _rotated(now, v, pairs[(t + 1) % 2])
        terms = error[:steps] * gain + variance.log()
        value = terms.sum(0) if counted is None else torch.linalg.vecdot(terms, counted, dim=0)
        ctx.save_for_backward(kept, variance, gain, counted)
        positive = (variance > 0).all(0)
        condition = torch.where(positive, a[0] / variance.amin(0), torch.inf)
        ctx.mark_non_differentiable(condition)
        return -0.5 * value, condition

    @staticmethod
    @first_order("differentiate log_likelihood itself, which has all")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        kept, variance, gain, counted = ctx.saved_tensors
        _, _, length, width = kept.shape
        steps, batch = gain.shape
        used = grads[0].expand(steps, -1) if counted is None else grads[0] * counted
        scaled = used * gain
        # what the density itself says of each variance
        direct = 0.5 * (scaled * gain - used / variance)
        of_w = gain.new_zeros(steps + length - 1, batch)
        of_a, of_b, old_b = (kept.new_zeros(length, width) for _ in range(3))
        dot = torch.linalg.vecdot
        path = [_pair(length, width, kept) for _ in range(min(_KEPT, steps))]
        for t in range(steps - 1, -1, -1):
            place, v = t % _KEPT, variance[t]
            if t == steps - 1 or place == _KEPT - 1:
                first = t - place
                path[0].a.copy_(kept[t // _KEPT, 0])
                path[0].b.copy_(kept[t // _KEPT, 1])
                for i in range(place):
                    _rotated(path[i], variance[first + i], path[i + 1])
            a, b, f, ahead = path[place].a, path[place].b, gain[t], of_w[t + 1 : t + length]
            if t + 1 < steps:
                rho = b[0] / v
                of_rho = dot(of_a, b, dim=0).add_(dot(of_b, a, dim=0)).div_(v)
                torch.addcmul(of_b, of_a, rho, value=-1, out=old_b)
                of_a.addcmul_(of_b, rho, value=-1)
                of_a[0].addcmul_(of_rho, rho)
                old_b[0].sub_(of_rho)
                of_b[1:].copy_(old_b[:-1])
            of_f = dot(ahead, a[1:], dim=0).div_(v)
            torch.add(of_f, scaled[t], out=of_w[t]).neg_()
            if width == batch:
                of_a[1:].addcmul_(ahead, f, value=-1)
                of_a[0].addcmul_(of_f, f).add_(direct[t])
            else:
                of_a[1:].sub_(dot(ahead, f)[:, None])
                of_a[0].add_(dot(of_f, f) + direct[t].sum())
        of_a[1:] += of_b[1:]
        return of_a, of_w[:steps], None


class _Pair(NamedTuple):
    """The two vectors; ``stored`` is b - rho a of the step before, whose first entry is zero."""

    a: Tensor
    b: Tensor
    stored: Tensor


def _pair(length: int, width: int, like: Tensor) -> _Pair:
    stored = like.new_zeros(length + 1, width)
    return _Pair(like.new_empty(length, width), stored[1:], stored[:-1])


def _rotated(now: _Pair, variance: Tensor, out: _Pair) -> _Pair:
    """The vectors of the next step; the last entry of its b, shifted, is zero."""
    rho = now.b[0] / variance
    torch.addcmul(now.a, now.b, rho, value=-1, out=out.a)
    torch.addcmul(now.b, now.a, rho, value=-1, out=out.stored)
    return out
