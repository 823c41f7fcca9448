"""How fast are structural models fitted to many series, beside statsmodels, and how well?

The monthly series of the M3 competition, training part, each with variances of its own: linear
trend, pattern of twelve months, noise. statsmodels fits some of them, spread over the panel, by its
default method; ours fits all at once, and what it takes for one is its time over their number.

The parameters of both are judged by statsmodels' likelihood of the same series: with its default,
a first variance of 1e6 and as many steps left out as there are states, and with an exactly diffuse
first state. Series come in units of their usual seasonal difference, in which 1e6 is a large
variance: in the units of the data it is not, and the two likelihoods differ.

    SEQLATENT_DATA=../shared/data python benchmarks/exact_fits.py [--series 30]

Without the data the series are simulated.
"""

import argparse
import math
import time
import warnings
from typing import Any

import numpy as np
import torch
from statsmodels.tsa.statespace.structural import UnobservedComponents
from stopwatch import machine
from torch import Tensor

from seqlatent.datasets import split
from seqlatent.emissions import LinearGaussian
from seqlatent.forecasting.features.units import standards
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, per_series
from seqlatent.sequences import Sequences
from seqlatent.training import fit_each
from seqlatent.transitions import LocalLinearTrend, Seasonal, Sum

SEASON = 12
ENOUGH = 1e-2  # difference of log likelihoods that does not matter


def fit_ours(panel: list[np.ndarray]) -> np.ndarray:
    """Variances of noise, level, slope and season of each series ``(B, 4)``, in units of the data.

    The only place that says how we fit.
    """
    y = padded(panel)
    shift, scale = standards(y, SEASON)
    codes = torch.arange(len(panel))[:, None]
    data = Sequences.of(y[..., None], codes=codes, shift=shift, scale=scale)
    trend = LocalLinearTrend(0.3, 0.03, initial_scale=math.inf, initial_slope_scale=math.inf)
    transition = Sum([trend, Seasonal(SEASON, 0.03, initial_scale=math.inf)])
    emission = LinearGaussian(
        transition.latent_dim, loading=transition.loading, bias=False, scale=0.4
    )
    model = per_series(LatentModel(transition, emission, Kalman()).double(), len(panel))
    trend, season = model.transition.components
    emission = model.emission
    noises = [emission.noise.log_scale, trend.log_level_scale, trend.log_slope_scale]
    noises.append(season.log_scale)
    fit_each(model, data, pooled=False, points=32, tolerance=2e-3, rounds=40)
    logs = torch.cat([p.detach()[: len(panel)] for p in noises], 1)
    return ((2 * logs).exp() * scale.square()).numpy()


def model_of(y: np.ndarray, exact: bool) -> UnobservedComponents:
    """The model of statsmodels."""
    return UnobservedComponents(y, level="lltrend", seasonal=SEASON, use_exact_diffuse=exact)


def fit_theirs(y: np.ndarray, exact: bool) -> tuple[np.ndarray, float]:
    """Variances in the same order, and seconds."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model_of(y, exact).fit(disp=0)
    return np.asarray(found.params), time.process_time() - start


def load(count: int | None, steps: int) -> tuple[list[np.ndarray], str]:
    """The panel in units in which a variance of 1e6 is large, and what it is."""
    try:
        frame, _ = split("m3_monthly", download=False)
    except FileNotFoundError:
        rng = np.random.default_rng(0)
        size = count or 100, steps
        walk = rng.normal(size=size).cumsum(1) + rng.normal(size=size)
        season = 3 * np.sin(2 * np.pi * np.arange(steps) / SEASON)
        return list(walk + season), "simulated random walks with a season"
    panel = [y.to_numpy(np.float64) for _, y in frame.groupby("unique_id", sort=False)["y"]]
    if count is not None:
        panel = panel[:: max(len(panel) // count, 1)][:count]
    shift, scale = (x.numpy() for x in standards(padded(panel), SEASON))
    found = [(y - m) / s for y, m, s in zip(panel, shift, scale, strict=True)]
    return found, "monthly series of M3"


def padded(panel: list[np.ndarray]) -> Tensor:
    """The series as rows ``(B, T)`` of a tensor, with NaN after their ends."""
    longest = max(len(y) for y in panel)
    rows = [np.pad(y, (0, longest - len(y)), constant_values=np.nan) for y in panel]
    return torch.as_tensor(np.stack(rows))


def report(panel: list[np.ndarray], what: str, chosen: np.ndarray) -> list[str]:
    """The table of times, and the shares of series that are fitted as well as by statsmodels."""
    fit_ours(panel[:20])  # modules are imported and memory is there for both
    start = time.process_time()
    ours = fit_ours(panel)
    each = (time.process_time() - start) / len(panel)
    rows, judges = [], [[model_of(panel[b], exact) for b in chosen] for exact in (False, True)]
    for exact, name in ((False, "its default"), (True, "exactly diffuse")):
        theirs, seconds = zip(*(fit_theirs(panel[b], exact) for b in chosen), strict=True)
        mean = float(np.mean(seconds))
        cells = [f"{1e3 * mean:,.1f}", f"{mean / each:.3g}"]
        for models in judges:
            pairs = zip(models, chosen, theirs, strict=True)
            gains = np.array([m.loglike(ours[b]) - m.loglike(found) for m, b, found in pairs])
            cells.append(f"{np.mean(gains >= -ENOUGH):.0%}, worst {gains.min():+.1g}")
        rows.append(f"| statsmodels, {name} | " + " | ".join(cells) + " |")
    return [
        f"### Fitting {len(panel):,} series",
        "",
        f"Linear trend, season of {SEASON} and noise, four variances of each series: "
        f"{len(panel):,} {what}, in units of their usual seasonal difference. statsmodels fits "
        f"{len(chosen)} of them, spread over the panel. The last columns: for how many of these "
        f"ours has a log likelihood at most {ENOUGH} below that of statsmodels, by the two "
        "likelihoods of statsmodels, and the worst difference.",
        "",
        "| | ms a series | times as long as ours | as good, by its default likelihood "
        "| as good, by the exactly diffuse one |",
        "|---|---|---|---|---|",
        f"| ours, all at once | {1e3 * each:,.1f} | 1 | | |",
        *rows,
    ]


def main(arguments: Any = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--series", type=int, default=30, help="series that statsmodels fits")
    parser.add_argument("--panel", type=int, default=None, help="series that we fit; all of them")
    parser.add_argument("--steps", type=int, default=120, help="steps where data are simulated")
    parser.add_argument("--about", action="store_true", help="also print the machine")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    panel, what = load(options.panel, options.steps)
    chosen = np.linspace(0, len(panel) - 1, min(options.series, len(panel))).round().astype(int)
    if options.about:
        print(machine(), "\n")
    print("\n".join(report(panel, what, chosen)))


if __name__ == "__main__":
    main()
