"""Seasons, how many steps those of a panel have, and what has to be said of them."""

from collections.abc import Sequence
from typing import Any

from seqlatent.forecasting.frequencies import LONGEST, Frequency, plain_freq
from seqlatent.forecasting.panel import Panel

__all__ = ["calendar_notes", "seasons"]


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


def calendar_notes(panel: Panel, given: Sequence[int] | None, freq: Any = None) -> list[str]:
    """What was not done as asked, or as usual: seasons that are too long, rows not read."""
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
    if panel.unread:
        notes.append(
            f"{panel.unread} rows that came second in an hour that the clocks repeat are not read"
        )
    return notes


def _most(panel: Panel) -> int:
    return max(LONGEST, int(panel.lengths.max()))


def _frequency(panel: Panel, freq: Any) -> Frequency | None:
    name = plain_freq(freq) if panel.clock.kind == "integer" else panel.clock.freq
    known = isinstance(name, str) and panel.clock.kind != "irregular"
    return Frequency.parse(name) if known else None


def _frequency_season(panel: Panel, freq: Any) -> int:
    frequency = _frequency(panel, freq)
    return 1 if frequency is None else frequency.season
