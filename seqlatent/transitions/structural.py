"""Structural models: components that say how they enter an observation, and their sum."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from seqlatent.chain import ConditionallyLinear
from seqlatent.linalg import broadcast_shapes
from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Initialised, Number, positive
from seqlatent.transitions.transition import LinearTransition, Transition

__all__ = ["Component", "Loading", "Structural", "Sum"]


@dataclass(frozen=True)
class Loading:
    r"""How a state enters a scalar observation: its row of the observation matrix, in numbers.

    .. math:: h_k = \text{constant}_k + u_{\text{covariate}_k}

    An emission is built from it without a reference to the transition that it came from.

    Args:
        constant: Fixed part of each weight.
        covariate: Index of the covariate that is added to each weight, -1 for none.

    Example:
        >>> level = Loading((1.0,), (-1,))
        >>> (level + Loading((0.0,), (1,))).row(torch.tensor([5.0, 7.0]))
        tensor([1., 7.])
    """

    constant: tuple[float, ...]
    covariate: tuple[int, ...]

    @classmethod
    def of(cls, *constant: Number) -> "Loading":
        """Builds a loading of fixed weights."""
        return cls(tuple(float(x) for x in constant), (-1,) * len(constant))

    @property
    def latent_dim(self) -> int:
        """Width ``K`` of the state."""
        return len(self.constant)

    def __add__(self, other: "Loading") -> "Loading":
        return Loading(self.constant + other.constant, self.covariate + other.covariate)

    def row(self, u: Tensor) -> Tensor:
        """Weights ``(K,)`` where no covariate enters, else ``(..., K)``.

        Args:
            u: Covariates ``(..., U)``, which also say device and type.

        Raises:
            ValueError: If a covariate that enters is not there.
        """
        constant = torch.tensor(self.constant, dtype=u.dtype, device=u.device)
        if max(self.covariate, default=-1) < 0:
            return constant
        if max(self.covariate) >= u.shape[-1]:
            raise ValueError(
                f"the loading reads covariate {max(self.covariate)}, the first being 0, and the "
                f"sequences have {u.shape[-1]}; pass them as Sequences.of(..., u=...), or change "
                "the indices of Regression."
            )
        # index U, for which there is no covariate, reads a column of zeros
        padded = nn.functional.pad(u, (0, 1))
        index = [i if i >= 0 else u.shape[-1] for i in self.covariate]
        return constant + padded[..., index]


class Component(Transition, ConditionallyLinear):
    """A linear transition that says how its state enters an observation.

    States are in units of the standardised series: an emission multiplies by the series' scale.

    Attributes:
        loading: Weights of the state in the observation.
    """

    loading: Loading


class Structural(LinearTransition, Component, Initialised):
    r"""A component that knows nothing of its first state but a wide normal distribution.

    .. math:: z_1 \sim N(m, \operatorname{diag}(s_0^2))

    A subclass supplies ``matrices``.

    Args:
        loading: Weights of the state in the observation.
        initial_scale: Standard deviation of each coordinate of the first state; ``math.inf`` for
            a diffuse one, of which nothing is known.
        learn_initial: Whether its mean is learned, or 0.
        learn_initial_scale: Number of coordinates, the last ones, whose common standard deviation
            is learned.

    Attributes:
        series: Number of series that have parameters of their own, None where all share them.
    """

    initial_mean: Tensor | None
    log_scales: ClassVar[tuple[str, ...]] = (
        "log_scale",
        "log_level_scale",
        "log_slope_scale",
        "log_initial_scale",
    )
    log_initial_scale: Tensor | None

    def __init__(
        self,
        loading: Loading,
        *,
        initial_scale: Iterable[Number],
        learn_initial: bool = False,
        learn_initial_scale: int = 0,
    ) -> None:
        super().__init__()
        self.loading = loading
        self.latent_dim = loading.latent_dim
        self.series: int | None = None
        self.initial_scale = tuple(_positive_scale(x) for x in initial_scale)
        self.register_parameter("initial_mean", None)
        self.register_parameter("log_initial_scale", None)
        if learn_initial:
            self.start("initial_mean", torch.zeros(self.latent_dim))
        if learn_initial_scale:
            if math.isinf(self.initial_scale[-1]):
                raise ValueError(
                    "an initial_scale to be learned must start from a finite one, found inf; leave "
                    "learn_initial_scale out for a diffuse first state."
                )
            self.start("log_initial_scale", torch.tensor(self.initial_scale[-1:]).log())
        self.learned_scales = int(learn_initial_scale)

    def tabulate(self, series: int) -> None:
        """Gives each of so many series a row of parameters of its own, and one to all others.

        Every row starts from the shared values. A series reads the row that its first static code
        names; the last row, of index ``series``, is that of a series which was not there.
        """
        if self.series is not None:
            raise ValueError(
                f"{type(self).__name__} has parameters of {self.series} series already; build the "
                "model anew."
            )
        self.series = series
        for name, value in list(self.named_parameters(recurse=False)):
            self.start(name, value.detach().expand(series + 1, *value.shape))

    def read(self, name: str, c: Context | None = None) -> Tensor:
        """A parameter ``(size,)``, or in a context each series' row of it ``(..., size)``."""
        value = getattr(self, name)
        return value if self.series is None or c is None else c.row(value)

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        scale = constant(self.initial_scale, c)
        mean = torch.zeros_like(scale)
        if self.log_initial_scale is not None:
            learned = self.read("log_initial_scale", c).exp()
            fixed = scale[: self.latent_dim - self.learned_scales]
            scale = torch.cat(
                [
                    fixed.expand(*learned.shape[:-1], -1),
                    learned.expand(*learned.shape[:-1], self.learned_scales),
                ],
                -1,
            )
        if self.initial_mean is not None:
            mean = self.read("initial_mean", c)
        return mean, scale.diag_embed()

    def learn_scale(self, name: str, scale: Number | None, size: int = 1) -> None:
        """Registers the logarithms of standard deviations, or None where there is no noise."""
        scale = positive(name, scale)
        if scale is None:
            self.register_parameter(f"log_{name}", None)
        else:
            self.start(f"log_{name}", torch.full((size,), scale).log())

    def scale_of(self, name: str, c: Context | None = None) -> Tensor | None:
        """Standard deviations that were registered under a name, shaped as by :meth:`read`."""
        absent = getattr(self, f"log_{name}") is None
        return None if absent else self.read(f"log_{name}", c).exp()

    def extra_repr(self) -> str:
        scales = [x for x in self.named_parameters(recurse=False) if x[0] in self.log_scales]
        text = [
            f"{name.removeprefix('log_')}={p.detach().exp().mean().item():.3g}"
            for name, p in scales
        ]
        return ", ".join(text + ([] if self.series is None else [f"series={self.series}"]))


