"""The parameters of an exact model as vectors: one of all series, or one of each."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences

__all__ = ["Vectors"]


class Vectors:
    """Learned parameters as vectors ``(N, P)``, one of each problem, with evidence and gradient.

    Where series share their parameters all of them are one problem, else each row of the tables
    that some series reads is one.

    Args:
        model: A model with exact inference.
        data: The series.
        task: What is done with them, for messages.

    Raises:
        TypeError: If the inference is not exact.
        ValueError: If nothing is learned, or nothing observed.
    """

    def __init__(self, model: LatentModel, data: Sequences, task: str) -> None:
        if not isinstance(model, LatentModel) or not isinstance(model.inference, Kalman):
            found = type(getattr(model, "inference", model)).__name__
            raise TypeError(
                f"{task} needs a LatentModel whose inference is Kalman, found {found}; other "
                "models are trained with fit."
            )
        self.model = model
        self.named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.named:
            raise ValueError(f"{task} needs parameters that are learned, found none.")
        steps = max(int(data.last.max()) + 1, 1)
        self.data = data.window(0, steps)
        if not bool(data.observed.any()):
            raise ValueError(f"{task} needs at least one observed cell, found none.")
        each = (getattr(module, "series", None) for module in model.modules())
        self.tables = any(isinstance(n, int) for n in each)
        if self.tables:
            model.context(data)  # which checks the codes
            self.row, self.owner = _rows(data, len(next(iter(self.named.values()))))
        else:
            self.row = self.owner = torch.zeros(data.batch, dtype=torch.long, device=data.y.device)
            self.row = self.row[:1]
        shapes = (p.shape[1:] if self.tables else p.shape for p in self.named.values())
        self.shapes = list(shapes)
        self.widths = [shape.numel() for shape in self.shapes]
        ends = torch.tensor([0, *self.widths]).cumsum(0).tolist()
        self.columns = {
            name: slice(start, stop)
            for name, start, stop in zip(self.named, ends[:-1], ends[1:], strict=True)
        }

    def __len__(self) -> int:
        return len(self.row)

    def read(self) -> Float[Tensor, "N P"]:
        """The vectors."""
        return self._gather([p.detach() for p in self.named.values()], self.row)

    def _gather(self, parts: list[Tensor], row: Tensor) -> Tensor:
        taken = [(x[row] if self.tables else x[None]).reshape(len(row), -1) for x in parts]
        return torch.cat(taken, -1)

    @torch.no_grad()
    def write(self, theta: Float[Tensor, "A P"], index: Int[Tensor, " A"] | None = None) -> None:
        """Puts vectors, or those of some problems, into the model."""
        parts = theta.split(self.widths, -1)
        for p, part, shape in zip(self.named.values(), parts, self.shapes, strict=True):
            if self.tables:
                p[self.row if index is None else self.row[index]] = part.reshape(-1, *shape)
            else:
                p.copy_(part.reshape(shape))

    def batch(self, index: Int[Tensor, " A"]) -> tuple[Sequences, Tensor]:
        """The series of some problems, and the position of each one's problem among them."""
        if len(index) == len(self):
            return self.data, self.owner
        place = torch.full_like(self.row, -1)
        place[index] = torch.arange(len(index), device=index.device)
        chosen = place[self.owner] >= 0
        return self.data.select(chosen), place[self.owner][chosen]

    def together(self, values: Tensor, owner: Tensor, size: int) -> Tensor:
        """Sums over the series of each problem ``(A, ...)``."""
        total = values.new_zeros(size, *values.shape[1:])
        return total.index_add(0, owner, values)

    def __call__(self, index: Int[Tensor, " A"], theta: Float[Tensor, "A P"]) -> tuple:
        """Log evidences ``(A,)`` of some problems and their gradients ``(A, P)``."""
        self.write(theta, index)
        data, owner = self.batch(index)
        with torch.enable_grad():
            found = evidence(self.model, data)
            grads = torch.autograd.grad(
                found.sum(), list(self.named.values()), allow_unused=True, materialize_grads=True
            )
        value = self.together(found.detach(), owner, len(index))
        return value, self._gather(list(grads), self.row[index])

    def guarded(self, index: Int[Tensor, " A"], theta: Float[Tensor, "A P"]) -> tuple:
        """The same, minus infinity where a covariance is none or a value not finite."""
        try:
            value, gradient = self(index, theta)
        except (ValueError, torch.linalg.LinAlgError):  # pyright: ignore
            if len(index) == 1:
                return theta.new_full((1,), -torch.inf), torch.zeros_like(theta)
            pairs = [
                self.guarded(i, x) for i, x in zip(index.split(1), theta.split(1), strict=True)
            ]
            return torch.cat([v for v, _ in pairs]), torch.cat([g for _, g in pairs])
        finite = value.isfinite() & gradient.isfinite().all(-1)
        return torch.where(finite, value, -torch.inf), gradient


def _rows(data: Sequences, size: int) -> tuple[Tensor, Tensor]:
    row, owner = data.codes[:, 0].unique(return_inverse=True)
    if int(row.max()) >= size:
        raise ValueError(f"the tables have {size} rows, found the code {int(row.max())}.")
    return row, owner
