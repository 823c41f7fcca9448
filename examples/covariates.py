"""Daily sales of shops: what is known ahead, what is known only up to today, what never changes.

Run it with ``python examples/covariates.py``. Promotions are planned, so the future rows hold them;
visits of the web shop come a day before the sales that they announce, and are known up to today;
the kind of a shop never changes. The same network learns once with all of it and once without.
"""

import argparse
import os
from dataclasses import replace

import numpy as np
import pandas as pd

from seqlatent.forecasting import Columns, Forecaster, spec_of
from seqlatent.forecasting.metrics import scores
from seqlatent.forecasting.plots import fan

DAYS, HORIZON, SHOPS = 400, 14, 12


def sales(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Makes the sales of all shops, and a row of static features for each."""
    rng = np.random.default_rng(seed)
    ds = pd.date_range("2024-01-01", periods=DAYS, freq="D")
    shops, frames = [], []
    for i in range(SHOPS):
        kind = "office" if i % 2 else "suburb"  # sells on working days, or at the weekend
        week = np.where((ds.day_of_week < 5) == (kind == "office"), 1.3, 0.7)
        promo = (rng.random(DAYS) < 0.15).astype(float)
        demand = np.zeros(DAYS)
        for t in range(1, DAYS):
            demand[t] = 0.8 * demand[t - 1] + 0.15 * rng.normal()
        visits = np.append(demand[1:], 0.0) + 0.05 * rng.normal(size=DAYS)  # a day ahead
        level = rng.uniform(50, 200) * week * np.exp(demand + 0.5 * promo)
        y = level * np.exp(0.05 * rng.normal(size=DAYS))
        rows = {"unique_id": f"shop {i}", "ds": ds, "y": y, "promo": promo, "visits": visits}
        frames.append(pd.DataFrame(rows))
        shops.append({"unique_id": f"shop {i}", "kind": kind})
    return pd.concat(frames, ignore_index=True), pd.DataFrame(shops)


def main() -> None:
    """Fits with and without covariates, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="covariates.png", help="picture to write")
    out = parser.parse_args().out
    steps = 200 if os.environ.get("SEQLATENT_FAST") else 1500

    df, shops = sales()
    ahead = df.groupby("unique_id").cumcount() >= DAYS - HORIZON
    past, future = df[~ahead], df[ahead]
    small = spec_of("srnn", members=1, steps=steps, latent_dim=4, hidden_dim=32)

    columns = Columns(past=["visits"])  # every other extra column is known ahead: here promo
    informed = Forecaster(small, season_length=7, columns=columns).fit(past, shops)
    X = future[["unique_id", "ds", "promo"]]
    found = informed.predict(HORIZON, X_df=X)
    planned = informed.predict(HORIZON, X_df=X.assign(promo=1.0))["srnn"]
    never = informed.predict(HORIZON, X_df=X.assign(promo=0.0))["srnn"]
    effect = float((planned / never).median())
    print(f"a promotion multiplies sales by {effect:.2f}; the truth is {np.exp(0.5):.2f}")

    blind = Forecaster(replace(small, name="blind"), season_length=7)
    plain = blind.fit(past[["unique_id", "ds", "y"]]).predict(HORIZON)
    both = found.merge(plain, on=["unique_id", "ds"])
    table = scores(future[["unique_id", "ds", "y"]], both, past, 7).set_index("metric")
    print(table.round(3).to_string())

    ax = fan(past, both, id="shop 1", truth=future, last=42)
    ax.figure.savefig(out, dpi=120)
    print(f"wrote {out}")
    assert effect > 1.2, "the forecasts must follow the plan"
    assert table.loc["mase", "srnn"] < table.loc["mase", "blind"]


if __name__ == "__main__":
    main()
