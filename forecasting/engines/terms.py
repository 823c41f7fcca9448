"""Terms: normal distributions of the named parts of each row, by each member of an ensemble."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.frames.panel import Panel

__all__ = ["Decomposed", "Normals", "Term"]


class Normals(NamedTuple):
    """Normal distributions of the cells of a panel, as a model sees them.

    Attributes:
        mean: Means ``(R, D)``.
        scale: Standard deviations ``(R, D)``.
    """

    mean: np.ndarray
    scale: np.ndarray


class Term(NamedTuple):
    """Distribution of a component, and of what it is added to.

    Attributes:
        kind: ``"component"``, which add up; ``"state"`` for what is none; ``"signal"``, their sum.
        own: Distribution of the component itself.
        base: Distribution of what it is added to; None for the first component and for the signal.
        total: Distribution of the sum of the two.
    """

    kind: str
    own: Normals
    base: Normals | None = None
    total: Normals | None = None


@dataclass(frozen=True)
class Decomposed:
    """Components of every row by each member of an ensemble.

    Args:
        panel: The rows, future ones included.
        specifications: Form of each member, in words.
        kinds: Transform that each member sees the data through.
        weights: Weight of each member for each row ``(R, M)``.
        terms: Components of each member by name, in the order in which they are added.
    """

    panel: Panel
    specifications: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: np.ndarray
    terms: tuple[dict[str, Term], ...]
