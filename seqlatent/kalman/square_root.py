"""The Kalman filter on factors of covariances: nothing is subtracted, so no digit is lost."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.elements import apply, join, matrix_lead, path, rest, system
from seqlatent.kalman.recursions import _covariances_adjoint, closed_loop, stack, unstack
from seqlatent.kalman.sequential import Filtered
from seqlatent.linalg import factor

_LOG_2PI = math.log(2 * math.pi)


def filter_square_root(
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
    r"""Kalman filter that carries factors of covariances and turns them.

    .. math::
        \begin{bmatrix} H P^{1/2} & R^{1/2} \\ P^{1/2} & 0 \end{bmatrix} \Theta =
        \begin{bmatrix} S^{1/2} & 0 \\ k S^{1/2} & P_+^{1/2} \end{bmatrix}, \qquad
        \begin{bmatrix} F P_+^{1/2} & Q^{1/2} \end{bmatrix} \Theta' =
        \begin{bmatrix} P_-^{1/2} & 0 \end{bmatrix}

    with orthogonal :math:`\Theta`, from QR decompositions. What it returns is what :func:`filter`
    returns, in exact arithmetic. It is for problems of bad condition: a vast prior beside sharp
    observations, nearly collinear rows of H, single precision. Every covariance is positive
    semi-definite by construction, and the evidence is read off the factor of S. So a first state of
    which nothing is known may have a variance of 1e12. It takes two to three times as long, and its
    gradient is that of :func:`filter`.

    Args:
        F: Transition into step t; unused at the first step, but finite. So are ``b`` and ``Q``.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state, possibly singular.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise; singular is fine while the innovation's is not.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`.

    Raises:
        ValueError: If a covariance is not positive semi-definite, or an innovation has none.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, 1e7 * one, one, zero, 1e-6 * one)
        >>> filtered = seqlatent.kalman.filter_square_root(*model, y, observed)
        >>> filtered.mean.T, filtered.cov.flatten()
        (tensor([[1.0000, 2.0000]]), tensor([1.0000e-06, 1.0000e-06]))

    References:
        Linear Estimation (Kailath, Sayed & Hassibi, 2000), chapter 12.
        Stability of Householder QR Factorization for Weighted Least Squares Problems (Cox &
        Higham, 1998), on the order of the columns.
    """
    s = system(F, b, Q, m0, P0, H, d, R, y, observed)
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    informed = s.observed.flatten(1).any(-1).expand(s.steps).tolist()
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    found: Any = _Factors.apply(F, Q, P0, H, R, informed)
    closed = unstack(closed_loop(F, found[2], H @ F), lead)
    predicted_cov, cov, gain, L = (unstack(x, lead) for x in found)
    prior = join(s.m0, rest(s.b, s.steps), s.steps)
    offset = prior + apply(gain, s.y - s.d - apply(s.H, prior))
    mean = path(closed, offset.expand(-1, *s.lead, -1))
    later = apply(rest(s.F, s.steps), mean[:-1]) + rest(s.b, s.steps)
    predicted_mean = join(s.m0, later, s.steps)
    residual = (s.y - s.d - apply(s.H, predicted_mean)).unsqueeze(-1)
    white = torch.linalg.solve_triangular(L, residual, upper=False).squeeze(-1)
    terms = white.square() + 2 * L.diagonal(dim1=-2, dim2=-1).log()
    evidence = -0.5 * (terms.sum(-1) + _LOG_2PI * s.observed.sum(-1).to(terms.dtype))
    mean, predicted_mean = mean.movedim(0, -2), predicted_mean.movedim(0, -2)
    shape = (*mean.shape, mean.shape[-1])
    cov, predicted_cov = (x.movedim(0, -3).expand(shape) for x in (cov, predicted_cov))
    return Filtered(mean, cov, predicted_mean, predicted_cov, evidence.movedim(0, -1))


class _Factors(torch.autograd.Function):
    """Covariances, gains and factors of the innovations' covariances, as ``covariances`` has them.

    The loop sees factors only; the adjoint is that of the covariances, which any factors have.
    """

    @staticmethod
    def forward(
        F: Float[Tensor, "_ N K K"],
        Q: Float[Tensor, "_ N K K"],
        P0: Float[Tensor, "1 N K K"],
        H: Float[Tensor, "_ N D K"],
        R: Float[Tensor, "_ N D D"],
        informed: list[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        steps, (n, size), rows = len(informed), P0.shape[1:3], H.shape[-2]
        prior, posterior = (P0.new_empty(steps, n, size, size) for _ in range(2))
        gain, L = P0.new_zeros(steps, n, size, rows), P0.new_empty(steps, n, rows, rows)
        Q = root(Q, "transition covariance Q")
        R = root(R, "observation covariance R")
        G = root(P0, "initial covariance P0")[0]
        for t in range(steps):
            at = [x[t if len(x) > 1 else 0] for x in (F, Q, H, R)]
            if t > 0:
                G = triangular(torch.cat([at[0] @ G, at[1]], -1))
            prior[t] = G
            if not informed[t]:
                posterior[t], L[t] = G, triangular(at[3])
                continue
            wide = torch.cat([at[3], at[3].new_zeros(n, size, rows)], -2)
            joint = triangular(torch.cat([torch.cat([at[2] @ G, G], -2), wide], -1))
            L[t], G = joint[:, :rows, :rows], joint[:, rows:, rows:]
            _require_noise(L[t])
            gain[t] = torch.linalg.solve_triangular(
                L[t], joint[:, rows:, :rows], upper=False, left=False
            )
            posterior[t] = G
        return prior @ prior.mT, posterior @ posterior.mT, gain, L

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        F, Q, _, H, R, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.constant = [len(x) == 1 for x in (F, Q, H, R)]
        ctx.save_for_backward(F, H, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        F, H, P, gain, L = ctx.saved_tensors
        *of_others, of_L = grads
        if of_L is not None:
            # a Cholesky factor L moves by L tril(L^{-1} dS L^{-T}), with half the diagonal
            inner = (L.mT @ of_L).tril()
            inner = (inner + inner.tril(-1).mT) / 2
            half = torch.linalg.solve_triangular(L.mT, inner, upper=True)
            of_S = torch.linalg.solve_triangular(L, half, upper=False, left=False)
            of_others = [*of_others, (of_S + of_S.mT) / 2]
        else:
            of_others = [*of_others, None]
        outputs = [P, gain, L @ L.mT]
        F, Q, P0, H, R = _covariances_adjoint(F, H, outputs, tuple(of_others))
        one_F, one_Q, one_H, one_R = ctx.constant
        F = F.sum(0, keepdim=True) if one_F else torch.cat([torch.zeros_like(P0), F])
        Q = Q.sum(0, keepdim=True) if one_Q else torch.cat([torch.zeros_like(P0), Q])
        H = H.sum(0, keepdim=True) if one_H else H
        R = R.sum(0, keepdim=True) if one_R else R
        return F, Q, P0, H, R, None


def root(P: Tensor, what: str) -> Tensor:
    """A square factor of a covariance, accurate in every coordinate by itself.

    Where there is no Cholesky factor the correlations are factored, so that a small variance beside
    a vast one is not taken for rounding.
    """
    L, info = torch.linalg.cholesky_ex(P)
    if not bool(info.any()) and bool(L.sum().isfinite()):
        return L
    variance = P.diagonal(dim1=-2, dim2=-1)
    if not bool(P.isfinite().all()) or bool((variance < 0).any()):
        return factor(P, what=what)  # which says what is wrong
    scale = variance.sqrt()
    unit = torch.where(scale > 0, scale, 1)
    G = factor(P / (unit.unsqueeze(-1) * unit.unsqueeze(-2)), what=what)
    return torch.where(info[..., None, None] > 0, scale.unsqueeze(-1) * G, L)


def triangular(A: Float[Tensor, "N i j"]) -> Float[Tensor, "N i i"]:
    """The lower triangular factor with non-negative diagonal of A A^T, without that product.

    Columns come longest first: the reflections then keep the digits of the short ones.
    """
    order = A.norm(dim=-2, keepdim=True).argsort(-1, descending=True)
    A = A.gather(-1, order.expand_as(A))
    wanting = A.shape[-2] - A.shape[-1]
    if wanting > 0:
        A = torch.nn.functional.pad(A, (0, wanting))
    L = torch.linalg.qr(A.mT, mode="r").R.mT
    sign = torch.where(L.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(L)
    return L * sign.unsqueeze(-2)


def _require_noise(L: Float[Tensor, "N D D"]) -> None:
    diagonal = L.diagonal(dim1=-2, dim2=-1)
    if bool((diagonal > 0).all()):
        return
    wrong = diagonal[~(diagonal > 0)][0].item()
    raise ValueError(
        "The innovation covariance H P H^T + R was expected to have positive variances, found "
        f"a standard deviation of {wrong:.3g}. Give the observation noise R a positive variance, "
        "or mark what is known exactly as not observed."
    )
