"""Maximisation steps of matrices: regressions on states that are known by their moments."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent import kalman
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.linalg import cholesky
from seqlatent.training.em.scales import matrices
from seqlatent.training.likelihood.parameter_vectors import Vectors
from seqlatent.transitions import LinearGaussian
from seqlatent.transitions.parameters import Factor

__all__ = []

Step = Callable[["Moments"], None]


class Moments(NamedTuple):
    """Moments of the states given all observations; ``cross`` is Cov(z_t, z_{t-1})."""

    mean: Float[Tensor, "B T K"]
    cov: Float[Tensor, "B T K K"]
    cross: Float[Tensor, "B T K K"]


def regressions(vectors: Vectors) -> tuple[Callable[[], None] | None, set[str]]:
    """The maximisation step of free matrices, and the names of the parameters that it moves.

    It is made in place, from the moments of the states under the parameters as they stand.
    """
    model, steps, taken = vectors.model, [], set()
    if not vectors.tables and type(model.transition) is LinearGaussian:
        steps.append(_Transition(vectors, model.transition))
        taken |= {n for n in vectors.named if n.startswith("transition.")}
    emission = model.emission
    if not vectors.tables and type(emission) is LinearGaussianEmission and emission.head is None:
        free = isinstance(emission.H, nn.Parameter) and emission.H.requires_grad
        if free or not emission.noise.diagonal:
            steps.append(_Emission(vectors, emission))
            taken |= {n for n in vectors.named if n.startswith("emission.")}
    if not taken:
        return None, set()

    @torch.no_grad()
    def step() -> None:
        now = _moments(vectors)
        for part in steps:
            part(now)

    return step, taken


def _moments(vectors: Vectors) -> Moments:
    model, data = vectors.model, vectors.data
    system = kalman.LinearGaussianSystem(*matrices(model, model.context(data)))
    return Moments(*kalman.smoother(system, data.normalised, data.observed)[:3])


class _Transition:
    """Free matrices of a transition, as far as they are learned."""

    def __init__(self, vectors: Vectors, module: LinearGaussian) -> None:
        self.module = module
        last = vectors.data.last
        step = torch.arange(vectors.data.steps, device=last.device)
        self.later = (step[1:] <= last[:, None]).to(vectors.data.y.dtype)
        self.begun = (last >= 0).to(vectors.data.y.dtype)

    def __call__(self, z: Moments) -> None:
        module = self.module
        self._first(z)
        if float(self.later.sum()) == 0:
            return
        F, b, weight = module.F, module.b, self.later
        before, P = z.mean[:, :-1], z.cov[:, :-1]
        FP = F @ P
        rest = z.mean[:, 1:] - before @ F.mT - b
        with_past = z.cross[:, 1:] - FP
        spread = z.cov[:, 1:] - F @ z.cross[:, 1:].mT - with_past @ F.mT
        ones = torch.ones_like(before[..., :1])
        x = torch.cat([before, ones], -1)
        xx = _outer(weight, x, x)
        C = _outer(weight, rest, x)
        size = module.latent_dim
        xx[:size, :size] += _total(weight, P)
        C[:, :size] += _total(weight, with_past)
        left = _outer(weight, rest, rest) + _total(weight, spread)
        learned = [_learned(module, "F")] * size + [_learned(module, "b")]
        basis, inverse = _basis(module.noise, size, F)
        change = inverse @ _regression(C, xx, torch.tensor(learned, device=F.device))
        if _learned(module, "F"):
            module.F += basis @ change[:, :size]
        if _learned(module, "b"):
            module.b += basis @ change[:, size]
        reduced = inverse @ left @ inverse.mT
        _refactor(module.noise, (reduced - change @ (inverse @ C).mT) / weight.sum())

    def _first(self, z: Moments) -> None:
        module, weight = self.module, self.begun
        basis, inverse = _basis(module.spread, module.latent_dim, module.F)
        mean, cov = z.mean[:, 0], z.cov[:, 0]
        if _learned(module, "m0"):
            away = (weight[:, None] * (mean - module.m0)).sum(0) / weight.sum()
            module.m0 += basis @ (inverse @ away)
        rest = mean - module.m0
        P = (_outer(weight, rest, rest) + _total(weight, cov)) / weight.sum()
        _refactor(module.spread, inverse @ P @ inverse.mT)


class _Emission:
    """Free matrices of an emission, as far as they are learned; missing rows are completed."""

    def __init__(self, vectors: Vectors, module: LinearGaussianEmission) -> None:
        self.module, self.vectors = module, vectors

    def __call__(self, z: Moments) -> None:
        module, data = self.module, self.vectors.data
        observed = data.observed
        H, d, R = module.matrices(self.vectors.model.context(data))
        fitted = (H @ z.mean[..., None])[..., 0] + d
        rest = torch.where(observed, data.normalised - fitted, 0)
        HP = H @ z.cov
        HPH = HP @ H.mT
        size = z.mean.shape[-1]
        x = torch.cat([z.mean, torch.ones_like(z.mean[..., :1])], -1)
        moved = isinstance(module.H, nn.Parameter) and module.H.requires_grad
        offset = isinstance(module.d, nn.Parameter) and module.d.requires_grad
        use = torch.tensor([moved] * size + [offset], device=x.device)
        fit = self._rows if module.noise.diagonal else self._joint
        change, left = fit(x, z.cov, rest, HP, HPH, R, use)
        if moved:
            module.H += change[:, :size]
        if offset and module.d is not None:
            module.d += change[:, size]
        _refactor(module.noise, left)

    def _rows(
        self,
        x: Tensor,
        P: Tensor,
        rest: Tensor,
        HP: Tensor,
        HPH: Tensor,
        R: Tensor,
        use: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Each row by itself, where it was observed."""
        weight = self.vectors.data.observed.to(x.dtype)
        size = P.shape[-1]
        xx = torch.einsum("btd,bti,btj->dij", weight, x, x)
        xx[:, :size, :size] += torch.einsum("btd,btij->dij", weight, P)
        C = torch.einsum("btd,btd,bti->di", weight, rest, x)
        C[:, :size] -= torch.einsum("btd,btdi->di", weight, HP)
        spread = HPH.diagonal(dim1=-2, dim2=-1)
        left = (weight * (rest.square() + spread)).sum((0, 1))
        change = _regression(C[:, None], xx, use)[:, 0]
        count = weight.sum((0, 1))
        variance = (left - (change * C).sum(-1)) / count.clamp_min(1)
        return change, torch.where(count > 0, variance, R.diagonal(dim1=-2, dim2=-1)).diag()

    def _joint(
        self,
        x: Tensor,
        P: Tensor,
        rest: Tensor,
        HP: Tensor,
        HPH: Tensor,
        R: Tensor,
        use: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All rows at once; what is missing follows what is there through the noise."""
        observed = self.vectors.data.observed
        weight = observed.any(-1).to(x.dtype)
        size = P.shape[-1]
        if not bool(observed.all()):
            M, V = _completion(R, observed)
            rest = (M @ rest[..., None])[..., 0]
            HP, HPH = M @ HP, M @ HPH @ M.mT + V
        xx = _outer(weight, x, x)
        xx[:size, :size] += _total(weight, P)
        C = _outer(weight, rest, x)
        C[:, :size] -= _total(weight, HP)
        left = _outer(weight, rest, rest) + _total(weight, HPH)
        change = _regression(C, xx, use)
        return change, (left - change @ C.mT) / weight.sum()


def _completion(R: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices from observed noises to all of them, and covariances of what stays unknown."""
    both = observed.unsqueeze(-1) & observed.unsqueeze(-2)
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    L = cholesky(torch.where(both, R, eye), what="observation covariance R")
    M = R @ torch.where(both, torch.cholesky_inverse(L), 0)
    M = torch.where(observed.unsqueeze(-1), torch.where(both, eye, 0), M)
    V = R - M @ R
    V = torch.where(observed.unsqueeze(-1) | observed.unsqueeze(-2), 0, V)
    return M, (V + V.mT) / 2


def _regression(C: Tensor, xx: Tensor, use: Tensor) -> Tensor:
    """Coefficients ``C xx^{-1}`` of the regressors that are used, zero for the others."""
    change = torch.zeros_like(C)
    if bool(use.any()):
        inverse = torch.linalg.pinv(xx[..., use, :][..., use], hermitian=True)
        change[..., use] = C[..., use] @ inverse
    return change


def _basis(noise: Factor, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The directions that have noise, and the way back."""
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    if noise.basis is None:
        return eye, eye
    return noise.basis, torch.linalg.pinv(noise.basis)


def _refactor(noise: nn.Module, P: Tensor) -> None:
    """Writes a covariance into the parameters of its factor, where they are learned."""
    log_scale, below = getattr(noise, "log_scale", None), getattr(noise, "below", None)
    if not isinstance(log_scale, nn.Parameter) or not log_scale.requires_grad:
        return
    least = torch.finfo(P.dtype).tiny ** 0.25
    if noise.diagonal:
        log_scale.copy_(P.diagonal().clamp_min(least).log() / 2)
        return
    eye = torch.eye(len(P), dtype=P.dtype, device=P.device)
    L = cholesky((P + P.mT) / 2 + least * eye, what="covariance of the maximisation step")
    log_scale.copy_(L.diagonal().log())
    if below is not None:
        row, column = torch.tril_indices(len(P), len(P), -1)
        below.copy_(L[row, column])


def _outer(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weighted sum of outer products over all axes but the last."""
    return torch.einsum("n,ni,nj->ij", weight.flatten(), a.flatten(0, -2), b.flatten(0, -2))


def _total(weight: Tensor, P: Tensor) -> Tensor:
    return torch.einsum("n,nij->ij", weight.flatten(), P.flatten(0, -3))


def _learned(module: nn.Module, name: str) -> bool:
    value = getattr(module, name)
    return isinstance(value, nn.Parameter) and value.requires_grad
