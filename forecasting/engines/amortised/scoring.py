"""One-step scores of every row, from the rows before it alone."""

from collections.abc import Iterator

import numpy as np
import torch

from seqlatent.forecasting.engines.amortised.covariates import Covariates
from seqlatent.forecasting.engines.amortised.predictor import Predictor
from seqlatent.forecasting.engines.amortised.windows import cut, cut_covariates, last_seen
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["uniform"]

_ROWS = 4096  # rows whose windows are held at a time


def scores(predictor: Predictor, panel: Panel, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log scores ``(R,)`` and probability integral transforms ``(R, D)``.

    Rows without a value, and those before which their series has none, are NaN.

    Args:
        predictor: The networks.
        panel: The rows.
        seed: Seed of what is drawn where values have a probability of their own.
    """
    log_prob, pit = np.full_like(panel.y, np.nan), np.full_like(panel.y, np.nan)
    unit = uniform(panel, seed)
    predictor = predictor.of(panel.y.size)
    reads = predictor.reads_covariates
    some = max(1, _ROWS // (1 + panel.future.shape[1] * reads))
    for d in range(panel.y.shape[1]):
        for rows, end in _known(panel, d, some):
            y = torch.from_numpy(panel.y[rows, d])[:, None]
            width = min(predictor.length, int(panel.lengths.max()))
            windows = cut(panel, panel.y[:, d], end, width)
            covariates = None
            if reads:
                past = cut_covariates(panel, end, windows)
                covariates = Covariates(past, panel.future[rows, None])
            leads, target = (rows - end)[:, None], np.full(len(rows), d)
            found = predictor.forecast(windows, leads, target, covariates)
            less, up_to = (x[:, 0].numpy() for x in found.marginals.distribution(y))
            log_prob[rows, d] = found.marginals.log_prob(y)[:, 0].numpy()
            pit[rows, d] = np.clip(less + unit[rows, d] * (up_to - less), 0.0, 1.0)
    unknown = np.isnan(log_prob).all(1)
    return np.where(unknown, np.nan, np.nansum(log_prob, 1)), pit


def _known(panel: Panel, d: int, some: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows with a value, and the row of the value before each, some at a time."""
    before = np.concatenate([[-1], last_seen(panel, d)[:-1]])
    inside = before >= panel.offsets[panel.owner]
    rows = np.flatnonzero(inside & ~np.isnan(panel.y[:, d]))
    for part in np.split(rows, range(some, len(rows), some)):
        if len(part):
            yield part, before[part]


def uniform(panel: Panel, seed: int) -> np.ndarray:
    """Uniform numbers ``(R, D)``, which are the same whatever rows and series come later."""
    targets = panel.y.shape[1]
    return np.concatenate(
        [
            np.random.default_rng([seed, i]).uniform(size=(int(n), targets))
            for i, n in enumerate(panel.lengths)
        ]
    )
