"""Linear algebra of Gaussians: factors of covariances, conditioning and exact discretisation."""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.derivatives import first_order

__all__ = ["broadcast_shapes", "cholesky", "condition", "factor", "mask_rows", "van_loan"]


# torch's own takes longer than the small operations whose shapes it is asked for
broadcast_shapes = lru_cache(maxsize=1024)(torch.broadcast_shapes)


def cholesky(P: Tensor, *, what: str = "covariance") -> Tensor:
    r"""The lower Cholesky factor of a covariance, with as little jitter as it takes.

    .. math:: L L^\top = P + \epsilon\,\operatorname{diag}(P)

    :math:`\epsilon = 0` where the plain factorisation succeeds. A matrix of the batch that fails
    for rounding gets a multiple of its variances, growing tenfold from machine precision to its
    square root: so a small variance beside a large one stays what it is. Where that is not enough,
    as for a variance of zero, each coordinate gets the same multiples of their mean; beyond that it
    is no covariance. Only the lower triangle is read.

    Args:
        P: Symmetric positive semi-definite matrices.
        what: The name of the matrix in error messages.

    Shape:
        P ``(*, K, K)`` -> ``(*, K, K)``.

    Raises:
        ValueError: If a matrix is not square, not finite or has a negative eigenvalue.

    Example:
        >>> cholesky(torch.tensor([[4.0, 2.0], [2.0, 2.0]]))
        tensor([[2., 0.],
                [1., 1.]])
    """
    _check_square(P, what)
    L, info = torch.linalg.cholesky_ex(P)
    # An infinite variance is the one flaw that the factorisation itself lets through.
    if not info.any() and L.diagonal(dim1=-2, dim2=-1).detach().sum().isfinite():
        return L
    _check_finite(P, what)
    limits = torch.finfo(P.dtype)
    variance = P.detach().diagonal(dim1=-2, dim2=-1)
    least = limits.tiny / limits.eps
    mean = variance.mean(-1, keepdim=True).clamp(min=least).expand_as(variance)
    jitter = torch.zeros_like(variance)
    for unit in (variance.clamp(min=least), mean):
        epsilon = limits.eps
        while epsilon <= limits.eps**0.5:
            jitter = torch.where(info.unsqueeze(-1) > 0, epsilon * unit, jitter)
            L, info = torch.linalg.cholesky_ex(P + torch.diag_embed(jitter))
            if not info.any():
                return L
            epsilon *= 10
    raise _not_psd(torch.linalg.eigvalsh(P.detach()), what)


def factor(P: Tensor, *, what: str = "covariance") -> Tensor:
    r"""A square factor of a covariance of any rank, from its eigendecomposition.

    .. math:: G G^\top = P, \qquad G = V \Lambda^{1/2}

    Directions without variance are columns of exact zeros. Factors are unique up to a rotation,
    :math:`G G^\top = (G O)(G O)^\top`, and so are their gradients: the one given here is

    .. math:: dG = (I - \tfrac12 G G^+)\; dP\; G^{+\top},

    which is finite for singular matrices and repeated eigenvalues, and exact for anything that
    depends on :math:`G` through :math:`G G^\top` while the rank of :math:`P` stays what it is. Only
    the lower triangle is read.

    Args:
        P: Symmetric positive semi-definite matrices.
        what: The name of the matrix in error messages.

    Shape:
        P ``(*, K, K)`` -> ``(*, K, K)``.

    Raises:
        ValueError: If a matrix is not square, not finite or has a negative eigenvalue.

    Example:
        >>> G = factor(torch.ones(2, 2))
        >>> G @ G.mT
        tensor([[1.0000, 1.0000],
                [1.0000, 1.0000]])
    """
    _check_square(P, what)
    if P.numel() == 0:
        return P
    _check_finite(P, what)
    G: Tensor = _Factor.apply(P, what)  # type: ignore[assignment]
    return G


class _Factor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, P: Float[Tensor, "... K K"], what: str) -> Float[Tensor, "... K K"]:
        values, vectors = torch.linalg.eigh(P)
        eps, size = torch.finfo(P.dtype).eps, P.shape[-1]
        largest = values.abs().amax(-1, keepdim=True)
        if (values < -(eps**0.5) * largest).any():
            raise _not_psd(values, what)
        values = torch.where(values > eps * size * largest, values, 0)
        scale = values.sqrt()
        G = vectors * scale.unsqueeze(-2)
        # G^+ = Lambda^{-1/2} V^T, without the directions of no variance.
        inverse = torch.where(scale > 0, 1 / scale, 0)
        ctx.save_for_backward(G, (vectors * inverse.unsqueeze(-2)).mT)
        return G

    @staticmethod
    @first_order("take a Cholesky factor, or differences of gradients")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        G, pseudo_inverse = ctx.saved_tensors
        full = grads[0] @ pseudo_inverse
        grad = full - G @ (pseudo_inverse @ full) / 2
        return (grad + grad.mT) / 2, None


