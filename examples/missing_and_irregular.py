"""Missing cells, missing rows, and stamps without a grid: all stay as they are.

Run it with ``python examples/missing_and_irregular.py``. From carbon dioxide on Mauna Loa some
months are deleted, others set to NaN; draws given all that is left fill them, with bands that are
honest about what is not known. Then a network forecasts waves that were measured at odd times.
"""

import argparse
import os

import numpy as np
import pandas as pd

from seqlatent.datasets import co2
from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.metrics import scores
from seqlatent.forecasting.plots import spaghetti

FAST = bool(os.environ.get("SEQLATENT_FAST"))


def holes(out: str) -> None:
    """Hides months, draws them, and looks whether the bands hold the truth."""
    whole = co2().set_index("ds")["y"].resample("MS").mean().iloc[-144:]
    df = whole.reset_index().assign(unique_id="co2")
    rng = np.random.default_rng(0)
    gap = np.arange(70, 90)  # rows that do not exist at all
    cells = rng.choice(np.arange(10, 60), 12, replace=False)  # rows whose value is missing
    left = df.assign(y=df["y"].where(~df.index.isin(cells))).drop(index=gap)

    model = Forecaster("structural").fit(left)
    drawn = model.impute(left, n=200)
    truth = df.set_index("ds")["y"].iloc[np.sort(np.concatenate([cells, gap]))]
    low, middle, high = (drawn.groupby("ds")["y"].quantile(q) for q in (0.1, 0.5, 0.9))
    inside = truth.between(low, high).mean()
    error = (middle - truth).abs().mean()
    line = left.set_index("ds")["y"].reindex(whole.index).interpolate()
    straight = (line[truth.index] - truth).abs().mean()
    print(f"80 % bands hold {inside:.0%} of {len(truth)} hidden months")
    print(f"mean error {error:.2f} ppm; a straight line over the gap has {straight:.2f}")
    ax = spaghetti(left, drawn)
    ax.plot(truth.index, truth, "o", mfc="white", mec="black", ms=4, zorder=9)
    ax.figure.savefig(out, dpi=120)
    print(f"wrote {out}")
    assert len(truth) == 32
    assert inside > 0.6
    assert error < straight / 2


def waves(series: int = 40, rows: int = 60) -> pd.DataFrame:
    """Makes waves of one period and many phases, measured at random times."""
    rng = np.random.default_rng(0)
    hours = rng.lognormal(-0.2, 0.7, (series, rows)).cumsum(1)
    phase, size = rng.uniform(0, 2 * np.pi, (series, 1)), rng.uniform(1, 2, (series, 1))
    y = size * np.sin(2 * np.pi * hours / 10 + phase) + rng.normal(0, 0.1, hours.shape)
    ds = pd.Timestamp("2024-01-01") + pd.to_timedelta((3600 * hours).round().ravel(), unit="s")
    ids = np.repeat([f"buoy {i}" for i in range(series)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": ds, "y": y.ravel()})


def odd_times(ahead: int = 10) -> None:
    """Forecasts at given stamps that lie on no grid."""
    df = waves()
    late = df.groupby("unique_id").cumcount(ascending=False) < ahead
    network = spec_of("srnn", members=1, steps=200 if FAST else 1000, hidden_dim=32)
    model = Forecaster([network, "naive"], freq="irregular").fit(df[~late])
    found = model.predict(ahead, X_df=df[late][["unique_id", "ds"]])
    table = scores(df[late], found).set_index("metric")
    print(table.round(3).to_string())
    assert table.loc["mae", "srnn"] < table.loc["mae", "naive"] / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="imputed.png", help="picture to write")
    holes(parser.parse_args().out)
    odd_times()
