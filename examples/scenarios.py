"""What a quarter will sum to, and how high it will peak: questions for paths, not for intervals.

Run it with ``python examples/scenarios.py``. The errors of a forecast hang together from step to
step. Intervals of single steps do not say how; adding them up, or treating the steps as
independent, gives wrong intervals for a sum. Paths give right ones, and those of the maximum too.
"""

import os

import numpy as np
import pandas as pd

from seqlatent.forecasting import Forecaster

LENGTH, HORIZON, LEVEL = 120, 13, 80


def demand(series: int, seed: int = 0) -> pd.DataFrame:
    """Makes weekly demand, a level that drifts under noise."""
    rng = np.random.default_rng(seed)
    steps = LENGTH + HORIZON
    level = 100 + rng.normal(0, 1, (series, steps)).cumsum(1)
    y = level + rng.normal(0, 3, (series, steps))
    ds = pd.date_range("2023-01-02", periods=steps, freq="W-MON")
    names = [f"item {i}" for i in range(series)]
    rows = {"unique_id": np.repeat(names, steps), "ds": np.tile(ds, series), "y": y.ravel()}
    return pd.DataFrame(rows)


def held(truth: pd.Series, low: pd.Series, high: pd.Series) -> float:
    """Share of the items whose interval holds the truth, in percent."""
    return 100 * truth.between(low.reindex(truth.index), high.reindex(truth.index)).mean()


def main() -> None:
    """Forecasts all items, and asks for the sum and the maximum of the quarter."""
    df = demand(60 if os.environ.get("SEQLATENT_FAST") else 300)
    ahead = df.groupby("unique_id").cumcount() >= LENGTH
    truth = df[ahead].groupby("unique_id")["y"].agg(["sum", "max"])
    model = Forecaster("structural", season_length=1).fit(df[~ahead])

    paths = model.sample(HORIZON, n=500)
    steps = model.predict(HORIZON, level=[LEVEL])
    alone = (
        paths.copy()
    )  # the same distributions of single steps, shuffled: no step knows of another
    rng = np.random.default_rng(0)
    values = paths["structural"].to_numpy().reshape(len(truth), -1, HORIZON)
    alone["structural"] = rng.permuted(values, axis=1).ravel()

    tail = (100 - LEVEL) / 200
    table = {}
    for name, drawn in (("joint paths", paths), ("independent steps", alone)):
        per_path = drawn.groupby(["unique_id", "sample_id"])["structural"].agg(["sum", "max"])
        low, high = (per_path.groupby("unique_id").quantile(q) for q in (tail, 1 - tail))
        table[name] = {k: held(truth[k], low[k], high[k]) for k in ("sum", "max")}
    bounds = steps.groupby("unique_id")[[f"structural-lo-{LEVEL}", f"structural-hi-{LEVEL}"]]
    table["bounds of the steps"] = {
        k: held(truth[k], *(bounds.agg(k)[name] for name in bounds.agg(k))) for k in ("sum", "max")
    }
    print(f"share of {len(truth)} items inside the {LEVEL} % interval of the next {HORIZON} weeks")
    print(pd.DataFrame(table).T.round(0).to_string())

    risk = (paths.groupby(["unique_id", "sample_id"])["structural"].max() > 130).groupby(level=0)
    print(f"weeks above 130 are likeliest for {risk.mean().idxmax()}: {risk.mean().max():.0%}")
    for k in ("sum", "max"):
        assert abs(table["joint paths"][k] - LEVEL) < 15, "paths must hold what they promise"
    assert table["independent steps"]["sum"] < table["joint paths"]["sum"] - 15
    assert table["bounds of the steps"]["sum"] > table["joint paths"]["sum"]


if __name__ == "__main__":
    main()