def van_loan(
    A: Float[Tensor, "*#L K K"], LLT: Float[Tensor, "*#L K K"], dt: Float[Tensor, "*#L"]
) -> tuple[Float[Tensor, "... K K"], Float[Tensor, "... K K"]]:
    r"""The exact discretisation of a linear stochastic differential equation.

    .. math::
        dz = A z\,dt + L\,dW \;\Rightarrow\; z_{t+\Delta} \sim N(F z_t, Q), \qquad
        F = e^{A\Delta}, \quad Q = \int_0^\Delta e^{As} L L^\top e^{A^\top s}\,ds

    Both come from one matrix exponential over a gap short enough that nothing in it grows; longer
    gaps are reached by doubling, :math:`F_{2\Delta} = F^2,\; Q_{2\Delta} = Q + F Q F^\top`, so
    that no gap is too long for a stable system.

    Args:
        A: Drift.
        LLT: Diffusion :math:`L L^\top`, symmetric positive semi-definite.
        dt: Gaps :math:`\Delta \ge 0`; a gap of 0 gives the identity and no noise.

    Shape:
        A, LLT ``(*, K, K)`` and dt ``(*)``, broadcast -> F, Q ``(*, K, K)``.

    Example:
        >>> F, Q = van_loan(-torch.eye(1), 2 * torch.eye(1), torch.tensor([1.0, 2.0]).log())
        >>> F.flatten(), Q.flatten()
        (tensor([1.0000, 0.5000]), tensor([0.0000, 0.7500]))

    References:
        Computing Integrals Involving the Matrix Exponential (Van Loan, 1978), theorem 1.
    """
    if (dt < 0).any():
        raise ValueError(
            f"van_loan expected gaps dt >= 0, found {dt.min().item():g}. Sort the times."
        )
    size = A.shape[-1]
    lead = torch.broadcast_shapes(A.shape[:-2], LLT.shape[:-2], dt.shape)
    A, LLT = A.expand(*lead, size, size), LLT.expand(*lead, size, size)
    dt = dt.expand(lead)[..., None, None]
    growth = A.detach().abs().sum(-2, keepdim=True).amax(-1, keepdim=True) * dt.detach()
    doublings = growth.nan_to_num(1.0, 1.0).clamp(min=1.0).log2().ceil()
    block = torch.cat([torch.cat([-A, LLT], -1), torch.cat([torch.zeros_like(A), A.mT], -1)], -2)
    exponential = torch.linalg.matrix_exp(block * (dt * 0.5**doublings))
    F = exponential[..., size:, size:].mT
    Q = F @ exponential[..., :size, size:]
    for done in range(int(doublings.max().item()) if doublings.numel() else 0):
        shorter = doublings > done
        F, Q = torch.where(shorter, F @ F, F), torch.where(shorter, Q + F @ Q @ F.mT, Q)
    return F, (Q + Q.mT) / 2


