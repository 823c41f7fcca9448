"""The range of numbers, and that no cell makes NaN of other series."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Forecaster, TargetError
from seqlatent.forecasting.engines.latent.recipes import srnn, structural
from seqlatent.forecasting.errors import CovariateError
from seqlatent.forecasting.frames.read import read


def frame(*series):
    n = len(series[0])
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(len(series))], n),
            "ds": np.tile(pd.date_range("2024-01-01", periods=n, freq="D"), len(series)),
            "y": np.concatenate(series),
        }
    )


def walk(n=24, seed=0):
    return 10 + np.random.default_rng(seed).normal(size=n).cumsum()


@pytest.mark.parametrize(
    ("make", "row", "said"),
    [
        (lambda y: np.where(np.arange(24) == 7, 1.7e308, y), 31, "at most 1e\\+100"),
        (lambda y: np.where(np.arange(24) == 9, -1e155, y), 33, "at most 1e\\+100"),
        (lambda y: 1e155 * y, 24, "at most 1e\\+100"),
        (lambda y: np.r_[1.0, 3.0, np.ones(22)] * 1e-200, 25, "at least 1e-100"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "predict", "update", "score", "impute"])
def test_a_cell_that_is_out_of_range_is_named(make, row, said, verb):
    df = frame(walk(), make(walk(seed=1)))
    model = Forecaster("naive")
    if verb != "fit":
        model.fit(frame(walk(), walk(seed=1)))
    take = {
        "fit": lambda: model.fit(df),
        "predict": lambda: model.predict(2, df=df),
        "update": lambda: model.update(df.assign(ds=df.ds + pd.Timedelta(days=24))),
        "score": lambda: model.score(df),
        "impute": lambda: model.impute(df),
    }
    with pytest.raises(TargetError, match=said) as caught:
        take[verb]()
    assert (caught.value.column, caught.value.id, caught.value.row) == ("y", "s1", row)


def test_small_cells_beside_others_are_in_range():
    y = np.r_[walk(23), 1e-300]
    assert read(frame(y)).panel.y[-1, 0] == 1e-300
    assert read(frame(np.zeros(24))).panel.y.max() == 0


def test_covariates_are_in_range_too():
    df = frame(walk()).assign(x=np.r_[np.ones(23), 1e200])
    with pytest.raises(CovariateError, match="at most") as caught:
        read(df)
    assert (caught.value.column, caught.value.row) == ("x", 23)


def test_single_precision_has_a_range_of_its_own():
    spec = srnn(members=1, steps=1, hidden_dim=4)
    for factor in (1e20, 1e-20):
        with pytest.raises(TargetError, match="single precision") as caught:
            Forecaster(spec, season_length=1).fit(frame(walk(), factor * walk()))
        assert caught.value.id == "s1"


@pytest.mark.parametrize(
    "factor", [1e-98, *(pytest.param(x, marks=pytest.mark.slow) for x in (1e-9, 1e98))]
)
def test_series_of_all_magnitudes_leave_the_others_finite(factor):
    spec = structural(["level", "log drift"], draws=1)
    df = frame(walk(), factor * walk(seed=1) / 20)
    f = Forecaster(spec, season_length=1).fit(df).predict(3, level=[80])
    values = f.drop(columns=["unique_id", "ds"])
    assert np.isfinite(values.to_numpy()).all()
    assert f["structural"][:3].between(0, 30).all()
    assert (f["structural"][3:] / factor).between(0, 2).all()
