"""Panels for the baselines, and baselines fitted on them."""

import numpy as np

from seqlatent.forecasting.engines.amortised import windows
from seqlatent.forecasting.engines.baselines import SARIMAX
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.time.index import TimeIndex

SEASON = FitOptions(season_lengths=(4,))
LEVELS = (0.1, 0.5, 0.9)


def make_panel(series, *, u=None, ids=None, start=0.0, kind="integer", t=None):
    lengths = np.array([len(y) for y in series])
    rows, n = lengths.sum(), len(series)
    y = np.concatenate([np.asarray(s, float).reshape(len(s), -1) for s in series])
    return Panel(
        ids=np.array(ids or [f"s{i}" for i in range(n)], dtype=object),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        t=np.concatenate([start + np.arange(n, dtype=float) for n in lengths]) if t is None else t,
        y=y,
        future=np.zeros((rows, 0)) if u is None else u,
        past=np.zeros((rows, 0)),
        real=np.zeros((n, 0)),
        codes=np.zeros((n, 0), np.int64),
        row=np.arange(rows),
        time_index=TimeIndex(kind, 1 if kind == "integer" else "irregular", 0, unit=""),
    )


def ahead(panel, h, u=None):
    t = panel.last[:, None] + 1 + np.arange(h)
    return Future(t, np.zeros((panel.batch, h, 0)) if u is None else u)


def waves(lengths=(40, 33, 52), season=4, seed=0):
    """Positive series with level, trend and season."""
    rng = np.random.default_rng(seed)
    found = []
    for n in lengths:
        t = np.arange(n)
        noise = np.cumsum(rng.standard_normal(n)) * 0.3 + 0.2 * rng.standard_normal(n)
        found.append(30 + 0.1 * t + 4 * np.sin(2 * np.pi * t / season) + noise)
    return found


def holes(series, seed=1):
    rng = np.random.default_rng(seed)
    return [np.where(rng.random(len(y)) < 0.15, np.nan, y) for y in series]


def fitted(kind, panel, fit_options=SEASON, **options):
    """A fitted engine; without options, SARIMAX of the airline's order, for speed."""
    if kind is SARIMAX and not options and fit_options.season_lengths:
        options = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1)}
    engine = kind(**options)
    engine.fit(panel, fit_options)
    return engine


def followed_in_parts(rows, cuts, length, covariates=False):
    """Windows after rows that come in parts, cut at numbers of rows; a part may lack a series."""
    nth = np.arange(rows.rows) - rows.offsets[rows.owner]
    state = windows.state_of(rows.keep(nth < cuts[0]), length, covariates)
    for begin, end in zip(cuts, (*cuts[1:], 99), strict=True):
        later = (nth >= begin) & (nth < end)
        more = np.unique(rows.owner[later])
        some = rows.select(more).keep(later[np.isin(rows.owner, more)])
        moved = windows.followed({k: x[more] for k, x in state.items()}, some, length)
        rest = np.setdiff1d(np.arange(rows.batch), more)
        both = windows.join([{k: x[rest] for k, x in state.items()}, moved])
        back = np.argsort(np.concatenate([rest, more]))
        state = {k: x[back] for k, x in both.items()}
    return state
