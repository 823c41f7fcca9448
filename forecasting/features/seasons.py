"""Seasons, how many steps those of a panel have, and what has to be said of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.frequency import LONGEST, Frequency, plain_freq
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.forecasting.time.offsets import brief

__all__ = ["calendar_notes", "seasons", "sparse"]

_SPARSE = 0.9  # share of steps without a row, beyond which a frequency is hardly meant


def seasons(panel: Panel, given: Sequence[int] | None, freq: Any = None) -> tuple[int, ...]:
    """Steps of each season, shortest first.

    States are as large as a season: one that is longer than the series, by far longer than any
    that data have without being told, is left out.

    Args:
        panel: The series.
        given: Seasons asked for; None for what suits the frequency.
        freq: What a step of integer times is, where it is a frequency of datetimes.
    """
    wanted = (_frequency_season(panel, freq),) if given is None else given
    most = _most(panel)
    return tuple(sorted(s for s in set(wanted) if 1 < s <= most))


def calendar_notes(
    panel: Panel, given: Sequence[int] | None, freq: Any = None, gaps: str = ""
) -> list[str]:
    """What was not done as asked, or as usual: seasons that are too long, rows not read.

    Args:
        panel: The series.
        given: Seasons asked for; None for what suits the frequency.
        freq: As in :func:`seasons`.
        gaps: What :func:`sparse` says of the grid, where it was asked for.
    """
    notes, most = [], _most(panel)
    frequency = _frequency(panel, freq)
    if given is None and frequency is not None and frequency.left_out:
        notes.append(
            f"the season is {frequency.season} steps, since one of an hour has "
            f"{frequency.left_out}; season_length= gives another"
        )
    notes += [
        f"the season of {s} steps is left out, since no series has as many rows"
        for s in sorted(set(given or ()))
        if s > most
    ]
    notes += [gaps] if gaps else []
    if panel.unread:
        notes.append(
            f"{panel.unread} rows that came second in an hour that the clocks repeat are not read"
        )
    return notes


def sparse(panel: Panel) -> str:
    """What to say of a grid that hardly has rows, and which one the stamps are on; else empty."""
    there = panel.row >= 0
    steps = int(panel.open.sum())
    gaps = steps - int((there & panel.open).sum())
    if panel.time_index.kind == "irregular" or gaps <= _SPARSE * steps:
        return ""
    own = _suggested(panel, there)
    way = (
        f"freq={own} is what the stamps suggest"
        if own
        else "give the freq= that the stamps have ('irregular' for none)"
    )
    return (
        f"{100 * gaps / steps:.0f} % of the steps of freq={brief(panel.time_index.freq)} have no "
        f"row and count as missing: {way}"
    )


def _suggested(panel: Panel, there: np.ndarray) -> str:
    """The frequency of the rows themselves; empty where they have none."""
    kept, time_index = panel.keep(there), panel.time_index
    stamps = time_index.stamps(kept.t)
    if time_index.tz is not None:
        stamps = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(time_index.tz)
    try:
        found = TimeIndex.of(stamps, kept.offsets).freq
    except TimeError:
        return ""
    return "" if found == time_index.freq else brief(found)


def _most(panel: Panel) -> int:
    return max(LONGEST, int(panel.lengths.max()))


def _frequency(panel: Panel, freq: Any) -> Frequency | None:
    name = plain_freq(freq) if panel.time_index.kind == "integer" else panel.time_index.freq
    known = isinstance(name, str) and panel.time_index.kind != "irregular"
    return Frequency.parse(name) if known else None


def _frequency_season(panel: Panel, freq: Any) -> int:
    frequency = _frequency(panel, freq)
    return 1 if frequency is None else frequency.season
