"""A forecast knows no unit and, where no bound and no logarithm is at work, no zero."""

from functools import cache

import numpy as np
import pytest
from engines import ENGINES, SEASON, panel, rows_of

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.latent.recipes import structural

MODELS = {**ENGINES, "structural": lambda: structural(["damped"], draws=2, criterion="equal")}
"""The same, of which none takes logarithms."""


@cache
def forecast(name, unit=1.0, offset=0.0, *, centred=False):
    """Median and ends of the interval ``(R, 3)``, from a panel with holes in another unit."""
    df = panel()
    df = df[rows_of(df) < 28].copy()
    if centred:  # neither sign, so that nothing is bounded
        df["y"] -= df.groupby("unique_id")["y"].transform("mean")
    df["y"] = unit * df["y"] + offset
    df.loc[rows_of(df) % 9 == 4, "y"] = np.nan
    model = Forecaster(MODELS[name](), season_length=SEASON).fit(df)
    alias = model.aliases[0]
    found = model.predict(6, level=[80])
    return found[[alias, f"{alias}-lo-80", f"{alias}-hi-80"]].to_numpy(float)


@pytest.mark.parametrize("unit", [1e-9, 1e11])
@pytest.mark.parametrize("name", MODELS)
def test_a_panel_in_another_unit_has_its_forecast_in_that_unit(name, unit):
    expected, found = forecast(name), forecast(name, unit) / unit
    width = expected[:, 2:] - expected[:, 1:2]
    np.testing.assert_allclose((found - expected) / width, 0.0, atol=1e-5)


@pytest.mark.parametrize("offset", [-1e5, -1e9])
@pytest.mark.parametrize("name", MODELS)
def test_a_panel_elsewhere_has_its_forecast_there(name, offset):
    """Offsets of up to 1e9 steps, which leave the data seven digits of a step."""
    expected, found = forecast(name, centred=True), forecast(name, 1.0, offset, centred=True)
    width = expected[:, 2:] - expected[:, 1:2]
    np.testing.assert_allclose((found - offset - expected) / width, 0.0, atol=1e-5)
    np.testing.assert_allclose((found[:, 2:] - found[:, 1:2]) / width, 1.0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_missing_value_is_no_zero(name):
    """Series far from zero, one of which has just lost a value, and one that never had one."""
    df = panel()
    df["y"] += 1e5 - df["y"].mean()
    ids = df["unique_id"].unique()
    df.loc[(df["unique_id"] == ids[0]) & (rows_of(df) == rows_of(df).max()), "y"] = np.nan
    df.loc[df["unique_id"] == ids[1], "y"] = np.nan
    model = Forecaster(MODELS[name](), season_length=SEASON).fit(df)
    found = model.predict(2)[model.aliases[0]].to_numpy(float)
    assert np.abs(found - 1e5).max() < 10 * df["y"].std()
