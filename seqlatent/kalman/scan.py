"""Filter and smoother in a number of rounds logarithmic in time, by associative scans.

Steps from the second on are elements that compose; the prior of the first state, whose variance may
be vast, meets them only once they are composed. The layout here is time first.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.elements import (
    Elements,
    apply,
    elements,
    first_law,
    join,
    log_evidence,
    matrix_lead,
    posterior_chain,
    rest,
    symmetric,
    system,
    then_nothing,
)
from seqlatent.kalman.paths import Smoothed
from seqlatent.kalman.sequential import Filtered


def filter_scan(
    F: Float[Tensor, "*f K K"],
    b: Float[Tensor, "*b K"],
    Q: Float[Tensor, "*q K K"],
    m0: Float[Tensor, "*m K"],
    P0: Float[Tensor, "*p K K"],
    H: Float[Tensor, "*h D K"],
    d: Float[Tensor, "*d D"],
    R: Float[Tensor, "*r D D"],
    y: Float[Tensor, "*y D"],
    observed: Bool[Tensor, "*o D"],
) -> Filtered:
    r"""Kalman filter by an associative scan.

    Arguments, shapes and results are those of :func:`filter`. Two neighbouring elements compose
    into one, with the help of :math:`(I + C_1 J_2)^{-1}`; composing pairs recursively takes
    :math:`2 \log_2 T` rounds. H Q H^T + R must be positive definite.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> seqlatent.kalman.filter_scan(*model, y, observed).mean.T
        tensor([[0.5000, 1.4000]])

    References:
        Temporal Parallelization of Bayesian Smoothers (Särkkä & García-Fernández, 2021), lemma 8.
    """
    s = system(F, b, Q, m0, P0, H, d, R, y, observed)
    e = _scan(_compose, _time_first(elements(s), s.lead, s.steps - 1))
    e = Elements(*_time_last(e, s.lead))
    # Before any step the state is what it was, and nothing has been said about it.
    eye = torch.eye(e.A.shape[-1], dtype=e.A.dtype, device=e.A.device)
    zero, none = torch.zeros_like(eye), torch.zeros_like(eye[:1])
    m, P = first_law(s, join(none, e.eta, s.steps, 1), join(zero, e.J, s.steps, 2))
    A, C = join(eye, e.A, s.steps, 2), join(zero, e.C, s.steps, 2)
    mean, cov = apply(A, m) + join(none, e.b, s.steps, 1), symmetric(A @ P @ A.mT + C)
    F, Q = rest(s.F, 2, s.steps), rest(s.Q, 2, s.steps)
    later = apply(F, mean[..., :-1, :]) + rest(s.b, 1, s.steps)
    predicted_mean = join(s.m0, later, s.steps, 1)
    predicted_cov = join(s.P0, symmetric(F @ cov[..., :-1, :, :] @ F.mT + Q), s.steps, 2)
    S = s.H @ predicted_cov @ s.H.mT + s.R
    evidence = log_evidence(s, s.y - s.d - apply(s.H, predicted_mean), S)
    shape = (*mean.shape, mean.shape[-1])
    return Filtered(mean, cov.expand(shape), predicted_mean, predicted_cov.expand(shape), evidence)


def smoother_scan(
    F: Float[Tensor, "*f K K"],
    b: Float[Tensor, "*b K"],
    Q: Float[Tensor, "*q K K"],
    filtered: Filtered,
    H: Float[Tensor, "*h D K"],
    d: Float[Tensor, "*d D"],
    R: Float[Tensor, "*r D D"],
    y: Float[Tensor, "*y D"],
    observed: Bool[Tensor, "*o D"],
) -> Smoothed:
    """Smoothed moments by two associative scans; all else is as in :func:`smoother`.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> filtered = seqlatent.kalman.filter_scan(*model, y, observed)
        >>> smoother_scan(one, zero, one, filtered, one, zero, one, y, observed).mean.T
        tensor([[0.8000, 1.4000]])
    """
    prior = filtered.predicted_mean[..., 0, :], filtered.predicted_cov[..., 0, :, :]
    s = system(F, b, Q, *prior, H, d, R, y, observed)
    e = elements(s)
    ahead = [x.flip(0) for x in _time_first(e, s.lead, s.steps - 1)]
    ahead = _scan(lambda x, y: _compose(y, x), ahead)
    *_, eta, J = _time_last([x.flip(0) for x in ahead], s.lead)
    eta, J = then_nothing(eta, J)
    A, offset, V = posterior_chain(s, e, J, eta)
    path = _scan(_follow, _time_first([A, offset, V], s.lead, s.steps))
    _, mean, cov = _time_last(path, s.lead)
    cov = symmetric(cov)
    cross = rest(A, 2, s.steps) @ cov[..., :-1, :, :]
    cross = join(torch.zeros_like(cov[..., :1, :, :]), cross, s.steps, 2)
    shape = (*mean.shape, mean.shape[-1])
    return Smoothed(mean, cov.expand(shape), cross.expand(shape))


def _compose(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Two neighbouring elements as one: A, b, C, eta, J of ``x``, then of ``y``."""
    A1, b1, C1, eta1, J1 = x
    A2, b2, C2, eta2, J2 = y
    eye = torch.eye(A1.shape[-1], dtype=A1.dtype, device=A1.device)
    A, C = torch.linalg.solve_ex(eye + C1 @ J2, torch.cat([A1, C1], -1))[0].chunk(2, -1)
    news = eta2 - apply(J2, b1)
    return [
        A2 @ A,
        apply(A2, b1 + apply(C, news)) + b2,
        symmetric(A2 @ C @ A2.mT) + C2,
        apply(A.mT, news) + eta1,
        symmetric(A.mT @ J2 @ A1) + J1,
    ]


def _follow(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Two neighbouring steps of an affine chain as one: matrix, offset, covariance."""
    A1, b1, V1 = x
    A2, b2, V2 = y
    return [A2 @ A1, apply(A2, b1) + b2, A2 @ V1 @ A2.mT + V2]


def _scan(
    compose: Callable[[list[Tensor], list[Tensor]], list[Tensor]], x: list[Tensor]
) -> list[Tensor]:
    """All prefixes of a sequence of elements, time first, by composing pairs recursively."""
    steps = len(x[0])
    if steps < 2:
        return x
    odd = _scan(compose, compose([v[: steps - 1 : 2] for v in x], [v[1::2] for v in x]))
    even = [v[:1] for v in x]
    if steps > 2:
        later = compose([v[: (steps - 1) // 2] for v in odd], [v[2::2] for v in x])
        even = [torch.cat(pair) for pair in zip(even, later, strict=True)]
    return [_interleave(*pair) for pair in zip(even, odd, strict=True)]


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    pairs = torch.stack([even[: len(odd)], odd], 1).flatten(0, 1)
    return torch.cat([pairs, even[len(odd) :]])


def _time_first(parts: Sequence[Tensor], lead: tuple[int, ...], steps: int) -> list[Tensor]:
    """Moves time to the front; vectors get all leading axes, matrices those that any has."""
    matrices = len(lead) + 3
    shared = matrix_lead(*(x for x in parts if x.dim() == matrices))
    return [
        x.expand(*shared, steps, -1, -1).movedim(-3, 0)
        if x.dim() == matrices
        else x.expand(*lead, steps, -1).movedim(-2, 0)
        for x in parts
    ]


def _time_last(parts: Sequence[Tensor], lead: tuple[int, ...]) -> list[Tensor]:
    return [x.movedim(0, -3 if x.dim() == len(lead) + 3 else -2) for x in parts]