def condition(
    m: Float[Tensor, "*#L K"],
    P: Float[Tensor, "*#L K K"],
    H: Float[Tensor, "*#L D K"],
    d: Float[Tensor, "*#L D"],
    R: Float[Tensor, "*#L D D"],
    y: Float[Tensor, "*#L D"],
    observed: Bool[Tensor, "*#L D"],
) -> tuple[Float[Tensor, "... K"], Float[Tensor, "... K K"], Float[Tensor, "..."]]:
    r"""The Gaussian posterior of a state given the observed rows of a linear observation.

    .. math::
        z \sim N(m, P),\; y \mid z \sim N(H z + d, R) \;\Rightarrow\;
        z \mid y_{obs} \sim N(m + K r,\; (I - K H) P (I - K H)^\top + K R K^\top)

    with :math:`r = y - d - H m,\; S = H P H^\top + R,\; K = P H^\top S^{-1}`. Missing rows are
    marginalised exactly, also where R correlates them with observed ones. The covariance is in
    Joseph form, which stays positive semi-definite under rounding and for singular P.

    Args:
        m: Mean of the state.
        P: Covariance of the state.
        H: Loadings.
        d: Offset.
        R: Covariance of the noise.
        y: Observation; what stands in missing rows is not read.
        observed: Which rows are there.

    Shape:
        ``(*, K)``, ``(*, K, K)`` and log p(y_obs) of shape ``(*)``, all leading axes broadcast.

    Example:
        >>> one = torch.ones(1, 1)
        >>> y, observed = torch.tensor([2.0]), torch.tensor([True])
        >>> m, P, _ = condition(torch.zeros(1), one, one, torch.zeros(1), one, y, observed)
        >>> m, P
        (tensor([1.]), tensor([[0.5000]]))
    """
    H, d, R, y = mask_rows(H, d, R, y, observed)
    PHt = P @ H.mT
    L = cholesky(H @ PHt + R, what="covariance of the innovation H P H^T + R")
    r = (y - d - (H @ m.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
    K = torch.cholesky_solve(PHt.mT.expand(*L.shape[:-1], -1), L).mT
    white = torch.linalg.solve_triangular(L, r, upper=False).squeeze(-1)
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    # A phantom row has a zero residual and a unit variance: only its constant would count.
    constant = observed.sum(-1).to(m.dtype) * (0.5 * math.log(2 * math.pi))
    log_prob = -0.5 * white.square().sum(-1) - log_det - constant
    kept = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device) - K @ H
    posterior = kept @ P @ kept.mT + K @ R @ K.mT
    return m + (K @ r).squeeze(-1), (posterior + posterior.mT) / 2, log_prob


def mask_rows(
    H: Float[Tensor, "*#L D K"],
    d: Float[Tensor, "*#L D"],
    R: Float[Tensor, "*#L D D"],
    y: Float[Tensor, "*#L D"],
    observed: Bool[Tensor, "*#L D"],
) -> tuple[
    Float[Tensor, "... D K"],
    Float[Tensor, "... D"],
    Float[Tensor, "... D D"],
    Float[Tensor, "... D"],
]:
    r"""An observation whose missing rows are phantoms: a standard normal of its own, observed as 0.

    A phantom row has :math:`H = 0, d = 0, y = 0` and a row and column of the identity in R, so it
    says nothing about the state or about other rows and adds :math:`-\tfrac12 \log 2\pi` to the
    log density, which the caller takes off. Values in missing rows of y are not read, NaN included.

    Shape:
        H ``(*, D, K)``, d, y, observed ``(*, D)``, R ``(*, D, D)``; leading axes broadcast.

    Example:
        >>> R, y = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([3.0, torch.nan])
        >>> observed = torch.tensor([True, False])
        >>> H, d, R, y = mask_rows(torch.ones(2, 1), torch.ones(2), R, y, observed)
        >>> R, y
        (tensor([[2., 0.],
                [0., 1.]]), tensor([3., 0.]))
    """
    both = observed.unsqueeze(-1) & observed.unsqueeze(-2)
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    return (
        torch.where(observed.unsqueeze(-1), H, 0),
        torch.where(observed, d, 0),
        torch.where(both, R, eye),
        torch.where(observed, y, 0),
    )


def _check_square(P: Tensor, what: str) -> None:
    if P.dim() < 2 or P.shape[-1] != P.shape[-2] or not P.is_floating_point():
        raise ValueError(
            f"The {what} was expected to be a floating tensor of square matrices (*, K, K), found "
            f"{P.dtype} of shape {tuple(P.shape)}. A vector of variances becomes one by "
            "torch.diag_embed(variance)."
        )


def _check_finite(P: Tensor, what: str) -> None:
    finite = P.isfinite().all(-1).all(-1)
    if not finite.all():
        raise ValueError(
            f"The {what} was expected to be finite, found NaN or infinity in "
            f"{int((~finite).sum())} of {finite.numel()} matrices. Look for a learning rate that "
            "is too large, a scale that is not constrained to be positive, or data far from unit "
            "scale."
        )


def _not_psd(eigenvalues: Tensor, what: str) -> ValueError:
    ratio = eigenvalues.amin(-1) / eigenvalues.abs().amax(-1)
    worst = int(ratio.argmin())
    low = eigenvalues.amin(-1).flatten()[worst].item()
    high = eigenvalues.amax(-1).flatten()[worst].item()
    return ValueError(
        f"The {what} was expected to be positive semi-definite, found eigenvalues from {low:.3g} "
        f"to {high:.3g}. Build it as G G^T or from positive scales, make it symmetric, or compute "
        "it in float64."
    )
