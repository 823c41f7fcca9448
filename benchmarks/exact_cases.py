"""The models and the data that ``exact.py`` measures on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers.turns import Arrays, matrices

PRIOR = 1e6
USUAL = (0.1, 0.01, 0.01, 1.0)  # variances of level, slope, season and noise
SMALL = (1e-3, 1e-3, 1e-3, 1.0)


@dataclass(frozen=True)
class Case:
    """What is measured in a row or two of the table.

    Args:
        name: Its words in the table.
        model: Its arrays without the data.
        steps: Steps ``T``.
        series: Series ``B``.
        missing: Share of values that are missing, in each series others.
        limits: Most series on which a contestant is measured, without and with gradient; 0 where it
            cannot do this.
    """

    name: str
    model: Arrays
    steps: int
    series: int
    missing: float = 0.0
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Draws the data, from a first state of unit variance, and writes the problem."""
        rng = np.random.default_rng(0)
        m = matrices(self.model, np)
        size, width = len(m["F"]), len(m["H"])
        factor = np.linalg.cholesky(m["Q"] + 1e-14 * np.eye(size))
        noise = np.linalg.cholesky(m["R"])
        z, y = rng.normal(size=(self.series, size)), []
        for t in range(self.steps):
            if t:
                w = rng.normal(size=(self.series, size, 1))
                z = z @ m["F"].T + (factor @ w)[..., 0]
            v = rng.normal(size=(self.series, width, 1))
            y.append(z @ m["H"].T + (noise @ v)[..., 0])
        y = np.stack(y, 1)
        observed = rng.uniform(size=y.shape) >= self.missing
        free = [k for k in ("log_variances", "Q_factor", "R_factor") if k in self.model]
        free += ["F", "H"] if "Q_factor" in self.model else []
        np.savez(path, y=y, observed=observed, free=np.array(free), **self.model)


def structural(season: int, variances: Iterable[float], own: int = 0) -> Arrays:
    """Linear trend and, where there is a season, a pattern of so many steps; 0 for a local level.

    With ``own`` series each has variances of its own, within a factor of about three.
    """
    size = season + 1 if season else 1
    F, H, select = np.zeros((size, size)), np.zeros((1, size)), np.zeros((size, 3 if season else 1))
    F[0, 0] = H[0, 0] = select[0, 0] = 1.0
    if season:
        F[:2, :2] = [[1, 1], [0, 1]]
        F[2, 2:] = -1.0
        F[3:, 2:-1] = np.eye(season - 2)
        H[0, 2] = select[1, 1] = select[2, 2] = 1.0
    theta = np.log(np.array(list(variances)))
    if own:
        theta = theta + 0.5 * np.random.default_rng(1).normal(size=(own, len(theta)))
    return {"F": F, "H": H, "select": select, "log_variances": theta, "P0": PRIOR * np.eye(size)}


def dense(size: int = 4, width: int = 2) -> Arrays:
    """A random stable model with full covariances."""
    rng = np.random.default_rng(2)
    F = rng.normal(size=(size, size))
    F *= 0.95 / np.abs(np.linalg.eigvals(F)).max()
    G = np.tril(0.3 * rng.normal(size=(size, size)), -1) + np.eye(size)
    E = np.tril(0.3 * rng.normal(size=(width, width)), -1) + np.eye(width)
    H = rng.normal(size=(width, size))
    return {"F": F, "H": H, "Q_factor": G, "R_factor": E, "P0": PRIOR * np.eye(size)}


def cases(quick: bool) -> list[Case]:
    """The rows of the table; small ones where one only wants to see that they run."""
    season, steps, long = (4, 30, 40) if quick else (24, 1000, 5000)
    sizes = (1, 3) if quick else (1, 32, 256)
    many = sizes[-1]
    limits = {"statsmodels": (many, 16), "Pyro": (8, 8)}
    own = {**limits, "dynamax": (many, 32), "torch-kf": (many, 16)}
    gaps = {
        "statsmodels": (many, 16),
        "dynamax": (0, 0),
        "torch-kf": (0, 0),
        "Pyro": (0, 0),
    }
    wide = {"statsmodels": (many, 2), "Pyro": (32, 16)}
    states, panel = f"{season + 1} states", f"{many} series"
    usual = structural(season, USUAL)
    each = structural(season, USUAL, own=many)
    low = structural(season, SMALL)
    return [
        *(Case(f"{states}, {n} series", usual, steps, n, 0.0, limits) for n in sizes),
        Case(f"{states}, {panel}, small variances", low, steps, many, 0.0, limits),
        Case(f"{states}, {panel}, own variances", each, steps, many, 0.0, own),
        Case(f"{states}, {panel}, 10 % missing", usual, steps, many, 0.1, gaps),
        Case(f"4 dense states, 2 observed, {panel}", dense(), long, many, 0.0, wide),
    ]
