"""What every door takes, refuses and types alike: names, arguments, identifiers, numbers."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest

from seqlatent.forecasting import (
    ColumnError,
    Columns,
    CovariateError,
    DataError,
    DigitsWarning,
    Forecaster,
    TargetError,
    TimeError,
    metrics,
    plots,
    spec_of,
)
from seqlatent.forecasting.engines.registry import names
from seqlatent.forecasting.frames.names import check_names, check_words
from seqlatent.forecasting.results import SMOOTHED


def frame(ids=("a",), steps=30, **more):
    parts = [
        pd.DataFrame({"unique_id": id, "ds": range(steps), "y": np.arange(steps) % 7 + 10.0 * i})
        for i, id in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True).assign(**more)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["id", "time", "target", "sample", "cutoff"])
@pytest.mark.parametrize("end", ["", "-mean", "-lo-80", "-hi-97.5", "_ql0.1", "-log_score", "-pit"])
def test_no_column_is_called_as_a_model_calls_its_own(role, end):
    columns = Columns(**{role: f"theta{end}"})
    with pytest.raises(ColumnError, match=f"'theta{end}'.*'theta'") as caught:
        check_names(columns, ["naive", "theta"])
    assert caught.value.column == f"theta{end}"
    check_names(Columns(**{role: f"thetas{end}"}), ["naive", "theta"])


def test_a_target_called_like_a_model_is_refused_by_every_verb():
    df = frame().rename(columns={"y": "theta"})
    model = Forecaster("theta", columns=Columns(target="theta"))
    for act in (model.fit, lambda df: model.cross_validation(df, 3)):
        with pytest.raises(ColumnError, match="target column 'theta' and the model 'theta'"):
            act(df)


@pytest.mark.parametrize(
    "name", ["y", "target", "metric", "step", "naive-mean", "a-lo-80", "a_ql0.5"]
)
def test_no_spec_is_called_as_a_column_of_ours(name):
    spec = dataclasses.replace(spec_of("srnn"), name=name)
    with pytest.raises(ColumnError, match=name):
        Forecaster([spec, "naive"]).fit(frame())


@pytest.mark.parametrize(
    "given",
    [
        {"target": ["a", "b"], "id": "target"},
        {"target": ["a", "b"], "time": "y"},
        {"target": ["a", "b"], "cutoff": "y-mean"},
        {"target": "a", "id": "a-mean"},
        {"target": "a", "sample": "a-hi-80"},
    ],
)
def test_no_column_is_called_as_one_that_is_made_of_the_target(given):
    with pytest.raises(ColumnError, match="must differ in name"):
        check_names(Columns(**given), ["naive"])


OUTPUTS = {
    "backtest": lambda m, df: m.cross_validation(df, 3, level=None),
    "backtest with levels": lambda m, df: m.cross_validation(df, 3, n_windows=2),
    "scores": lambda m, df: m.score(df),
    "innovations": lambda m, df: m.innovations(df),
    "draws": lambda m, df: m.impute(df, n=3, complete=True),
    "bands": lambda m, df: m.impute(df, level=80, complete=True),
    "forecasts as truth": lambda m, df: m.predict(3, quantiles=[0.1]).assign(y=1.0),
}


@pytest.mark.parametrize("kind", ["pandas", "polars"])
@pytest.mark.parametrize("call", OUTPUTS)
def test_what_came_out_is_refused_as_what_goes_in(call, kind):
    df = frame(["a", "b"])
    df.loc[[4, 9], "y"] = np.nan
    out = OUTPUTS[call](Forecaster("naive").fit(df), df)
    out = pl.from_pandas(out) if kind == "polars" else out
    for act in (
        Forecaster("naive").fit,
        Forecaster("srnn").fit,
        lambda df: Forecaster("naive").cross_validation(df, 3),
    ):
        with pytest.raises(ColumnError, match=r"df: column .*expected.*found.*Columns\(") as caught:
            act(out)
        assert caught.value.column in out.columns
    covariates = Forecaster("naive", columns=Columns(future=[]))
    if "sample_id" not in out.columns and "backtest with" not in call:
        covariates.fit(out)  # who says which columns are covariates is believed


def test_one_draw_is_a_frame_without_holes():
    df = frame(["a", "b"])
    df.loc[[4, 9], "y"] = np.nan
    drawn = Forecaster("naive").fit(df).impute(df, n=3, complete=True)
    for _, one in drawn.groupby("sample_id"):
        assert Forecaster("naive").fit(one).predict(1).shape == (2, 8)


def test_covariates_that_are_called_nearly_like_ours_are_taken():
    x = np.arange(30.0)
    df = frame().assign(**{"wind-mean": x, "wind": x, "pit": x, "cutoff_": x, "share-lo": x})
    model = Forecaster(spec_of("srnn", members=1, steps=2, hidden_dim=4))
    assert set(model.fit(df)._fitted.covariates) == set(df.columns) - {"unique_id", "ds", "y"}


def test_names_that_meet_nothing_are_taken():
    check_names(Columns(target=["y", "target"], id="model", time="name"), names())
    check_names(Columns(target="target"), names())


@pytest.mark.parametrize("name", ["name", "mean", "kind", "lo-80"])
def test_verbs_with_columns_of_their_own_refuse_identifiers_of_that_name(name):
    for columns in (Columns(id=name), Columns(time=name)):
        with pytest.raises(ColumnError, match=f"smooth has a column '{name}' of its own"):
            check_words(columns, "smooth", SMOOTHED)
    check_words(Columns(id="target"), "smooth", SMOOTHED)  # a single target is not told apart
    with pytest.raises(ColumnError, match="'target'"):
        check_words(Columns(id="target", target=["a", "b"]), "smooth", SMOOTHED)


def test_a_verb_refuses_before_it_works():
    model = Forecaster("naive", columns=Columns(id="test"))
    df = frame().rename(columns={"unique_id": "test"})
    assert model.fit(df).innovations(df)["test"].unique().tolist() == ["a"]
    with pytest.raises(ColumnError, match="diagnose has a column 'test'"):
        model.diagnose(df)


# --- arguments -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return Forecaster("naive").fit(frame())


@pytest.mark.parametrize(
    "level", [np.array([80, 95]), (np.int64(80), np.float64(95)), pd.Series([80, 95]), {80, 95}]
)
def test_levels_come_in_whatever_holds_numbers(fitted, level):
    assert set(fitted.predict(2, level=level)) == set(fitted.predict(2, level=[80, 95]))


@pytest.mark.parametrize("level", [80, np.int64(80), np.array(80)])
def test_a_level_comes_alone(fitted, level):
    assert "naive-lo-80" in fitted.predict(2, level=level)


def test_no_levels(fitted):
    assert list(fitted.predict(2, level=None)) == ["unique_id", "ds", "naive", "naive-mean"]
    assert "y-lo-80" not in fitted.impute(frame().assign(y=[1.0, None] * 15), level=None)
    found = fitted.cross_validation(frame(), 2, level=None, quantiles=np.array([0.1]))
    assert [name for name in found if name.startswith("naive")] == [
        "naive",
        "naive-mean",
        "naive_ql0.1",
    ]


@pytest.mark.parametrize("level", [True, "80", [np.nan], 0, 100, [None], [80, 80.0000001]])
def test_levels_that_are_none(fitted, level):
    with pytest.raises(ValueError, match="level must"):
        fitted.predict(2, level=level)


def test_integers_of_numpy_are_integers(fitted, tmp_path):
    two = np.int16(2)
    df = frame()
    spec = spec_of("srnn", members=np.int64(1), steps=two, hidden_dim=np.int64(4))
    given = {"freq": np.int64(1), "season_length": np.array([7]), "seed": np.uint8(3)}
    model = Forecaster([spec, "naive"], time_limit=np.float32(9), **given).fit(df)
    model.save(tmp_path / "m")
    assert Forecaster.load(tmp_path / "m").predict(two).equals(model.predict(2))
    assert fitted.sample(two, n=two).equals(fitted.sample(2, n=2))
    assert fitted.innovations(burn=two).equals(fitted.innovations(burn=2))
    windows = {"n_windows": two, "step_size": np.int64(1), "refit": two}
    assert len(fitted.cross_validation(df, two, **windows)) == 4


@pytest.mark.parametrize("refit", [0, False, np.bool_(False)])
def test_a_backtest_that_fits_once(fitted, refit):
    assert len(fitted.cross_validation(frame(), 2, n_windows=2, refit=refit)) == 4


@pytest.mark.parametrize("wrong", [2.5, "3", True, -1])
def test_arguments_that_are_no_integers(fitted, wrong):
    for name, act in {
        "h": lambda: fitted.predict(wrong),
        "n": lambda: fitted.sample(2, n=wrong),
        "n_windows": lambda: fitted.cross_validation(frame(), 2, n_windows=wrong),
        "step_size": lambda: fitted.cross_validation(frame(), 2, step_size=wrong),
        "burn": lambda: fitted.innovations(burn=wrong),
        "season_length": lambda: Forecaster("naive", season_length=wrong),
        "members": lambda: Forecaster("srnn", members=wrong),
        "seed": lambda: Forecaster("naive", seed=wrong),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            act()


@pytest.mark.parametrize("wrong", ["3", True, 0, -1.0, float("nan")])
def test_time_limits_that_are_none(wrong):
    with pytest.raises(ValueError, match="time_limit must be"):
        Forecaster("naive", time_limit=wrong)


# --- identifiers -----------------------------------------------------------------------------


@pytest.mark.parametrize("other", [True, 1.0, np.bool_(True)])
def test_identifiers_that_are_equal_and_not_the_same(other):
    ids = pd.Series([1] * 5 + [other] * 5, dtype=object)
    df = pd.DataFrame({"unique_id": ids, "ds": [*range(5)] * 2, "y": 1.0})
    with pytest.raises(ColumnError, match="equal to 1 of type int") as caught:
        Forecaster("naive").fit(df)
    assert caught.value.row == 5


def test_booleans_are_no_integers_at_any_door():
    model = Forecaster("naive").fit(frame((0, 1), x=1.0))
    other = frame((False, True), x=1.0)
    with pytest.raises(ColumnError, match="False of type bool, which is equal to 0 of type int"):
        model.predict(1, df=other, X_df=other)
    with pytest.raises(ColumnError, match="equal to 0"):
        model.predict(1, X_df=other)
    for verb in (model.update, model.score, model.impute, model.innovations):
        with pytest.raises(ColumnError, match="equal to 0"):
            verb(other)
    static = pd.DataFrame({"unique_id": [False, True], "size": [1.0, 2.0]})
    with pytest.raises(ColumnError, match=r"static_df.*equal to 0"):
        Forecaster("naive").fit(frame((0, 1)), static_df=static)


# --- numbers ---------------------------------------------------------------------------------


def objects(values):
    return pd.Series(values, dtype=object)


def test_objects_are_judged_by_all_their_cells():
    """What comes first in a column, such as a leading gap of a query, says nothing of the rest."""
    steps = 130
    values = [None] * 110 + [1.0, 2.0] * 10
    df = frame(steps=steps).assign(y=objects(values))
    plain = frame(steps=steps).assign(y=np.array(values, float))
    assert Forecaster("naive").fit(df).predict(2).equals(Forecaster("naive").fit(plain).predict(2))
    x = {"x": objects([1] * 110 + [2.5] * 20)}
    Forecaster("sarimax").fit(frame(steps=steps, **x))
    with pytest.raises(TargetError, match="expected numbers, found 'x'") as caught:
        Forecaster("naive").fit(df.assign(y=objects([None] * 110 + ["x"] * 20)))
    assert caught.value.row == 110


def test_statics_are_judged_by_all_their_cells():
    ids = [f"s{i}" for i in range(120)]
    df = frame(ids, 3)
    size = objects([1.0] * 110 + [2] * 10)
    model = Forecaster("naive").fit(df, pd.DataFrame({"unique_id": ids, "size": size}))
    assert model._fitted.statics.reals == ("size",)


def test_integers_that_lose_digits_are_named():
    y = np.arange(30) + 2**53 - 28
    with pytest.warns(DigitsWarning, match="column 'y', id 'a', row 29.*9007199254740993") as found:
        Forecaster("naive").fit(frame().assign(y=y))
    assert len(found) == 1
    with pytest.warns(DigitsWarning, match="row 3"):
        Forecaster("naive").fit(frame().assign(y=objects([1, 2, 3, 10**30 + 1] + [5] * 26)))
    with pytest.warns(DigitsWarning, match="row 29"):
        Forecaster("naive").fit(pl.from_pandas(frame().assign(y=y)))
    Forecaster("naive").fit(frame().assign(y=(y // 2) * 2))


def test_an_integer_beyond_every_float():
    beyond = r"row 29: expected a number of at most 1e\+100 in size, found "
    for cell, told in (
        (-(10**400), r"-1e\+400"),
        (10**5000 // 3, r"3.33333e\+4999"),
        (Decimal("1e400"), r"Decimal\('1E\+400'\)"),
        (Fraction(10**400, 3), "1e[+]400/3"),
    ):
        cells = objects([1] * 29 + [cell])
        with pytest.raises(TargetError, match=f"column 'y', id 'a', {beyond}{told}") as found:
            Forecaster("naive").fit(frame().assign(y=cells))
        assert (found.value.column, found.value.id, found.value.row) == ("y", "a", 29)
        with pytest.raises(CovariateError, match=f"column 'x', id 'a', {beyond}{told}"):
            Forecaster("naive").fit(frame(x=cells))
        forecasts = frame(m=cells)
        with pytest.raises(ColumnError, match=f"float64 holds, found {told} in row 29"):
            metrics.mae(forecasts, ["m"])
    with pytest.raises(TargetError, match="expected a finite number, found inf"):
        Forecaster("naive").fit(frame().assign(y=objects([1] * 29 + [Decimal("inf")])))


def test_integers_that_lose_digits_in_metrics_are_named():
    with pytest.warns(DigitsWarning, match=r"df: column 'm', row 29.*found 9007199254740993"):
        metrics.mae(frame(m=np.arange(30) + 2**53 - 28), ["m"])


def test_stamps_beyond_64_bits_are_named():
    stamps = np.arange(30, dtype=np.uint64) + np.uint64(2**63 - 25)
    for df in (frame().assign(ds=stamps), pl.from_pandas(frame().assign(ds=stamps))):
        with pytest.raises(TimeError, match=r"row 29: expected integer stamps less than 2\*\*63"):
            Forecaster("naive").fit(df)


@pytest.mark.parametrize(
    "id", [Fraction(1, 3), np.longdouble("1.5"), Decimal("1.5"), 10**5000], ids=["a", "b", "c", "d"]
)
def test_what_fit_takes_as_an_identifier_save_writes(id, tmp_path):
    with pytest.raises(ColumnError, match=r"column 'unique_id', row 0.*Make strings") as caught:
        Forecaster("naive").fit(frame().assign(unique_id=objects([id] * 30)))
    assert caught.value.column == "unique_id"
    for good in ("a", 1, 1.5, np.float32(1.5), np.int8(3), True, 10**400):
        model = Forecaster("naive").fit(frame().assign(unique_id=objects([good] * 30)))
        model.save(tmp_path / "m")
        assert Forecaster.load(tmp_path / "m").ids == model.ids


# --- stamps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("freq", ["Y", "M", "D", "h", "15min", "s", "ms"])
@pytest.mark.parametrize("year", [1600, 2024, 9000])
def test_periods_of_any_year(freq, year):
    periods = pd.period_range(f"{year}-01-02", periods=32, freq=freq)
    found = Forecaster("naive").fit(frame(ds=periods[:30])).predict(2)
    assert found["ds"].tolist() == list(periods[30:])


# --- metrics and plots take what fit takes ---------------------------------------------------


def kinds_of_frames():
    rng = np.random.default_rng(0)
    y = rng.normal(size=48).round(3)
    wide = pd.DataFrame({"x": y}, index=pd.date_range("2020-01-01", periods=48, freq="MS"))
    long = pd.DataFrame({"unique_id": "x", "ds": wide.index, "y": y})
    return {
        "long": long,
        "wide": wide,
        "series": wide["x"],
        "decimals": long.assign(y=[Decimal(str(value)) for value in y]),
        "objects": long.assign(y=objects(y.tolist())),
        "periods": long.assign(ds=long["ds"].dt.to_period("M")),
        "arrow": long.convert_dtypes(dtype_backend="pyarrow"),
        "polars": pl.from_pandas(long),
        "polars dates": pl.from_pandas(long).with_columns(pl.col("ds").cast(pl.Date)),
    }


@pytest.mark.parametrize("kind", kinds_of_frames())
def test_metrics_and_plots_take_what_fit_takes(kind):
    frames = kinds_of_frames()
    df = frames[kind]
    cv = Forecaster("naive").cross_validation(df, 3, n_windows=2, level=[80])
    expected = Forecaster("naive").cross_validation(frames["long"], 3, n_windows=2, level=[80])
    made, right = (
        metrics.scores(None, found, train, 12, level=np.array([80]), models=["naive"])
        for found, train in ((cv, df), (expected, frames["long"]))
    )
    np.testing.assert_allclose(made["naive"].to_numpy(), right["naive"].to_numpy())
    mase = metrics.mase(cv, ["naive"], 12, df)
    assert mase["naive"].to_list() == pytest.approx(
        metrics.mase(expected, ["naive"], 12, frames["long"])["naive"].tolist()
    )
    model = Forecaster("naive").fit(df)
    forecasts = model.predict(3, level=80)
    axes = plots.fans(df, forecasts, levels=np.array([80]), truth=df)
    assert axes[0].get_title("left") == "x"
    samples = model.sample(3, n=2)
    assert plots.spaghetti(df, samples).get_title("left") == "x"


def test_truth_comes_in_any_form_too():
    frames = kinds_of_frames()
    past, rest = frames["wide"][:-3], frames["wide"][-3:]
    forecasts = Forecaster("naive").fit(past).predict(3)
    long = frames["long"][-3:]
    right = metrics.scores(long, forecasts, past, 12)
    for truth in (rest, rest["x"], long.assign(ds=long["ds"].dt.to_period("M"))):
        assert metrics.scores(truth, forecasts, past, 12).equals(right)


@pytest.mark.parametrize("models", [["y"], ["unique_id"], ["ds"], ["cutoff"]])
def test_no_column_with_a_role_is_scored(models):
    cv = Forecaster("naive").cross_validation(frame(), 3)
    with pytest.raises(
        ColumnError, match=f"models must be columns of forecasts, found '{models[0]}'"
    ):
        metrics.mae(cv, models)


@pytest.mark.parametrize("name", ["metric", "step"])
def test_no_model_takes_the_place_of_a_column_of_the_table(name):
    cv = Forecaster("naive").cross_validation(frame(), 3).rename(columns={"naive": name})
    with pytest.raises(ColumnError, match=f"names of their own, found '{name}'"):
        metrics.horizon_scores(None, cv, models=[name])


def test_targets_of_any_name_are_put_below_each_other():
    columns = Columns(target=["target", "_y", "y"], id="_target")
    df = frame().rename(columns={"unique_id": "_target"}).assign(target=2.0, _y=1.0)
    cv = Forecaster("naive", columns=columns).cross_validation(df, 3)
    assert metrics.scores(None, cv, df, 1, columns=columns)["naive"].notna().any()
    truth = metrics.scores(df[-3:], cv.drop(columns="y"), columns=columns)
    assert truth["naive"].notna().any()


def test_truth_of_other_identifiers_is_not_that_of_the_forecasts():
    forecasts = Forecaster("naive").fit(frame((0, 1))).predict(2)
    truth = forecasts[["unique_id", "ds"]].assign(y=1.0)
    assert len(metrics.scores(truth, forecasts))
    with pytest.raises(DataError, match="found none for unique_id False"):
        metrics.scores(truth.astype({"unique_id": bool}), forecasts)
