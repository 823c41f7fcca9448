"""Rows that arrive one by one: a forecast after each, at a cost that the past does not change.

Run it with ``python examples/streaming.py``. The model is fitted once, on the first years of two
monthly series; every later month is an update of its belief. Half way the service is restarted
from a folder, and at the end the belief is the one that all rows at once would have given.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from seqlatent.datasets import elec_equip, elnino
from seqlatent.forecasting import Forecaster


def main() -> None:
    """Fits, then follows the stream."""
    df = pd.concat([elnino(), elec_equip()], ignore_index=True)
    left = 36 if os.environ.get("SEQLATENT_FAST") else 120
    late = df.groupby("unique_id").cumcount(ascending=False) < left

    with TemporaryDirectory() as folder:
        morning, noon = Path(folder) / "morning", Path(folder) / "noon"
        model = Forecaster("structural").fit(df[~late])
        model.save(morning)

        stream = df[late].assign(number=lambda d: d.groupby("unique_id").cumcount())
        seconds, found = [], []
        for number, rows in stream.groupby("number"):
            found.append(model.predict(1).merge(rows, on=["unique_id", "ds"]))
            if number == left // 2:
                model.save(noon)
                model = Forecaster.load(noon)
            began = time.perf_counter()
            model.update(rows.drop(columns="number"))
            seconds.append(time.perf_counter() - began)
        at_once = Forecaster.load(morning).update(df[late]).predict(12)

    first, last = (1000 * np.median(s) for s in (seconds[: left // 3], seconds[-left // 3 :]))
    print(f"an update took {first:.0f} ms in the first third, {last:.0f} ms in the last")
    cells = pd.concat(found)
    inside = cells["y"].between(cells["structural-lo-80"], cells["structural-hi-80"]).mean()
    print(f"80 % intervals held {inside:.0%} of {len(cells)} values, each a month ahead")
    streamed = model.predict(12)
    for column in ("structural", "structural-lo-80", "structural-hi-80"):
        np.testing.assert_allclose(streamed[column], at_once[column], rtol=1e-6)
    print(f"after {left} updates the forecast is that of all rows at once")
    assert 0.6 < inside < 0.97
    assert last < 3 * first + 5.0


if __name__ == "__main__":
    main()
