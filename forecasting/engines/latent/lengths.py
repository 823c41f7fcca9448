"""Lengths: rows that models of the zoo read back, are trained on, and are trained to forecast."""

from seqlatent.forecasting.engines.spec import DataSummary

__all__ = []


def season_lags(data_summary: DataSummary) -> tuple[int, ...]:
    """Rows that an autoregressive memory reads: the last ones, and those around each season.

    For hourly data 1 to 7, and around each multiple of 24 up to a week.
    """
    season = data_summary.season
    most = max(data_summary.rows // 2, 1)
    lags = set(range(1, 8))
    if season > 1:
        week = max((s for s in data_summary.season_lengths if s <= 400), default=season)
        last = week if week > season else season * max(1, min(7, 168 // season))
        for k in range(season, last + 1, season):
            lags |= {k - 1, k, k + 1}
    return tuple(sorted(lag for lag in lags if 1 <= lag <= most)) or (1,)


def window_rows(data_summary: DataSummary) -> int:
    """Rows of a training window: a few seasons, and what the lags look back to."""
    season = data_summary.season
    return int(min(max(data_summary.rows, 16), max(9 * season, 64), 256))


def lag_rows(data_summary: DataSummary) -> int:
    """Rows before a forecast that a memory with seasonal lags reads in training."""
    rows = max(season_lags(data_summary)) + rows_ahead(data_summary)
    return int(min(rows, max(data_summary.rows - rows_ahead(data_summary), 8)))


def lag_rows_and_ahead(data_summary: DataSummary) -> int:
    """Rows of a window of likelihoods: what lags look back to, and as much as is forecast later."""
    return lag_rows(data_summary) + rows_ahead(data_summary)


def lag_rows_twice(data_summary: DataSummary) -> int:
    """Rows before a forecast that a memory with seasonal lags reads after training."""
    return max(2 * lag_rows(data_summary), 128)


def rows_ahead(data_summary: DataSummary) -> int:
    """Rows ahead that models are trained to forecast: two seasons, a third of a short series."""
    return int(min(max(24, 2 * data_summary.season), max(data_summary.rows // 3, 4), 48))


def rows_known(data_summary: DataSummary) -> int:
    """Rows before a forecast that are read, in training and after it: six seasons."""
    return int(min(max(data_summary.rows, 16), max(6 * data_summary.season, 128), 256))


def rows_of_flow(data_summary: DataSummary) -> int:
    """Rows of a window of a flow from a random start, which cannot follow a longer series."""
    return min(max(data_summary.rows, 8), 64)
