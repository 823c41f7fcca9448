"""Engines of a stranger: what three methods make, and what a state of its own adds."""

from dataclasses import dataclass

import numpy as np

from seqlatent.forecasting.engines.engine import Engine


class Walk(Engine):
    """Random walks whose steps are those that were seen, of each series; three methods."""

    def __init__(self, floor=0.0):
        self.floor = floor

    def fit(self, panel, fit_options):
        self.steps, self.first = {}, fit_options.seed
        for i, name in enumerate(panel.ids.tolist()):
            steps = np.diff(_filled(panel.y[panel.series(i)]), axis=0)
            self.steps[name] = steps - steps.mean(0) if len(steps) else np.zeros((1, 1))

    def start(self, panel, seed):
        last = [_filled(panel.y[panel.series(i)])[-1] for i in range(panel.batch)]
        pool = np.concatenate(list(self.steps.values()))
        return last, [self.steps.get(name, pool) for name in panel.ids.tolist()]

    def paths(self, state, future, n, seed):
        drawn = []
        for last, steps in zip(*state, strict=True):
            rng = np.random.default_rng(seed)
            place = rng.integers(len(steps), size=(n, future.horizon))
            drawn.append(last + self.floor + steps[place].cumsum(1))
        return np.stack(drawn, 1)


def _filled(y):
    y = y.copy()
    for t in range(1, len(y)):
        y[t] = np.where(np.isnan(y[t]), y[t - 1], y[t])
    return np.nan_to_num(y)


@dataclass
class Level:
    mean: np.ndarray
    seen: tuple
    rate: float


class Smoothed(Engine):
    """Exponential smoothing with a state of arrays, and an update that costs no more than a row."""

    alias = "smoothed"

    def fit(self, panel, fit_options):
        self.scale = np.nanstd(np.diff(panel.y, axis=0), axis=0)

    def start(self, panel, seed):
        blank = np.zeros((panel.batch, panel.y.shape[1]))
        return self.update(Level(blank, (np.zeros(panel.batch),), 0.5), panel, seed)

    def update(self, state, panel, seed):
        mean, count = state.mean.copy(), state.seen[0].copy()
        for i in range(panel.batch):
            for y in panel.y[panel.series(i)]:
                rate = np.where(count[i] > 0, state.rate, 1.0)
                mean[i] = np.where(np.isnan(y), mean[i], mean[i] + rate * (y - mean[i]))
                count[i] += not np.isnan(y).all()
        return Level(mean, (count,), state.rate)

    def paths(self, state, future, n, seed):
        shape = (n, len(state.mean), future.horizon, len(self.scale))
        noise = np.random.default_rng(seed).normal(0, 1, (n, 1, *shape[2:]))
        return state.mean[:, None] + np.broadcast_to(noise, shape) * self.scale
