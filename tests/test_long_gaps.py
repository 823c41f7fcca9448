"""A gap of any length is bounded work for a latent ODE, and its forecasts stay sensible."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.transitions.ode import BoundedField


def frame(rows, gap):
    """A wave with a gap of so many usual steps before its last five rows."""
    t = np.arange(rows, dtype=np.int64)
    t[-5:] += gap - 1
    ds = pd.Timestamp("1990-01-01") + pd.to_timedelta(t * 3600, unit="s")
    return pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.sin(np.arange(rows) / 4)})


@pytest.mark.parametrize("where", ["fit", "update"])
def test_a_latent_ode_over_gaps_of_all_lengths(where, monkeypatch):
    counted = {"calls": 0, "states": 0}
    forward = BoundedField.forward

    def count(self, x):
        counted["calls"] += 1
        counted["states"] += x[..., 0].numel()
        return forward(self, x)

    monkeypatch.setattr(BoundedField, "forward", count)
    spec = spec_of("latent_ode", steps=2, hidden_dim=8, batch_size=8)
    work = {}
    for gap in (1, 100, 200_000):
        df = frame(40, gap)
        cut = 40 if where == "fit" else 34
        counted.update(calls=0, states=0)
        model = Forecaster(spec, freq="irregular").fit(df[:cut])
        for k in range(cut, 40, 3):
            model.update(df[k : k + 3])
        found = model.predict(3)
        work[gap] = dict(counted)
        numbers = found.iloc[:, 2:].to_numpy()
        assert np.isfinite(numbers).all()
        assert np.abs(numbers).max() < 20
    # so many more evaluations as the longest gap has steps, however long it is
    walks = work[200_000]["calls"] / work[1]["calls"]
    assert walks < 256
    assert work[200_000]["calls"] < 4 * work[100]["calls"]
    assert work[200_000]["states"] < 4 * work[100]["states"]
