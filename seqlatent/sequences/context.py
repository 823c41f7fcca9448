"""Context, what a step may condition on."""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from seqlatent.sequences.batch import Sequences

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    r"""What a generative module may condition on at a step: covariates, gap, codes, memory.

    For posteriors it also holds the features ``e`` of an encoder, and ``informed``: whether the
    data that the encoder may read say anything about a step. The current observation is never in
    it. A range of steps has fields ``(*S, B, T, feature)``, a single step ``(*S, B, feature)``;
    ``c[t]`` is a step, ``c[1:]`` a range.

    Args:
        u: Covariates.
        dt: Gap before the step, in sampling steps.
        codes: Static codes.
        shift: Location of the observations.
        scale: Scale of the observations.
        m: Memory features of the past.
        e: Encoder features, for posteriors only.
        informed: Whether a posterior may depart from the prior at this step.

    Example:
        >>> c = Context.regular(3, 5, m=torch.zeros(3, 5, 2))
        >>> c[0].m.shape, c[1:].dt.shape
        (torch.Size([3, 2]), torch.Size([3, 4, 1]))
    """

    u: Tensor
    dt: Tensor
    codes: Tensor
    shift: Tensor
    scale: Tensor
    m: Tensor
    e: Tensor
    informed: Tensor

    @classmethod
    def regular(
        cls,
        batch: int,
        steps: int | None = None,
        *,
        obs_dim: int = 1,
        dtype: torch.dtype | None = None,
        **values: Tensor,
    ) -> "Context":
        """Builds a context of unit gaps with nothing in it but what is given."""
        shape = (batch,) if steps is None else (batch, steps)
        empty = torch.zeros(*shape, 0, dtype=dtype)
        ones = torch.ones(*shape, 1, dtype=dtype)
        base = {
            "u": empty,
            "dt": ones,
            "codes": empty.long(),
            "shift": torch.zeros(*shape, obs_dim, dtype=dtype),
            "scale": torch.ones(*shape, obs_dim, dtype=dtype),
            "m": empty,
            "e": empty,
            "informed": ones.bool(),
        }
        unknown = set(values) - set(base)
        if unknown:
            raise ValueError(
                f"Context has the fields {', '.join(base)}; found {', '.join(sorted(unknown))}."
            )
        return cls(**{**base, **values})

    @classmethod
    def of(cls, sequences: Sequences, m: Tensor) -> "Context":
        """Builds the context of every step of a batch, given its memory features ``(B, T, M)``."""
        if m.shape[-1]:
            return cls._built(sequences, m)
        # without a memory it says no more than the batch, and is the same at every evaluation
        return sequences._cached("context", lambda: cls._built(sequences, m))

    @classmethod
    def _built(cls, sequences: Sequences, m: Tensor) -> "Context":
        steps = sequences.steps

        def spread(x: Tensor) -> Tensor:
            return x[:, None].expand(-1, steps, -1)

        return cls(
            u=sequences.u,
            dt=sequences.dt[..., None],
            codes=spread(sequences.codes),
            shift=spread(sequences.shift),
            scale=spread(sequences.scale),
            m=m,
            e=m[..., :0],
            informed=torch.ones_like(sequences.observed[..., :1]),
        )

    @property
    def first(self) -> "Context":
        """The first step."""
        if any(getattr(self, name).requires_grad for name in _NAMES):
            return self[0]
        return self._first

    @cached_property
    def _first(self) -> "Context":
        return self[0]

    @cached_property
    def even(self) -> bool:
        """Whether every gap is one sampling step."""
        return bool((self.dt == 1).all())

    def __getitem__(self, index: int | slice) -> "Context":
        return Context(*[getattr(self, name)[..., index, :] for name in _NAMES])

    @cached_property
    def ends(self) -> "tuple[Context, Context]":
        """The first step, and the range of the others: cheaper to differentiate than two slices."""
        parts = [getattr(self, name).tensor_split((1,), -2) for name in _NAMES]
        return Context(*(x[0].squeeze(-2) for x in parts)), Context(*(x[1] for x in parts))

    def unbind(self) -> list["Context"]:
        """Splits a range into its steps; cheaper than indexing it in a loop."""
        columns = [getattr(self, name).unbind(-2) for name in _NAMES]
        return [Context(*step) for step in zip(*columns, strict=True)]

    def detach(self) -> "Context":
        """Cuts every field from the graph."""
        return Context(*[getattr(self, name).detach() for name in _NAMES])

    def replace(self, **changes: Tensor) -> "Context":
        """Copies the context with some fields changed."""
        return replace(self, **changes)

    def features(self, z: Tensor) -> Tensor:
        """``z``, memory and covariates side by side, ``(*S, B, T, K + M + U)``."""
        parts = [p for p in (z, self.m, self.u) if p.shape[-1]]
        if not parts:
            return z
        shape = torch.broadcast_shapes(z.shape[:-1], *(p.shape[:-1] for p in parts))
        return torch.cat([p.expand(*shape, p.shape[-1]) for p in parts], -1)

    def row(self, table: Tensor) -> Tensor:
        """The row of a table ``(N, *)`` that each series reads by its first static code.

        What is the same at all steps has one step, and what is the same for all series one series.

        Args:
            table: One row per series.

        Shape:
            The rows are ``(*S, B, T, *)``, with lengths of one where nothing differs.

        Raises:
            ValueError: If the series have no code, or one that is no row of the table.

        Example:
            >>> c = Context.regular(2, 5, codes=torch.tensor([[[0]], [[2]]]).expand(2, 5, 1))
            >>> c.row(torch.tensor([[1.0], [2.0], [3.0]])).shape
            torch.Size([2, 1, 1])
        """
        if not self.codes.shape[-1]:
            raise ValueError(
                f"the model has parameters of {len(table)} series, of which each series reads the "
                "row that its first static code names; pass Sequences.of(..., codes=...)."
            )
        index = self.codes[..., 0]
        for axis in range(index.ndim):
            if index.stride(axis) == 0 and index.shape[axis] > 1:
                index = index.narrow(axis, 0, 1)
        if index.numel() and int(index.max()) >= len(table):
            raise ValueError(
                f"the model has parameters of {len(table)} series, found the code "
                f"{int(index.max())}; a series that was not fitted reads the last row, "
                f"{len(table) - 1}."
            )
        if index.numel() > 1 and bool((index == index.flatten()[0]).all()):
            index = index.flatten()[0].expand((1,) * index.ndim)
        return table[index]

    @property
    def shape(self) -> torch.Size:
        """Shape without the feature axis."""
        return torch.broadcast_shapes(self.dt.shape[:-1], self.m.shape[:-1])


_NAMES = tuple(f.name for f in fields(Context))
