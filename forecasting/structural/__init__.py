"""The structural forecaster: exact models of each series, pooled over the panel, forms mixed.

Order of calls, on padded values ``y (B, T)`` with NaN where nothing was observed:

1. ``fitted = fit_structural(y, season_length, horizon)`` fits every form, chooses the share of each
   and calibrates the widths; ``print(fitted.choice)`` says what it chose and why.
2. ``rows = fitted.prepare(y)`` puts each series at the start of its row, on the clock of ``y``.
3. For each ``member`` of ``fitted.members``: ``sequences = member.sequences(rows)``, on a log scale
   where ``member.log``; ``belief = member.model.belief(sequences, end=False)``. The belief is what
   is saved and what ``member.model.update`` moves on.
4. ``mean, variance = moments(member.model, belief, horizon)``: exact, normal, and of the logarithm
   where ``member.log``. Stacked over members they give quantiles by :func:`mixture_quantiles` with
   ``fitted.weights``; paths of futures in these shares, ``member.model.forecast``, exponentiated
   where ``member.log``, are joint samples of the same law.
5. Where ``fitted.nonnegative`` all values were at least 0: clip quantiles and paths there.
"""

from seqlatent.forecasting.structural.choice import CRITERIA
from seqlatent.forecasting.structural.fit import Fitted, Member, fit_structural
from seqlatent.forecasting.structural.forms import (
    TRENDS,
    VARIED,
    Form,
    candidates,
    form_of,
    reading,
)
from seqlatent.forecasting.structural.mixtures import mixture_quantiles
from seqlatent.forecasting.structural.report import Choice
from seqlatent.forecasting.structural.rows import Rows, completed, prepared, standards

__all__ = [
    "CRITERIA",
    "TRENDS",
    "VARIED",
    "Choice",
    "Fitted",
    "Form",
    "Member",
    "Rows",
    "candidates",
    "completed",
    "fit_structural",
    "form_of",
    "mixture_quantiles",
    "prepared",
    "reading",
    "standards",
]
