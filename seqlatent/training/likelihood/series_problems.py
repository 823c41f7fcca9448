"""The series of a panel as problems of their own, with a row of parameters each."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.objectives import evidence
from seqlatent.scales import logarithms
from seqlatent.sequences import Sequences
from seqlatent.training.deadline import Deadline, Pace
from seqlatent.training.likelihood.population_prior import Pool
from seqlatent.training.likelihood.quasi_newton import Evaluate
from seqlatent.training.likelihood.reparametrisation import Signed

__all__ = []

# Series that are filtered together: few enough for the cache, of nearly equal length.
_CHUNK = 2048


class Tables:
    """Rows of parameters of a model, one per series and a pooled one, as vectors ``(P,)``."""

    def __init__(self, model: LatentModel) -> None:
        each = (getattr(module, "series", None) for module in model.modules())
        found = {n for n in each if isinstance(n, int)}
        if len(found) != 1:
            raise ValueError(
                "fit_each fits a row of parameters per series, found a model without such rows; "
                "make them with per_series(model, series)."
            )
        self.model = model
        self.series: int = found.pop()
        learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in learned]
        self.widths = [p.shape[-1] for p in self.parameters]
        known = logarithms(model)
        log = [name in known for name, _ in learned]
        self.logarithmic = torch.tensor(log).repeat_interleave(torch.tensor(self.widths))

    def read(self, row: Tensor | int) -> Tensor:
        """Vectors of some rows."""
        return torch.cat([p.detach()[row] for p in self.parameters], -1)

    @torch.no_grad()
    def write(self, row: Tensor | int, theta: Tensor) -> None:
        """Puts vectors into some rows."""
        for p, part in zip(self.parameters, theta.split(self.widths, -1), strict=True):
            p[row] = part

    def gradient(self, value: Tensor, row: Tensor) -> Tensor:
        """Gradients of a sum of values in the vectors of some rows."""
        found = torch.autograd.grad(value.sum(), self.parameters, allow_unused=True)
        parts = [
            torch.zeros_like(p)[row] if g is None else g[row]
            for g, p in zip(found, self.parameters, strict=True)
        ]
        return torch.cat(parts, -1)


class Problems:
    """The series of a panel as problems of their own."""

    def __init__(self, tables: Tables, data: Sequences, bound: Pool | Signed) -> None:
        self.tables, self.data, self.bound = tables, data, bound
        self.row = rows_of_codes(data, tables.series)
        self.length = data.last + 1
        self.cells = max(int(data.observed.sum()), 1)

    def __call__(self, index: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log evidences ``(A,)`` of some series and their gradients ``(A, P)``."""
        value, gradient = theta.new_empty(len(index)), torch.zeros_like(theta)
        self.tables.write(self.row[index], self.bound.parameters(theta))
        if len(index) <= _CHUNK:
            value, gradient = self._together(index)
        else:
            for part in self.length[index].argsort().split(_CHUNK):
                value[part], gradient[part] = self._together(index[part])
        return value, gradient * self.bound.slope(theta)

    def _together(self, index: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps = self.data, max(int(self.length[index].max()), 1)
        if len(index) < batch.batch or steps < batch.steps:
            batch = batch.select(index).window(0, steps)
        try:
            with torch.enable_grad():
                found = evidence(self.tables.model, batch)
                return found.detach(), self.tables.gradient(found, self.row[index])
        except ValueError:
            # at these parameters an innovation has no variance: which series is it?
            if len(index) == 1:
                worst = batch.y.new_full((1,), -math.inf)
                return worst, batch.y.new_zeros(1, sum(self.tables.widths))
            halves = [self._together(part) for part in index.tensor_split(2)]
            return torch.cat([v for v, _ in halves]), torch.cat([g for _, g in halves])

    def posterior(self, prior: Pool) -> Evaluate:
        """Negative log density of parameters under a prior and the data, and its gradient."""
        precision = prior.precision

        def evaluate(index: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = self(index, theta)
            return -value - prior.log_prob(theta), (theta - prior.mean) @ precision - gradient

        return evaluate

    def likelihood(self, index: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log evidence and its gradient."""
        value, gradient = self(index, theta)
        return -value, -gradient

    def beginning(
        self, prior: Pool, points: int, seed: int, deadline: Deadline | None = None
    ) -> Float[Tensor, "B P"]:
        """For each series the best of some points that are spread over a prior, the mean first."""
        theta = prior.points(points, seed=seed)
        found = self.at_points(theta, Deadline() if deadline is None else deadline)
        theta = theta[: found.shape[1]]
        return theta[(found + prior.log_prob(theta)).argmax(-1)]

    @torch.no_grad()
    def at_points(self, theta: Float[Tensor, "M P"], deadline: Deadline) -> Float[Tensor, "B N"]:
        """Log evidences of all series at shared parameters, whose covariances are shared too.

        Of the first parameters alone where there is no time for all.
        """
        pace = Pace(deadline)
        pooled, kept = self.tables.series, self.tables.read(self.tables.series)
        out = theta.new_empty(self.data.batch, len(theta))
        shared = replace(self.data, codes=torch.full_like(self.data.codes, pooled))
        parts = [
            (part, shared.select(part).window(0, max(int(self.length[part].max()), 1)))
            for part in self.length.argsort().split(4 * _CHUNK)
        ]
        for m, point in enumerate(self.bound.parameters(theta)):
            if not pace.reaches() and m:
                out = out[:, :m]
                break
            self.tables.write(pooled, point)
            for part, batch in parts:
                out[part, m] = evidence(self.tables.model, batch)
        self.tables.write(pooled, kept)
        return torch.where(out.isfinite(), out, -1e30)


def rows_of_codes(data: Sequences, series: int) -> Tensor:
    """The row of each series, which no other one has."""
    if not data.codes.shape[1]:
        raise ValueError(
            "the first static code of a series names its row of parameters, found no codes; pass "
            "Sequences.of(..., codes=torch.arange(B)[:, None])."
        )
    row = data.codes[:, 0]
    if int(row.max()) >= series:
        raise ValueError(
            f"the model has rows of {series} series, found the code {int(row.max())}; make "
            "per_series(model, series) of as many as there are."
        )
    if len(row.unique()) < len(row):
        first = int((row[:, None] == row).sum(1).gt(1).nonzero()[0])
        raise ValueError(
            f"each series needs a row of its own, found the code {int(row[first])} twice; number "
            "the series from 0."
        )
    return row
