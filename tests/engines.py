"""Every engine behind a forecaster, small enough to be fitted in a test, and data for them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from trained import shared

from seqlatent import zoo
from seqlatent.amortised import Adaptation, Curriculum, Network, Rehearsal, Seasons
from seqlatent.amortised.latents import LatentNetwork
from seqlatent.forecasting import Amortised, Forecaster, Recurrent, Spec
from seqlatent.forecasting.engines.latent.recipes import (
    deep_markov,
    deep_state,
    latent_ode,
    srnn,
    structural,
    vrnn,
)
from seqlatent.forecasting.engines.latent.training import WindowTraining
from seqlatent.objectives import evidence

SEASON = 4


def _sloped(data_summary):
    return [zoo.structural(trend=True)]


def _sixteen(data_summary):
    return 16


def own(context=None):
    """A spec that is no recipe: a level and a slope, inferred exactly."""
    return Spec(
        "own",
        _sloped,
        WindowTraining(evidence, 3, _sixteen, learning_rate=0.05),
        scaling="level",
        calendar=False,
        context=context,
        dtype=torch.float64,
    )


def amortised(rehearsal: Rehearsal | None = None) -> Amortised:
    """Networks without any training, adapted by a few steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(width=16, depth=1, head_width=8, head_depth=1, factors=2)
        latents = LatentNetwork(width=16, depth=1, head_width=16, head_depth=1)
    how = Adaptation(steps=3, lr=0.1, batch=16, drawn=8)
    return Amortised(
        adapt=how, horizon=3, networks=[network], rehearsal=rehearsal, latents=[latents]
    )


def rehearsed() -> Amortised:
    """The same beside series that are kept, of a prior that is not at hand any more."""
    generator = torch.Generator().manual_seed(0)
    kept = Rehearsal.of(Curriculum(horizon=3), Seasons(SEASON), generator, series=256)
    return amortised(kept)


ENGINES = {
    "structural": lambda: structural(["damped", "log level"], draws=2, criterion="equal"),
    "short_structural": lambda: structural(["damped"], draws=1, criterion="equal", rows=16),
    "bayes": lambda: structural(["damped"], draws=2, criterion="equal", bayes=True),
    "deep_state": lambda: deep_state(steps=3, hidden_dim=4),
    "srnn": lambda: srnn(members=1, steps=3, hidden_dim=8),
    "srnn_latent": lambda: srnn(members=1, steps=3, latent_dim=2, hidden_dim=8),
    "ensemble": lambda: srnn(members=3, steps=3, hidden_dim=8),
    "vrnn": lambda: vrnn(members=1, steps=3, latent_dim=2, hidden_dim=8),
    "deep_markov": lambda: deep_markov(members=1, steps=3, latent_dim=2, hidden_dim=8),
    "latent_ode": lambda: latent_ode(steps=3, latent_dim=2, hidden_dim=8),
    "short_srnn": lambda: replace(srnn(members=1, steps=3, hidden_dim=8), context=12),
    "own": own,
    "short_own": lambda: own(context=12),
    "amortised": amortised,
    "rehearsed": rehearsed,
    "recurrent": lambda: Recurrent(members=2, steps=3, horizon=3),
    "naive": lambda: "naive",
    "seasonal_naive": lambda: "seasonal_naive",
    "ets": lambda: "ets",
    "theta": lambda: "theta",
    "sarimax": lambda: "sarimax",
}
"""Models by a name of their own: every recipe, recipes in other settings, specs, baselines."""

BASELINES = ("naive", "seasonal_naive", "ets", "theta", "sarimax")
EXACT = (
    "structural",
    "short_structural",
    "bayes",
    "deep_state",
    "own",
    "short_own",
    "amortised",
    "rehearsed",
    "recurrent",
    *BASELINES,
)
"""Engines whose forecasts are known in closed form, in double precision."""


def panel(rows=40, *, series=3, seed=0, prefix="s"):
    """Positive daily series with a trend, a season and noise, some longer than others."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(series):
        n = rows + 3 * i
        t = np.arange(n)
        y = (10.0**i) * (5 + 0.4 * t + np.sin(2 * np.pi * t / SEASON) + rng.normal(0, 0.3, n))
        ds = pd.date_range("2024-01-01", periods=n, freq="D")
        frames.append(pd.DataFrame({"unique_id": f"{prefix}{i}", "ds": ds, "y": y}))
    return pd.concat(frames, ignore_index=True)


def rows_of(df):
    """Number of each row within its series."""
    return df.groupby("unique_id").cumcount().to_numpy()


@cache
def fitted(name, rows=28):
    """A forecaster that has seen the first rows of the panel; not to be moved: see ``copied``."""

    def fit():
        df = panel()
        return Forecaster(ENGINES[name](), season_length=SEASON).fit(df[rows_of(df) < rows])

    return shared(f"engines-{name}-{rows}", fit)


def copied(name, rows=28):
    """The same, to be updated at will."""
    model = Forecaster.__new__(Forecaster)
    model.__dict__ |= fitted(name, rows).__dict__
    # notes of series that come later are of the copy alone
    model._fitted = replace(model._fitted, engines=model._fitted.observers())
    model._observers = {}
    return model


def alias(name):
    """Name of the columns of an engine."""
    return fitted(name).aliases[0]
