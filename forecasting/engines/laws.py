"""Laws of observations that data call for: which values a target takes decides the family."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.distributions import constraints

from seqlatent import emissions
from seqlatent.emissions import Emission
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["EMISSIONS", "OUTSIDE", "WORDS", "Law", "law_of", "limits", "said_of", "supports_of"]

EMISSIONS: dict[str, type[Emission]] = {
    "normal": emissions.Normal,
    "student_t": emissions.StudentT,
    "poisson": emissions.Poisson,
    "negative_binomial": emissions.NegativeBinomial,
    "bernoulli": emissions.Bernoulli,
    "softplus_student_t": emissions.SoftplusStudentT,
    "censored_student_t": emissions.CensoredStudentT,
    "hurdle_student_t": emissions.HurdleStudentT,
    "logit_student_t": emissions.LogitStudentT,
    "unit_censored_student_t": emissions.UnitCensoredStudentT,
    "inflated_logit_student_t": emissions.InflatedLogitStudentT,
    "zero_inflated_negative_binomial": emissions.ZeroInflatedNegativeBinomial,
}
"""Families by the names that ``emission=`` takes."""

FEW = 20.0  # counts of this median or less, or with zeros, are no longer nearly continuous
SOME = 0.05  # share of zeros from which whole numbers are counts whatever their median
INTERMITTENT = 0.4  # share of zeros above which these have a probability of their own
APART = 0.1  # the same of real values, whose zeros then come at any level
SHARE = 0.5  # greatest value of at least this, and at most 1: a part of a whole

WORDS = {
    "softplus_student_t": "values above 0",
    "censored_student_t": "values of at least 0",
    "hurdle_student_t": "values of at least 0, many of them 0",
    "logit_student_t": "values between 0 and 1",
    "unit_censored_student_t": "values from 0 to 1",
    "inflated_logit_student_t": "values from 0 to 1, many of them 0 or 1",
    "negative_binomial": "counts",
    "zero_inflated_negative_binomial": "counts, many of them 0",
}
"""What data are called that get a law."""

OUTSIDE = "values outside the law of training are read as the nearest that it knows"
"""What is noted where later rows lie where those of training did not."""


@dataclass(frozen=True)
class Law:
    """The family that a target was given by its values in training.

    Args:
        name: One of ``EMISSIONS``.
        least: Least value of training above 0, or 1 without one.
        most: Greatest value of training below 1, or 0 without one.
    """

    name: str
    least: float = 1.0
    most: float = 0.0


def law_of(y: np.ndarray) -> Law:
    """The law that the values of a target call for.

    Args:
        y: Values of training ``(R,)``, NaN where missing.

    Example:
        >>> import numpy as np
        >>> [law_of(np.array(y)).name for y in ([-1.0, 2.5], [0.5, 3.2], [0.0, 0.0, 3.2])]
        ['student_t', 'softplus_student_t', 'hurdle_student_t']
    """
    seen = y[~np.isnan(y)]
    if not len(seen) or (seen < 0).any():
        return Law("student_t")
    zeros = float((seen == 0).mean())
    whole = bool((seen == np.round(seen)).all())
    if whole and (np.median(seen) <= FEW or zeros > SOME):
        many = INTERMITTENT < zeros < 1
        return Law("zero_inflated_negative_binomial" if many else "negative_binomial")
    positive, parts = seen[seen > 0], seen[seen < 1]
    least = float(positive.min())
    most = float(parts.max(initial=0.0))
    if SHARE <= seen.max() <= 1:
        ends = zeros + float((seen == 1).mean())
        kind = "logit" if not ends else "unit_censored" if ends <= APART else "inflated_logit"
        return Law(f"{kind}_student_t", least, most)
    kind = "softplus" if not zeros else "censored" if zeros <= APART else "hurdle"
    return Law(f"{kind}_student_t", least, most)


def limits(law: Law) -> tuple[float, float]:
    """Between what later rows are read by a law that training called for.

    What lies outside counts as the nearest value that the law knows; an open end as a tenth of the
    distance that the nearest value of training has from it, which is far off and yet finite.
    """
    upper = 1 - (1 - law.most) / 10
    return {
        "softplus_student_t": (law.least / 10, np.inf),
        "censored_student_t": (0.0, np.inf),
        "hurdle_student_t": (0.0, np.inf),
        "logit_student_t": (law.least / 10, upper),
        "unit_censored_student_t": (0.0, 1.0),
        "inflated_logit_student_t": (0.0, 1.0),
    }.get(law.name, (-np.inf, np.inf))


def supports_of(laws: Sequence[Law]) -> tuple[constraints.Constraint, ...]:
    """Where values may lie, target by target."""
    return tuple(EMISSIONS[law.name].support for law in laws)


def said_of(laws: Sequence[Law], panel: Panel) -> list[str]:
    """What is said of targets whose values have bounds or masses."""
    return [
        f"{f'{panel.column(d)}: ' if len(laws) > 1 else ''}{WORDS[law.name]}, emission {law.name!r}"
        for d, law in enumerate(laws)
        if law.name in WORDS
    ]
