"""Arguments of every verb: any kind of number is read, all else is refused by name."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from seqlatent.forecasting import ArgumentError, Forecaster, TimeError, metrics, spec_of
from seqlatent.forecasting.values import scalar, several


def frame(ids=("a", "b"), steps=20, freq="D"):
    parts = [
        pd.DataFrame(
            {
                "unique_id": id,
                "ds": pd.date_range("2024-01-01", periods=steps, freq=freq),
                "y": (np.arange(steps) * (i + 2)) % 7 + 1.0,
            }
        )
        for i, id in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fitted():
    return Forecaster("naive").fit(frame())


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        np.float32(0.1),
        np.float16(0.1),
        np.array(0.1, np.float32),
        torch.tensor(0.1),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor(0.1, dtype=torch.float64, requires_grad=True),
        Decimal("0.1"),
        Fraction(1, 10),
        np.longdouble("0.1"),
    ],
)
def test_a_number_is_the_decimal_that_was_written(given):
    found = scalar(given)
    assert type(found) is float
    assert found == pytest.approx(0.1, abs=1e-18)


@pytest.mark.parametrize(
    "given",
    [
        np.array([0.1, 0.9], np.float32),
        torch.tensor([0.1, 0.9]),
        pd.Series([0.1, 0.9], dtype="float32"),
        pd.Series([0.1, 0.9], dtype="Float32"),
        pl.Series([0.1, 0.9], dtype=pl.Float32),
        (Decimal("0.1"), np.float32(0.9)),
        (q for q in (0.1, 0.9)),
    ],
)
def test_quantiles_come_in_whatever_holds_them(fitted, given):
    found = fitted.predict(1, quantiles=given, level=None)
    assert found.equals(fitted.predict(1, quantiles=[0.1, 0.9], level=None))
    assert {"naive_ql0.1", "naive_ql0.9"} < set(found)


def test_text_and_tables_are_no_sequences_of_numbers():
    assert several("ab") == ("ab",)
    assert several({"a": 1}) == ({"a": 1},)
    assert several(torch.arange(2)) == (0, 1)
    assert several(torch.tensor(3)) == (3,)


INTEGERS = [np.int64(2), np.array(2), torch.tensor(2), np.uint8(2)]


@pytest.mark.parametrize("two", INTEGERS, ids=lambda two: type(two).__name__)
def test_integers_of_any_kind_at_every_door(fitted, two):
    df = frame()
    assert fitted.predict(two).equals(fitted.predict(2))
    assert fitted.sample(two, n=two, seed=two).equals(fitted.sample(2, n=2, seed=2))
    assert fitted.innovations(burn=two).equals(fitted.innovations(burn=2))
    holes = df.assign(y=df["y"].where(np.arange(len(df)) % 5 != 3))
    assert fitted.impute(holes, n=two).equals(fitted.impute(holes, n=2))
    windows = {"n_windows": two, "step_size": two, "refit": two}
    one = fitted.cross_validation(df, two, **windows)
    assert one.equals(fitted.cross_validation(df, 2, n_windows=2, step_size=2, refit=2))
    options = {"season_length": two, "seed": two, "time_limit": two, "freq": "D"}
    other = Forecaster("seasonal_naive", **options).fit(df)
    assert other.season_length == (2,)
    assert (other.seed, other.time_limit) == (2, 2.0)
    spec = spec_of("srnn", members=two, steps=two, hidden_dim=two, batch_size=two, free_bits=two)
    assert spec.config["options"]["members"] == 2
    found = fitted.predict(2)
    before = df.rename(columns={"y": "naive"}).assign(y=df["y"] + 1)
    assert (
        metrics.mase(before, ["naive"], two, df.assign(ds=df["ds"] - pd.Timedelta("30D")))
        is not None
    )
    assert len(found) == 4


@pytest.mark.parametrize(
    "limit", [timedelta(seconds=2), pd.Timedelta("2s"), np.timedelta64(2, "s"), np.float32(2)]
)
def test_a_time_limit_may_be_a_duration(limit):
    assert Forecaster("naive", time_limit=limit).time_limit == 2.0


def test_no_limit_and_no_levels(fitted):
    assert Forecaster("naive", time_limit=float("inf")).time_limit is None
    assert list(fitted.predict(1, level=None)) == ["unique_id", "ds", "naive", "naive-mean"]


DAYS = [
    pd.Timedelta("1D"),
    timedelta(days=1),
    np.timedelta64(1, "D"),
    np.timedelta64(86_400_000_000_000, "ns"),
    pd.offsets.Day(1),
    pd.DateOffset(days=1),
    np.str_("D"),
    np.array("D"),
]


@pytest.mark.parametrize("freq", DAYS, ids=repr)
def test_what_fit_takes_as_a_frequency_save_writes(freq, tmp_path):
    model = Forecaster("naive", freq=freq).fit(frame())
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.freq == model.freq
    assert loaded.predict(2).equals(Forecaster("naive").fit(frame()).predict(2))


OFFSETS = [
    pd.offsets.MonthBegin(1),
    pd.offsets.QuarterEnd(startingMonth=2),
    pd.offsets.Week(weekday=2),
    pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue", holidays=["2024-03-03"]),
    pd.offsets.SemiMonthEnd(day_of_month=12),
    pd.offsets.LastWeekOfMonth(weekday=4),
    pd.DateOffset(months=1, day=15),
]


@pytest.mark.parametrize("freq", OFFSETS, ids=repr)
def test_offsets_come_back_from_a_folder(freq, tmp_path):
    stamps = pd.date_range("2024-01-15", periods=12, freq=freq)
    df = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": range(12)})
    model = Forecaster("naive", freq=freq).fit(df)
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.predict(3).equals(model.predict(3))
    loaded.save(tmp_path / "again")


# --- what is refused --------------------------------------------------------------------------

SPECS = {
    "members": [0, -1, 2.0, "2", True],
    "steps": [0, -3, 1.5],
    "batch_size": [0, -1],
    "hidden_dim": [0, "wide"],
    "latent_dim": [-1, 1.5],
    "free_bits": [-1, "a", float("nan"), float("inf")],
    "emission": ["norml", 5],
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_refuses_sizes_by_name(name):
    for wrong in SPECS[name]:
        with pytest.raises(ArgumentError, match=f"^{name} must be") as caught:
            spec_of("srnn", **{name: wrong})
        assert caught.value.name == name


@pytest.mark.parametrize(
    "options",
    [
        {"draws": 0},
        {"rows": 0},
        {"calibrate": "no"},
        {"specifications": []},
        {"specifications": 5},
        {"criterion": 1},
    ],
)
def test_a_structural_spec_refuses_by_name(options):
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))} must be"):
        spec_of("structural", **options)


FORECASTERS = {
    "season_length": [7.0, 1e9, 0, "7", True, [7, None]],
    "seed": [2**63, -1, 1.0, "a", None],
    "time_limit": ["2", 0, -1, float("nan"), True],
    "progress": ["no", 1, None],
    "device": ["tpu", "cuda:99", 5.5, ""],
    "members": [0, -1, 2.0],
}


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_forecaster_refuses_by_name(name):
    for wrong in FORECASTERS[name]:
        with pytest.raises(ArgumentError, match=f"^{name} must be") as caught:
            Forecaster("srnn", **{name: wrong})
        assert caught.value.name == name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_here():
    with pytest.raises(
        ArgumentError, match=r"device must be one that this machine has.*only 'cpu'"
    ):
        Forecaster("srnn", device="cuda")


@pytest.mark.parametrize("freq", [1.5, 0, -1, True, "Dd", "", "1 day", b"D"], ids=repr)
def test_a_frequency_is_refused_before_a_frame_is_read(freq):
    with pytest.raises(TimeError, match=r"^freq: expected"):
        Forecaster("naive", freq=freq)


LEVELS = [99.99999999999999, 1e-300, 100, 0, -5, "80", {80: 1}, [[80]], float("nan"), True, [None]]


@pytest.mark.parametrize("level", LEVELS, ids=repr)
def test_levels_at_the_ends_or_of_another_kind(fitted, level):
    with pytest.raises(ArgumentError, match=r"^level must"):
        fitted.predict(1, level=level)


@pytest.mark.parametrize("quantiles", [1 - 1e-16, 1e-300, 0, 1, 10, "0.5", [[0.5]], True], ids=repr)
def test_quantiles_at_the_ends_or_of_another_kind(fitted, quantiles):
    with pytest.raises(ArgumentError, match=r"^quantiles must"):
        fitted.predict(1, quantiles=quantiles)


def test_flags_and_words_are_refused_by_name(fitted):
    df = frame()
    for act, name in (
        (lambda: fitted.diagnose(df, pooled="yes"), "pooled"),
        (lambda: fitted.impute(df, complete=1), "complete"),
        (lambda: fitted.components(df, specifications="yes"), "specifications"),
        (lambda: fitted.components(df, kind="smooth"), "kind"),
        (lambda: fitted.cross_validation(df, 2, refit=1.0), "refit"),
        (lambda: metrics.scores(df, df.rename(columns={"y": "m"}), level="80"), "level"),
        (lambda: metrics.mase(df.assign(m=1.0), ["m"], 1.5, df), "seasonality"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name} must"):
            act()


HUGE = {"long": 10**400, "very long": -(10**5000), "fraction": Fraction(-(10**5000), 3)}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
def test_numbers_of_thousands_of_digits_are_told_by_the_first(fitted, huge):
    for act, error in (
        (lambda: fitted.predict(-abs(huge)), ArgumentError),
        (lambda: fitted.predict(1, level=huge), ArgumentError),
        (lambda: fitted.predict(1, quantiles=huge), ArgumentError),
        (lambda: Forecaster("naive", time_limit=huge), ArgumentError),
        (lambda: Forecaster("naive", season_length=huge), ArgumentError),
        (lambda: Forecaster("naive", seed=huge), ArgumentError),
        (lambda: Forecaster("naive", freq=huge), TimeError),
        (lambda: spec_of("srnn", free_bits=huge), ArgumentError),
    ):
        with pytest.raises(error) as caught:
            act()
        assert len(str(caught.value)) < 600


# --- names that are nearly right --------------------------------------------------------------


def test_names_that_are_nearly_right_are_told():
    df = frame()
    for act, name in (
        (lambda: spec_of("srn"), "srnn"),
        (lambda: spec_of("srnn", member=2), "members"),
        (lambda: spec_of("srnn", emission="norml"), "normal"),
        (lambda: spec_of("structural", criterion="heldou"), "heldout"),
        (lambda: spec_of("structural", specifications=["leve"]), "level"),
        (lambda: Forecaster("naiv"), "naive"),
        (lambda: Forecaster("Naive"), "naive"),
        (lambda: Forecaster("naive").fit(df.rename(columns={"unique_id": "uniqueid"})), "uniqueid"),
        (lambda: metrics.mae(df.assign(naive=1.0), ["naiv"]), "naive"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"Did you mean '{name}'"):
            act()
    with pytest.raises(ArgumentError, match=r"name must be one of structural.*found 'xyz'\.$"):
        spec_of("xyz")
