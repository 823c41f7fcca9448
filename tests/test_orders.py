"""The order of rows and series changes no forecast."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.panel import order_of
from seqlatent.forecasting.recipes import deep_state, srnn, structural

SMALL = {
    "structural": lambda: structural(["level", "log drift"], draws=2),
    "deep_state": lambda: deep_state(steps=2, hidden_dim=4),
    "srnn": lambda: srnn(members=1, steps=2, hidden_dim=8),
    "naive": lambda: "naive",
    "ets": lambda: "ets",
}


def frame(series=5, rows=20):
    rng = np.random.default_rng(0)
    parts = []
    for i in range(series):
        n = rows + i
        y = 20 + rng.normal(size=n).cumsum()
        ds = pd.date_range("2024-01-01", periods=n, freq="D")
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y}))
    return pd.concat(parts, ignore_index=True)


def test_the_order_of_identifiers_does_not_depend_on_that_in_which_they_come():
    ids = np.array(["b", 10, "a", 9, True], dtype=object)
    turned = ids[::-1].copy()
    assert ids[order_of(ids)].tolist() == turned[order_of(turned)].tolist()


@pytest.mark.parametrize("name", list(SMALL))
def test_forecasts_of_shuffled_rows_are_the_same_to_the_bit(name):
    df = frame()
    shuffled = df.sample(frac=1, random_state=1)
    one, other = (Forecaster(SMALL[name](), season_length=1).fit(x) for x in (df, shuffled))
    for verb in (lambda m: m.predict(3, level=[80]), lambda m: m.sample(3, 4)):
        a, b = (
            verb(m).sort_values(["unique_id", "ds"], kind="stable").reset_index(drop=True)
            for m in (one, other)
        )
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    a, b = (m.predict(3, df=x) for m, x in ((one, df), (other, shuffled)))
    a, b = (x.sort_values(["unique_id", "ds"]).reset_index(drop=True) for x in (a, b))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    # series come as they first appear
    assert a["unique_id"].iloc[0] == "s0"
    assert other.predict(1)["unique_id"].tolist() == list(dict.fromkeys(shuffled["unique_id"]))
