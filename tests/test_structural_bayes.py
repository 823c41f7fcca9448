"""The structural forecaster with weighted draws of the parameters of each series."""

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.engines.structural import fit_structural
from seqlatent.model import moments
from seqlatent.training import Deadline
from seqlatent.training.likelihood import parameter_posterior

SPEC = {"specifications": ["level", "drift"], "bayes": True, "draws": 8}


def panel(series=4, rows=24, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(series, rows)).cumsum(1) * 0.6 + rng.normal(size=(series, rows)) + 20
    index = pd.MultiIndex.from_product([[f"s{i}" for i in range(series)], range(rows)])
    index.names = ["unique_id", "ds"]
    return pd.Series(y.reshape(-1), index, name="y").reset_index()


@pytest.fixture(scope="module")
def fitted():
    df = panel()
    return df, Forecaster(spec_of("structural", **SPEC), freq=1).fit(df[df["ds"] < 20])


def test_a_saved_forecaster_forecasts_alike_and_the_report_tells_how_far_weights_are_to_be_trusted(
    fitted, tmp_path
):
    _, forecaster = fitted
    text = str(forecaster.report())
    assert "posterior of the parameters, level: k-hat" in text
    assert "posterior of the parameters, drift: k-hat" in text
    forecaster.save(tmp_path / "folder")
    loaded = Forecaster.load(tmp_path / "folder")
    assert str(loaded.report()) == text
    expected = forecaster.predict(4, level=[80])
    pd.testing.assert_frame_equal(loaded.predict(4, level=[80]), expected)
    paths = loaded.sample(4, n=5)
    assert len(paths) == 5 * 4 * 4


def test_an_update_filters_every_draw(fitted, tmp_path):
    df, forecaster = fitted
    forecaster.save(tmp_path / "folder")
    loaded = Forecaster.load(tmp_path / "folder")
    expected = loaded.predict(2, df=df[df["ds"] < 22], level=[80])
    loaded.update(df[(df["ds"] >= 20) & (df["ds"] < 22)])
    pd.testing.assert_frame_equal(loaded.predict(2, level=[80]), expected, rtol=1e-8)


def test_components_are_wider_than_those_of_the_most_probable_parameters():
    df = panel(6, 16, seed=2)
    widths = []
    for options in ({"bayes": True}, {"draws": 1}):
        spec = spec_of("structural", specifications=["level"], calibrate=False, **options)
        found = Forecaster(spec, freq=1).fit(df).components(level=[80])
        level = found[found["component"] == "level"]
        widths.append((level["hi-80"] - level["lo-80"]).mean())
    assert widths[0] > widths[1]


def test_members_of_a_fit_are_a_mixture_of_equal_draws():
    y = torch.from_numpy(panel()["y"].to_numpy().reshape(4, 24).copy())
    fitted = fit_structural(y, 1, 4, specifications=["level"], bayes=True)
    assert len(fitted.members) == 16
    torch.testing.assert_close(fitted.weights, torch.full((4, 16), 1 / 16).double())
    assert fitted.untrusted == ()
    rows = fitted.prepare(y)
    each = [
        moments(m.model, m.model.belief(m.sequences(rows), end=False), 2)[1] for m in fitted.members
    ]
    assert bool((torch.stack(each).std(0) > 0).all())


def test_series_whose_weights_are_not_to_be_trusted_are_noted(monkeypatch):
    monkeypatch.setattr(parameter_posterior, "_TRUSTED", -10.0)
    spec = spec_of("structural", specifications=["level"], bayes=True, draws=4)
    forecaster = Forecaster(spec, freq=1).fit(panel(2))
    assert "2 of 2 series by normal approximations" in str(forecaster.report())
    notes = forecaster.notes
    for id in ("s0", "s1"):
        assert "not to be trusted" in notes["structural"][id]


def test_without_time_parameters_are_normal_and_the_report_says_so():
    y = torch.from_numpy(panel()["y"].to_numpy().reshape(4, 24).copy())
    fitted = fit_structural(
        y, 1, 4, specifications=["level"], bayes=True, draws=4, deadline=Deadline(0.0)
    )
    assert len(fitted.members) == 4
    assert fitted.stacking.posteriors == ("level: normal approximations, for want of time",)


def test_bayes_is_true_or_false():
    with pytest.raises(ValueError, match="bayes must be True or False, found 'yes'"):
        spec_of("structural", bayes="yes")
