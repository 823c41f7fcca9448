"""The structural forecaster: exact models of each series, pooled over the panel and stacked.

Order of calls, on padded values ``y (B, T)`` with NaN where nothing was observed:

1. ``fitted = fit_structural(y, season_length, horizon)`` fits every specification, chooses the
   weight of each and calibrates the widths; ``print(fitted.stacking)`` says what it chose and why.
2. ``rows = fitted.prepare(y)`` puts each series at the start of its row, on the clock of ``y``.
3. For each ``member`` of ``fitted.members``: ``sequences = member.sequences(rows)``, on a log scale
   where ``member.log``; ``belief = member.model.belief(sequences, end=False)``. The belief is what
   is saved and what ``member.model.update`` moves on.
4. ``mean, variance = moments(member.model, belief, horizon)``: exact, normal, and of the logarithm
   where ``member.log``. Stacked over members they give quantiles by
   :func:`seqlatent.forecasting.engines.mixture.quantiles` with ``fitted.weights``; paths of futures
   in these weights, ``member.model.forecast``, exponentiated where ``member.log``, are joint
   samples of the same distribution.
5. Where ``fitted.nonnegative`` all values were at least 0: clip quantiles and paths there.
"""

from seqlatent.forecasting.engines.structural.fit import fit_structural
from seqlatent.forecasting.engines.structural.fitted import Fitted, Member
from seqlatent.forecasting.engines.structural.report import Stacking
from seqlatent.forecasting.engines.structural.rows import Rows, prepared
from seqlatent.forecasting.engines.structural.specifications import (
    TRENDS,
    Specification,
    candidates,
    reading,
    specification_of,
)
from seqlatent.forecasting.engines.structural.stacking import CRITERIA

__all__ = [
    "CRITERIA",
    "TRENDS",
    "Fitted",
    "Member",
    "Rows",
    "Specification",
    "Stacking",
    "candidates",
    "fit_structural",
    "prepared",
    "reading",
    "specification_of",
]
