"""A fitted structural mixture: its models, and the weight of each."""

from dataclasses import dataclass, field

from torch import Tensor

from seqlatent.forecasting.engines.parameters import Marginals
from seqlatent.forecasting.engines.structural.report import Stacking
from seqlatent.forecasting.engines.structural.rows import Rows, prepared
from seqlatent.forecasting.engines.structural.specifications import Specification
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training import EachHistory

__all__ = ["Fitted", "Member"]


@dataclass(frozen=True)
class Member:
    """One model of the mixture, with parameters of each series.

    Args:
        specification: Its specification.
        model: The model; code ``b`` of a series names its row, ``B`` is a series not fitted.
    """

    specification: Specification
    model: LatentModel

    @property
    def log(self) -> bool:
        """Whether the model describes logarithms."""
        return self.specification.log

    def sequences(self, rows: Rows) -> Sequences:
        """The rows on the scale of the model."""
        return rows.sequences(self.log)


@dataclass(frozen=True)
class Fitted:
    """A fitted mixture.

    Args:
        members: The models, as many of each specification as there are draws.
        weights: Weight of each of them for each series ``(B, M)``.
        stacking: Which specifications have which weight, and why.
        season_length: Steps of the first season, 1 without.
        rows: Most rows of a series that are read, the last ones.
        nonnegative: Whether all values were at least 0.
        histories: Record of each specification's fit, by its name.
        undone: What was left undone for want of time, in words.
        untrusted: Series whose parameters some specification draws from normal distributions,
            though by weights was asked for.
        marginals: Posteriors of the parameters by each specification, without the factor of widths.
    """

    members: tuple[Member, ...]
    weights: Tensor
    stacking: Stacking
    season_length: int
    rows: int
    nonnegative: bool
    histories: dict[str, EachHistory] = field(repr=False)
    undone: tuple[str, ...] = ()
    untrusted: tuple[int, ...] = ()
    marginals: tuple[Marginals, ...] = field(default=(), repr=False)

    @property
    def calibration_factor(self) -> float:
        """Factor of all standard deviations that the held-out blocks asked for."""
        return self.stacking.calibration_factor

    def prepare(self, y: Tensor, codes: Tensor | None = None) -> Rows:
        """Values ``(B, T)`` as rows; ``codes`` names their parameters, in order by default."""
        return prepared(y, self.season_length, self.rows, codes)
