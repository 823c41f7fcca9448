"""Densities of many parameters of each series, all of them in one batch."""

import copy
import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqlatent.model import LatentModel
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training.likelihood.population_prior import Pool
from seqlatent.training.likelihood.series_problems import Tables, rows_of_codes

__all__ = []

_CHUNK = 2048  # pairs of a series and a vector that are filtered together, few enough for the cache


class Densities:
    """Log densities of parameters under a prior and the rows of a series, and their gradients.

    A series counts as many times as it has vectors, each with a row of a table of its own: one
    vector of a thousand series and a thousand of one series cost the same.

    Args:
        model: A model with a row of parameters per series, which is left as it is.
        data: The series.
        prior: The distribution of the vectors.
    """

    def __init__(self, model: LatentModel, data: Sequences, prior: Pool) -> None:
        self.model, self.data, self.prior = model, data, prior
        self.row = rows_of_codes(data, Tables(model).series)
        self.length = data.last + 1
        self._wide: LatentModel | None = None

    def __call__(
        self, theta: Float[Tensor, "S A P"], index: Int[Tensor, " A"] | None = None
    ) -> Float[Tensor, "S A"]:
        """Log densities of vectors of some series, of all by default; minus infinity for none."""
        with torch.no_grad():
            return self._each(theta, index, False)[0]

    def gradients(self, theta: Float[Tensor, "S B P"]) -> Float[Tensor, "S B P"]:
        """Gradients of the log densities of vectors of all series."""
        return self._each(theta, None, True)[1]

    def _each(self, theta: Tensor, index: Tensor | None, gradient: bool) -> tuple[Tensor, Tensor]:
        everyone = torch.arange(self.data.batch, device=theta.device)
        owner = (everyone if index is None else index).repeat(len(theta))
        flat = theta.reshape(len(owner), -1)
        value, slope = flat.new_empty(len(flat)), torch.zeros_like(flat)
        for part in self.length[owner].argsort(stable=True).split(_CHUNK):
            value[part], found = self._together(owner[part], flat[part], gradient)
            if gradient:
                away = (flat[part] - self.prior.mean) @ self.prior.precision
                slope[part] = found * self.prior.slope(flat[part]) - away
        value += self.prior.log_prob(flat)
        value = torch.where(value.isfinite(), value, -math.inf)
        return value.reshape(theta.shape[:-1]), torch.where(slope.isfinite(), slope, 0.0).reshape(
            theta.shape
        )

    def _together(self, owner: Tensor, theta: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        if self._wide is None or Tables(self._wide).series < len(owner):
            self._wide = widened(self.model, self.row.new_zeros(len(owner)))
        tables, place = Tables(self._wide), torch.arange(len(owner), device=theta.device)
        tables.write(place, self.prior.parameters(theta))
        steps = max(int(self.length[owner].max()), 1)
        batch = repeated(self.data, owner).window(0, steps)
        try:
            with torch.set_grad_enabled(gradient):
                found = evidence(self._wide, batch)
                slope = tables.gradient(found, place) if gradient else torch.zeros_like(theta)
                return found.detach(), slope
        except (ValueError, torch.linalg.LinAlgError):  # pyright: ignore
            # at some of these parameters an innovation has no variance
            if len(owner) == 1:
                return theta.new_full((1,), -math.inf), torch.zeros_like(theta)
            halves = [
                self._together(o, x, gradient)
                for o, x in zip(owner.tensor_split(2), theta.tensor_split(2), strict=True)
            ]
            return torch.cat([v for v, _ in halves]), torch.cat([g for _, g in halves])


def widened(model: LatentModel, row: Int[Tensor, " N"]) -> LatentModel:
    """A copy of a model whose tables have given rows of it, one after the other.

    Args:
        model: A model with a row of parameters per series.
        row: The rows; the pooled one follows them.
    """
    series = Tables(model).series
    row = torch.cat([row, row.new_full((1,), series)])
    wide = copy.deepcopy(model)
    for module in wide.modules():
        if isinstance(getattr(module, "series", None), int):
            module.series = len(row) - 1  # pyright: ignore
        for name, p in list(module.named_parameters(recurse=False)):
            if p.requires_grad:
                module.register_parameter(name, nn.Parameter(p.detach()[row]))
    return wide


def repeated(data: Sequences, owner: Int[Tensor, " N"]) -> Sequences:
    """Series as often as they are named, each with a row of parameters of its own."""
    place = torch.arange(len(owner), device=owner.device)
    chosen = data.select(owner)
    codes = torch.cat([place[:, None].to(chosen.codes), chosen.codes[:, 1:]], 1)
    return replace(chosen, codes=codes)