class Sum(LinearTransition, Component):
    r"""Independent components whose contributions to the observation add up.

    .. math:: z_t = [z^1_t, \dots, z^n_t], \qquad h^\top z_t = \sum_i h^{i\top} z^i_t

    Args:
        components: The components.

    Raises:
        TypeError: If one of them is no component.
        ValueError: If there is none.

    Example:
        >>> from seqlatent.transitions import LocalLevel, Seasonal
        >>> p = Sum([LocalLevel(), Seasonal(4)])
        >>> p.latent_dim, p.loading.constant
        (4, (1.0, 1.0, 0.0, 0.0))

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.
    """

    def __init__(self, components: Iterable[Transition]) -> None:
        super().__init__()
        parts: list[Component] = []
        for part in components:
            if not isinstance(part, Component):
                raise TypeError(
                    "Sum adds components (LocalLevel, Seasonal, ...), found "
                    f"{type(part).__name__} at position {len(parts)}; a transition joins by "
                    "subclassing Component, which has a loading."
                )
            parts.append(part)
        if not parts:
            raise ValueError(
                "Sum needs at least one component, found none; try Sum([LocalLevel()])."
            )
        self.components = nn.ModuleList(parts)
        self.latent_dim = sum(part.latent_dim for part in parts)
        self.handles_gaps = all(part.handles_gaps for part in parts)
        loading = parts[0].loading
        for part in parts[1:]:
            loading = loading + part.loading
        self.loading = loading

    @property
    def parts(self) -> tuple[Component, ...]:
        """The components."""
        return tuple(part for part in self.components if isinstance(part, Component))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the state of each component lies in the state."""
        ends = [0]
        for part in self.parts:
            ends.append(ends[-1] + part.latent_dim)
        return tuple(slice(start, stop) for start, stop in pairwise(ends))

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        if not self.handles_gaps:
            c = c.replace(dt=torch.ones_like(c.dt))
        if len(parts := self.parts) == 1:
            return parts[0].matrices(c)
        F, b, G = zip(*(part.matrices(c) for part in parts), strict=True)
        return block_diagonal(F), _join(b), block_diagonal(G)

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        if len(parts := self.parts) == 1:
            return parts[0].initial_moments(c)
        m0, G0 = zip(*(part.initial_moments(c) for part in parts), strict=True)
        return _join(m0), block_diagonal(G0)


def block_diagonal(blocks: Iterable[Tensor]) -> Tensor:
    """Matrices along the diagonal; where all are the same at every step, so is what comes out."""
    blocks = list(blocks)
    if all(block.ndim == 2 for block in blocks):
        return torch.block_diag(*blocks)
    lead = broadcast_shapes(*(block.shape[:-2] for block in blocks))
    width, before, rows = sum(block.shape[-1] for block in blocks), 0, []
    for block in blocks:
        after = width - before - block.shape[-1]
        row = nn.functional.pad(block, (before, after))
        rows.append(row.expand(*lead, *row.shape[-2:]))
        before += block.shape[-1]
    return torch.cat(rows, -2)


def _join(vectors: Iterable[Tensor]) -> Tensor:
    vectors = list(vectors)
    lead = broadcast_shapes(*(x.shape[:-1] for x in vectors))
    return torch.cat([x.expand(*lead, x.shape[-1]) for x in vectors], -1)


def constant(values: Iterable[object], c: Context) -> Tensor:
    """A tensor of plain numbers, of the type and on the device of a context."""
    return torch.tensor(list(values), dtype=c.dt.dtype, device=c.dt.device)


def noise_columns(size: int, scales: Iterable[tuple[int, Tensor | None]], c: Context) -> Tensor:
    """A noise factor ``(..., K, R)``: a column for each coordinate that has its own noise."""
    present = [(row, scale) for row, scale in scales if scale is not None]
    if [row for row, _ in present] == list(range(size)):  # every coordinate, in order
        return torch.cat([scale for _, scale in present], -1).diag_embed()
    placed = torch.zeros(size, len(present), dtype=c.dt.dtype, device=c.dt.device)
    if not present:
        return placed
    for column, (row, _) in enumerate(present):
        placed[row, column] = 1.0
    return placed * torch.cat([scale for _, scale in present], -1)[..., None, :]


def columns_of(covariates: Iterable[int]) -> tuple[int, ...]:
    """Reads indices of columns of the covariates."""
    index = tuple(covariates)
    if not index or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in index):
        raise ValueError(
            f"covariates must be indices of columns of u, from 0, at least one, found {index}; "
            "for the first three write range(3)."
        )
    if len(set(index)) != len(index):
        raise ValueError(f"covariates must not repeat, found {index}.")
    return index


def gap(c: Context) -> Tensor | None:
    """Gaps ``(..., 1)``, or None where each is a single step, so that one matrix does for all."""
    return None if c.even else c.dt


def _positive_scale(scale: Number) -> float:
    if not scale > 0:
        raise ValueError(
            f"initial_scale must be a positive standard deviation, math.inf for a diffuse first "
            f"state, found {scale!r}."
        )
    return float(scale)
