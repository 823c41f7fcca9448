"""Steps, a row more for all members of an ensemble at once, where their matrices never change."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference import Kalman
from seqlatent.inference.base import Latest
from seqlatent.linalg import condition
from seqlatent.model import Belief, LatentModel
from seqlatent.sequences import Context
from seqlatent.transitions.transition import LinearTransition

__all__ = []

_PLAIN = 1e4  # variance of a prediction, in units of the noise, up to which no digits are lost
_MOST = 4_000_000  # numbers that are kept


class _Matrices(NamedTuple):
    """Matrices of the members of one width, and units: ``(M, B, ...)``, or lengths of one."""

    members: tuple[int, ...]
    shift: Tensor
    scale: Tensor
    F: Tensor
    b: Tensor
    Q: Tensor
    H: Tensor
    d: Tensor
    R: Tensor


@dataclass(frozen=True)
class LinearUpdates:
    """Moves the states of linear Gaussian members over one row.

    Where nothing but the series tells matrices apart, those of a fitted model are computed once for
    the series that are updated, and members of one width are moved together.

    Args:
        models: The members; see :meth:`of`.
        parameters: All their parameters and buffers.
        kept: Matrices that were computed, by the series and the versions of all parameters.
    """

    models: tuple[LatentModel, ...]
    parameters: tuple[Tensor, ...] = field(repr=False)
    kept: dict[tuple[object, ...], tuple[_Matrices, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, models: Sequence[LatentModel]) -> "LinearUpdates | None":
        """The steps of models that read no covariates; None where one is of another kind.

        All are to be linear and Gaussian, inferred exactly and without a memory.
        """
        suited = all(
            isinstance(m.inference, Kalman)
            and not m.inference.scan
            and not m.inference.doubts
            and isinstance(m.transition, LinearTransition)
            and isinstance(m.emission, LinearEmission)
            and not m.memory.out_dim
            for m in models
        )
        parameters = (p for m in models for p in (*m.parameters(), *m.buffers()))
        return cls(tuple(models), tuple(parameters)) if suited else None

    @torch.no_grad()
    def __call__(
        self,
        beliefs: Sequence[Belief],
        y: Sequence[Tensor],
        observed: Tensor,
        t: Tensor,
    ) -> tuple[Belief, ...] | None:
        """Beliefs after one row, one step of time later; None where that would cost digits.

        Args:
            beliefs: Belief of each member.
            y: The row as each member reads it ``(B, D)``, 0 where nothing was observed.
            observed: Which cells were observed ``(B, D)``.
            t: Time of the row ``(B,)``.
        """
        found: list[Belief | None] = [None] * len(beliefs)
        if not bool(beliefs[0].latest.started.all()):
            return None
        for distribution in self._distributions(beliefs):
            some = [beliefs[m] for m in distribution.members]
            mean = torch.stack([_there(b.latest.mean) for b in some])
            cov = torch.stack([_there(b.latest.cov) for b in some])
            mean = (distribution.F @ mean[..., None])[..., 0] + distribution.b
            cov = distribution.F @ cov @ distribution.F.mT + distribution.Q
            across = cov @ distribution.H.mT
            spread = (across.mT * distribution.H).sum(-1)
            if not bool((spread <= _PLAIN * distribution.R.diagonal(dim1=-2, dim2=-1)).all()):
                return None
            values = (
                torch.stack([y[m] for m in distribution.members]) - distribution.shift
            ) / distribution.scale
            if values.shape[-1] == 1:
                mean, cov = _conditioned(distribution, mean, cov, across, spread, values, observed)
            else:
                mean, cov, _ = condition(
                    mean, cov, distribution.H, distribution.d, distribution.R, values, observed
                )
            for m, b, own, around in zip(distribution.members, some, mean, cov, strict=True):
                latest = Latest(own, around, None, None, b.latest.started)
                found[m] = replace(b, latest=latest, y=y[m], observed=observed, t=t)
        return tuple(b for b in found if b is not None)

    def _distributions(self, beliefs: Sequence[Belief]) -> tuple[_Matrices, ...]:
        """Matrices of the members for the series of their beliefs."""
        series = (x.numpy().tobytes() for b in beliefs for x in (b.codes, b.shift, b.scale))
        key = (*series, *(p._version for p in self.parameters))
        if key in self.kept:
            return self.kept[key]
        found = self._made(beliefs)
        size = _model_data(found)
        if size + sum(map(_model_data, self.kept.values())) > _MOST:
            self.kept.clear()
        if size <= _MOST:
            self.kept[key] = found
        return found

    def _made(self, beliefs: Sequence[Belief]) -> tuple[_Matrices, ...]:
        widths: dict[int, list[int]] = {}
        for m, model in enumerate(self.models):
            widths.setdefault(model.transition.latent_dim, []).append(m)
        found = []
        for members in widths.values():
            parts = (_matrices(self.models[m], beliefs[m]) for m in members)
            found.append(_Matrices(tuple(members), *map(_stacked, zip(*parts, strict=True))))
        return tuple(found)


def _matrices(model: LatentModel, belief: Belief) -> tuple[Tensor, ...]:
    """Matrices of a member for some series ``(B, ...)``, or for all alike ``(1, ...)``."""
    assert isinstance(model.transition, LinearTransition)
    assert isinstance(model.emission, LinearEmission)
    c = Context.regular(
        belief.batch,
        obs_dim=belief.y.shape[1],
        dtype=belief.y.dtype,
        codes=belief.codes,
        shift=belief.shift,
        scale=belief.scale,
    )
    F, b, G = model.transition.matrices(c)
    H, d, R = model.emission.matrices(c)
    distributions = ((F, 2), (b, 1), (G @ G.mT, 2), (H, 2), (d, 1), (R, 2))
    distributions = (x[None] if x.ndim == axes else x for x, axes in distributions)
    return belief.shift, belief.scale, *distributions


def _conditioned(
    distribution: _Matrices,
    mean: Tensor,
    cov: Tensor,
    across: Tensor,
    spread: Tensor,
    y: Tensor,
    observed: Tensor,
) -> tuple[Tensor, Tensor]:
    """:func:`condition` for one observed dimension, without factors of its variance."""
    gain = torch.where(observed, across[..., 0] / (spread + distribution.R[..., 0]), 0.0)
    residual = y - distribution.d - (distribution.H @ mean[..., None])[..., 0]
    kept = torch.eye(mean.shape[-1], dtype=mean.dtype) - gain[..., None] * distribution.H
    cov = kept @ cov @ kept.mT + distribution.R * (gain[..., None] * gain[..., None, :])
    return torch.addcmul(mean, gain, residual), (cov + cov.mT) / 2


def _model_data(distributions: Sequence[_Matrices]) -> int:
    return sum(x.numel() for distribution in distributions for x in distribution[1:])


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """One tensor of some members."""
    shape = torch.broadcast_shapes(*(x.shape for x in parts))
    return torch.stack([x.expand(shape) for x in parts])


def _there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x
