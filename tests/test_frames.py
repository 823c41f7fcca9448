"""Frames: long tables to panels and back, static features, and the rows to forecast."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from seqlatent.forecasting.errors import (
    ColumnError,
    CovariateError,
    DataError,
    TargetError,
    TimeError,
)
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.future import read_future
from seqlatent.forecasting.frames.output_format import OutputFormat, as_given
from seqlatent.forecasting.frames.read import read
from seqlatent.forecasting.frames.static import Statics, read_static
from seqlatent.forecasting.frames.table import Table

pl = pytest.importorskip("polars")

NO_COVARIATES = Columns(future=[])


def daily(ids=("a", "b"), steps=4, start="2024-01-01", freq="D", tz=None, **columns):
    ds = pd.date_range(start, periods=steps, freq=freq, tz=tz)
    ds = ds if tz is None else ds.tz_convert("UTC").tz_localize(None)
    n = len(ids) * steps
    frame = {"unique_id": np.repeat(ids, steps), "ds": np.tile(ds.to_numpy(), len(ids))}
    frame = pd.DataFrame({**frame, "y": np.arange(n, dtype=float), **columns})
    if tz is not None:
        frame["ds"] = frame["ds"].dt.tz_localize("UTC").dt.tz_convert(tz)
    return frame


def given_back(reading, targets=("y",)):
    """The frame of a panel, rows as they came, with covariates."""
    panel, style = (
        reading.panel,
        OutputFormat.from_dict(json.loads(json.dumps(reading.output_format.to_dict()))),
    )
    assert style == reading.output_format
    rows = as_given(panel)
    data = {
        style.columns.id: panel.ids[panel.owner][rows],
        style.columns.time: panel.time_index.stamps(panel.t)[rows],
        **{name: panel.y[rows, i] for i, name in enumerate(targets)},
        **{name: panel.future[rows, i] for i, name in enumerate(reading.names)},
    }
    return style.frame(data)


def same_panel(one, other, but=""):
    """Whether panels hold the same series in the same order, wherever their rows came from."""
    for name in ("ids", "offsets", "t", "y", "future", "past", "real", "codes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.time_index == other.time_index or but == "time_index"


IDS = {
    "str": ["b", "a", "Ä c"],
    "object": ["b", "a", "c"],
    "category": ["b", "a", "c"],
    "string[python]": ["b", "a", "c"],
    "int64": [3, -1, 2],
    "int8": [3, -1, 2],
    "Int64": [3, 1, 2],
    "uint64": [3, 1, 2**63 + 5],
    "float64": [3.5, 1.0, 2.0],
    "bool": [True, False],
    "int64[pyarrow]": [3, 1, 2],
}
TIMES = ["h", "D", "B", "W-MON", "MS", "QE", "YE", "2h", 1, 3]


@st.composite
def long_frames(draw):
    """Frames of every kind of identifier and time stamp, ragged, with gaps, in any order."""
    dtype = draw(st.sampled_from([name for name in IDS if name != "str" or pd.__version__ >= "3"]))
    freq = draw(st.sampled_from(TIMES))
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    tz = draw(st.sampled_from([None, "UTC", "Europe/Berlin", "UTC-03:30"]))
    if isinstance(freq, int):
        grid = pd.Series(np.arange(12) * freq - 7).astype(draw(st.sampled_from(["int64", "int16"])))
    else:
        grid = pd.Series(pd.date_range("2024-03-28", periods=12, freq=freq, tz=tz))
        grid = grid.dt.as_unit(unit)
    rows = [(i, 0) for i in range(len(IDS[dtype]))] + [(0, k) for k in range(1, 4)]
    more = st.tuples(st.integers(0, len(IDS[dtype]) - 1), st.integers(4, 11))
    rows += draw(st.lists(more, unique=True, max_size=15))
    rows = draw(st.permutations(rows))
    values = st.one_of(
        st.none(), st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x + 0.5)
    )
    series = [i for i, _ in rows]
    ids = pd.Series([IDS[dtype][i] for i in series]).astype(dtype)
    ds = grid.iloc[[k for _, k in rows]].reset_index(drop=True)
    y = [draw(values) for _ in rows]
    return pd.DataFrame({"unique_id": ids, "ds": ds, "y": np.array(y, dtype=float)}), freq


@given(long_frames())
def test_frame_to_panel_to_frame_is_the_identity(drawn):
    frame, freq = drawn
    reading = read(frame, freq=freq)
    assert_frame_equal(given_back(reading), frame)
    assert reading.panel.ids.tolist() == list(dict.fromkeys(frame["unique_id"].tolist()))


@given(long_frames(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_only_where_they_came_from(drawn, random):
    frame, freq = drawn
    order = list(range(len(frame)))
    random.shuffle(order)
    shuffled = frame.iloc[order]
    one, other = read(frame, freq=freq).panel, read(shuffled, freq=freq).panel
    index = [other.ids.tolist().index(id) for id in one.ids.tolist()]
    other = other.select(index)
    same_panel(one, other)
    filled = one.row < 0
    np.testing.assert_array_equal(other.row < 0, filled)
    np.testing.assert_array_equal(np.array(order)[other.row[~filled]], one.row[~filled])


@given(long_frames())
def test_rows_that_fill_gaps_are_missing(drawn):
    frame, freq = drawn
    panel = read(frame, freq=freq).panel
    assert np.isnan(panel.y[panel.row < 0]).all()
    assert sorted(panel.row[panel.row >= 0]) == list(range(len(frame)))
    for i in range(panel.batch):
        np.testing.assert_array_equal(np.diff(panel.t[panel.series(i)]), 1)


POLARS_IDS = [pl.String, pl.Categorical, pl.Enum(["c", "b", "a"]), pl.Int64, pl.UInt8]
POLARS_TIMES = [pl.Datetime("us"), pl.Datetime("ms"), pl.Datetime("ns"), pl.Date, pl.Int32]
POLARS_TIMES += [pl.Datetime("us", "Europe/Berlin"), pl.Datetime("ms", "UTC")]


@pytest.mark.parametrize("time", POLARS_TIMES, ids=str)
@pytest.mark.parametrize("id", POLARS_IDS, ids=str)
def test_polars_in_polars_out(id, time):
    days = pl.date_range(datetime.date(2024, 3, 29), datetime.date(2024, 4, 3), eager=True)
    zone = getattr(time, "time_zone", None)
    if zone:
        days = days.cast(pl.Datetime(time.time_unit)).dt.replace_time_zone(zone)
    ids = ["b", "a"] if id in (pl.String, pl.Categorical) or isinstance(id, pl.Enum) else [7, 3]
    frame = pl.DataFrame(
        {
            "unique_id": pl.Series([ids[0]] * 6 + [ids[1]] * 6, dtype=id),
            "ds": pl.concat([days, days]).cast(time),
            "y": pl.Series([1.0, None, 3.0] * 4),
            "price": pl.Series([True, False] * 6),
        }
    )
    frame = frame[[3, 1, 11, 0, 7, 8, 2, 4, 5, 6, 9, 10]]
    reading = read(frame)
    assert reading.names == ("price",)
    back = given_back(reading).with_columns(pl.col("price").cast(pl.Boolean))
    assert back.schema == frame.schema
    expected = frame.with_columns(pl.col("y").fill_null(float("nan")))
    assert back.equals(expected)
    if not zone:
        ds = frame["ds"].cast(time if time == pl.Int32 else pl.Datetime("us")).to_numpy()
        other = pd.DataFrame({name: frame[name].to_list() for name in ("unique_id", "y")})
        same_panel(
            read(other.assign(ds=ds)).panel, read(frame.drop("price")).panel, but="time_index"
        )


def test_gaps_become_missing_values():
    frame = daily(steps=5).drop([1, 2, 8])
    panel = read(frame).panel
    assert panel.lengths.tolist() == [5, 5]
    np.testing.assert_array_equal(panel.y[:, 0], [0, np.nan, np.nan, 3, 4, 5, 6, 7, np.nan, 9])
    assert panel.row.tolist() == [0, -1, -1, 1, 2, 3, 4, 5, -1, 6]
    assert panel.time_index.freq == "D"


def test_identifiers_come_in_the_order_of_their_first_row():
    frame = daily(("z", "a", "m")).iloc[[9, 1, 0, 4, 2, 3, 5, 6, 7, 8, 10, 11]]
    assert read(frame).panel.ids.tolist() == ["m", "z", "a"]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3, 4],
        [True, False, True, True],
        np.array([1, 2, 3, 4], np.uint8),
        np.array([1, 2, 3, 4], np.float32),
        pd.array([1, None, 3, 4], dtype="Int64"),
        pd.array([True, None, False, True], dtype="boolean"),
        pd.array([1.5, None, 3, 4], dtype="Float32"),
        [Decimal("1.5"), None, Decimal("3"), Decimal("4")],
        pd.Series([1, None, pd.NA, Decimal(2)], dtype=object),
        pd.Series([None] * 4, dtype=object),
        pd.array([1, None, 3, 4], dtype="int64[pyarrow]"),
        pd.array([True, None, False, True], dtype="bool[pyarrow]"),
    ],
    ids=lambda values: str(getattr(values, "dtype", type(values[0]).__name__)),
)
def test_targets_become_float64(values):
    panel = read(daily(("a",)).assign(y=values)).panel
    expected = [np.nan if pd.isna(v) else float(v) for v in list(values)]
    assert panel.y.dtype == np.float64
    np.testing.assert_array_equal(panel.y[:, 0], expected)


def test_polars_decimals_and_nulls():
    frame = pl.from_pandas(daily(("a",))).with_columns(
        y=pl.Series([Decimal("1.50"), None, Decimal("2.25"), Decimal("0")]),
        empty=pl.Series([0, 1, 2, 3], dtype=pl.Int8),
    )
    panel = read(frame).panel
    np.testing.assert_array_equal(panel.y[:, 0], [1.5, np.nan, 2.25, 0])
    nothing = read(frame.with_columns(y=pl.Series([None] * 4))).panel
    assert np.isnan(nothing.y).all()


def test_several_targets_and_other_names():
    columns = Columns(id="item", time="when", target=["u", "v"], past=["w"], future=["x"])
    frame = daily(v=1, w=[np.nan] * 8, x=2, z="ignored")
    frame = frame.rename(columns={"unique_id": "item", "ds": "when", "y": "u"})
    panel, style, _, names = read(frame, columns)
    assert (panel.y.shape, panel.past.shape, panel.future.shape) == ((8, 2), (8, 1), (8, 1))
    assert names == ("x",)
    assert style.columns is columns


def test_every_other_column_is_a_covariate_known_ahead():
    frame = daily(price=np.arange(8), promo=[True, False] * 4, sample_id=1, cutoff=2)
    panel, _, _, names = read(frame)
    assert names == ("price", "promo")
    np.testing.assert_array_equal(panel.future[:, 1], [1, 0] * 4)
    assert_frame_equal(
        given_back(read(frame)).astype({"price": int, "promo": bool}),
        frame[["unique_id", "ds", "y", "price", "promo"]].astype({"price": int}),
    )


def test_columns_that_training_did_not_have_are_ignored():
    frame = daily(price=1.0)
    time_index = read(frame).panel.time_index
    panel = read(frame.assign(note="x"), time_index=time_index, names=("price",)).panel
    assert panel.future.shape == (8, 1)
    with pytest.raises(CovariateError, match="covariate 'price' as in training") as caught:
        read(daily(), time_index=time_index, names=("price",))
    assert caught.value.column == "price"


def test_a_known_time_index_is_kept():
    time_index = read(daily()).panel.time_index
    later = read(daily(start="2023-12-30", freq="2D"), time_index=time_index).panel
    assert later.time_index == time_index
    assert later.t[:3].tolist() == [-2, -1, 0]
    assert np.isnan(later.y[1, 0])


def test_new_series_may_be_out_of_phase():
    time_index = read(daily(freq="h")).panel.time_index
    frame = daily(("a", "c"), freq="h")
    frame["ds"] += pd.to_timedelta([0] * 4 + [15] * 4, unit="min")
    reading = read(frame, time_index=time_index)
    assert reading.panel.t.tolist() == [0, 1, 2, 3, 0.25, 1.25, 2.25, 3.25]
    assert reading.panel.time_index.divisions == 4
    assert_frame_equal(given_back(reading), frame)


@pytest.mark.parametrize("freq", ["M", "2M", "Q-DEC", "W-WED", "D", "Y-MAR", "h"])
def test_periods(freq):
    periods = pd.period_range("2020-01-05", periods=4, freq=freq)
    frame = pd.DataFrame({"unique_id": "a", "ds": periods, "y": np.arange(4.0)})
    reading = read(frame)
    assert_frame_equal(given_back(reading)[["ds", "y"]], frame[["ds", "y"]])
    ahead = reading.output_format.frame(
        {"ds": reading.panel.time_index.stamps(reading.panel.t + 4)}
    )
    assert ahead["ds"].tolist() == list(periods + 4)
    assert read(frame, freq=freq).panel.time_index == reading.panel.time_index
    assert read(frame.iloc[:1]).panel.time_index.freq == reading.panel.time_index.freq


def test_periods_have_a_frequency_of_their_own():
    frame = daily(("a",))
    frame["ds"] = pd.period_range("2020-01", periods=4, freq="M")
    with pytest.raises(TimeError, match=r"expected none.*'MS'.*found 'D'. Leave it out"):
        read(frame, freq="D")
    assert read(frame, freq="irregular").panel.time_index.kind == "irregular"


def test_arrow_times():
    frame = daily(tz="Europe/Berlin")
    for dtype in ("timestamp[us, tz=Europe/Berlin][pyarrow]", "timestamp[ns][pyarrow]"):
        ds = frame["ds"] if "tz" in dtype else frame["ds"].dt.tz_localize(None)
        arrow = frame.assign(ds=ds.astype(dtype))
        assert_frame_equal(given_back(read(arrow)), arrow)
    numbered = daily().assign(ds=pd.array([0, 1, 2, 3] * 2, dtype="int64[pyarrow]"))
    assert_frame_equal(given_back(read(numbered)), numbered)
    days = frame.assign(ds=frame["ds"].dt.tz_localize(None).astype("date32[day][pyarrow]"))
    assert_frame_equal(given_back(read(days)), days)


def test_irregular_stamps_have_no_gaps_to_fill():
    frame = daily(("a",)).assign(
        ds=pd.to_datetime(
            ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-05 03:00"], format="ISO8601"
        )
    )
    reading = read(frame, freq="irregular")
    assert reading.panel.rows == 4
    assert reading.panel.t.tolist() == [0, 1, 4, 4.125]
    assert_frame_equal(given_back(reading), frame)


# Series and wide frames


def test_a_series_is_one_series():
    days = pd.date_range("2024-01-01", periods=3, freq="W-TUE")
    for name, id in ((None, "y"), ("sales", "sales"), (7, 7)):
        panel, style, _, _ = read(pd.Series([1, 2, 3], index=days, name=name))
        assert panel.ids.tolist() == [id]
        assert panel.time_index.freq == "W-TUE"
        assert list(style.frame({"unique_id": panel.ids, "ds": days[:1].to_numpy()})) == [
            "unique_id",
            "ds",
        ]
    assert read(pd.Series([1, 2], index=[4, 6])).panel.time_index.freq == 2
    assert read(pd.Series([1, 2])).panel.t.tolist() == [0, 1]
    monthly = pd.Series([1.0], index=pd.period_range("2024-01", periods=1, freq="M"))
    assert read(monthly).panel.time_index.freq == "MS"
    assert read(pd.Series([1.0], index=days[:1])).panel.time_index.freq == "W-TUE"
    odd = pd.date_range("2024-01-01", periods=3, freq=pd.DateOffset(days=2))  # it has no alias
    assert read(pd.Series([1, 2, 3], index=odd)).panel.time_index.freq == "2D"


def test_each_column_of_a_wide_frame_is_a_series():
    days = pd.date_range("2024-01-01", periods=4, freq="D")
    wide = pd.DataFrame({"b": [1, 2, 3, 4], "a": [np.nan, np.nan, 5, np.nan]}, index=days)
    panel, style, _, names = read(wide)
    assert panel.ids.tolist() == ["b", "a"]
    assert names == ()
    assert panel.lengths.tolist() == [4, 2]  # a series begins with its first value
    np.testing.assert_array_equal(panel.y[:, 0], [1, 2, 3, 4, 5, np.nan])
    assert panel.t.tolist() == [0, 1, 2, 3, 2, 3]
    assert style.backend == "pandas"
    numbered = read(pd.DataFrame(np.ones((3, 2)))).panel
    assert (numbered.ids.tolist(), numbered.rows) == ([0, 1], 6)
    assert np.isnan(read(wide.assign(c=np.nan)[["c"]]).panel.y).all()


def test_errors_of_wide_frames_name_the_row_of_the_frame():
    days = pd.date_range("2024-01-01", periods=3, freq="D")
    wide = pd.DataFrame({"b": [1.0, 2, 3], "a": [np.nan, 5, np.inf]}, index=days)
    with pytest.raises(TargetError, match="id 'a', row 2: expected a finite number") as caught:
        read(wide)
    assert (caught.value.id, caught.value.row) == ("a", 2)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (pd.Series([1, 2], index=["x", "y"]), r"Series with datetimes.*found an index of dtype"),
        (pd.Series([1], index=pd.MultiIndex.from_tuples([("a", 1)])), "found an index of 2 levels"),
        (pd.DataFrame({"item_id": [1], "timestamp": [2], "target": [3]}), "Columns\\(id='item_id'"),
        (pd.DataFrame({"a": ["x"], "b": [1]}), "expected a column 'unique_id', found 'a', 'b'"),
        (daily().set_index("ds"), r"expected a column 'ds'.*reset_index"),
        (daily().set_index(["unique_id", "ds"]), r"expected a column 'unique_id'.*reset_index"),
        (daily()[["ds", "y"]], "expected a column 'unique_id', found 'ds', 'y'"),
        (daily().set_index("ds")[["y"]].assign(x=1), "expected a column 'unique_id'"),
        (pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]), "each series once, found 'a' twice"),
    ],
)
def test_frames_that_are_neither_long_nor_wide(frame, match):
    with pytest.raises(ColumnError, match=match):
        read(frame)


def test_wide_frames_have_one_target():
    with pytest.raises(ColumnError, match="Make it long"):
        read(pd.Series([1.0, 2.0]), Columns(target=["u", "v"]))


# Errors, one each


def changed(row, **values):
    frame = daily().astype({"unique_id": object})
    for name, value in values.items():
        frame[name] = frame[name].astype(object) if isinstance(value, str) else frame[name]
        frame.loc[row, name] = value
    return frame


def check(error, *, column=None, id=None, row=None):
    assert (error.column, error.id, error.row) == (column, id, row)


BACKENDS = pytest.mark.parametrize(
    "convert", [lambda f: f, pl.from_pandas], ids=["pandas", "polars"]
)


@BACKENDS
@pytest.mark.parametrize("name", ["unique_id", "ds", "y"])
def test_missing_columns(convert, name):
    with pytest.raises(
        ColumnError, match=f"df: expected a column '{name}', found 'y?u?d?"
    ) as caught:
        read(convert(daily().drop(columns=name)))
    check(caught.value, column=name)


@pytest.mark.parametrize("role", ["future", "past"])
def test_missing_covariates(role):
    with pytest.raises(ColumnError, match="expected a column 'price'") as caught:
        read(daily(), Columns(**{role: ["price"]}))
    check(caught.value, column="price")


@BACKENDS
def test_empty_frames(convert):
    with pytest.raises(DataError, match="df: expected at least one row, found an empty frame"):
        read(convert(daily().iloc[:0]))
    with pytest.raises(DataError, match="at least one row"):
        read(pd.Series([], index=pd.DatetimeIndex([]), dtype=float))


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        ([1, 2], "expected a pandas or polars DataFrame, found list"),
        (pl.from_pandas(daily()).lazy(), "found a LazyFrame. Collect it"),
        (pl.Series([1.0]), "found Series"),
    ],
)
def test_things_that_are_no_frames(frame, match):
    with pytest.raises(TypeError, match=match):
        read(frame)


def test_strange_column_names():
    with pytest.raises(ColumnError, match=r"strings, found 0. Rename it"):
        read(daily().assign(**{"x": 1}).rename(columns={"x": 0}))
    with pytest.raises(ColumnError, match="each column once, found 'y' twice"):
        read(pd.concat([daily(), daily()[["y"]]], axis=1))
    with pytest.raises(ColumnError, match="found 2 levels"):
        read(pd.concat({"a": daily()}, axis=1))


@BACKENDS
def test_repeated_stamps(convert):
    frame = convert(daily().iloc[[0, 1, 4, 5, 2, 1, 6]])
    with pytest.raises(
        TimeError, match=r"row 5: .*once per series, found 2024-01-02 again"
    ) as caught:
        read(frame)
    check(caught.value, column="ds", id="a", row=5)


@BACKENDS
def test_missing_identifiers(convert):
    with pytest.raises(ColumnError, match=r"column 'unique_id', row 3: .*missing value") as caught:
        read(convert(changed(3, unique_id=None)))
    check(caught.value, column="unique_id", row=3)


def test_missing_identifiers_that_are_nan():
    frame = pl.from_pandas(daily()).with_columns(unique_id=pl.Series([1.0, float("nan")] * 4))
    with pytest.raises(ColumnError, match=r"row 1: expected an identifier"):
        read(frame)


@BACKENDS
def test_missing_stamps(convert):
    with pytest.raises(TimeError, match="id 'b', row 5: expected a time stamp, found a") as caught:
        read(convert(changed(5, ds=None)))
    check(caught.value, column="ds", id="b", row=5)


def test_strange_identifiers():
    frame = daily().assign(unique_id=[(1, 2)] * 8)
    with pytest.raises(ColumnError, match=r"row 0: .*found \(1, 2\) of type tuple.*astype\(str\)"):
        read(frame)


@BACKENDS
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_targets(convert, value):
    frame = convert(changed(6, y=value))
    with pytest.raises(
        TargetError, match=f"id 'b', row 6: .*finite number, found {value}"
    ) as caught:
        read(frame)
    check(caught.value, column="y", id="b", row=6)


@BACKENDS
def test_targets_that_are_no_numbers(convert):
    frame = convert(daily().assign(y=["0", "1", "x", "3"] * 2))
    with pytest.raises(TargetError, match=r"row 0: expected numbers, found '0'.*to_numeric"):
        read(frame)
    with pytest.raises(TargetError, match="expected numbers, found"):
        read(convert(daily().assign(y=daily()["ds"])))


def test_an_odd_value_among_numbers_is_named():
    frame = changed(5, y="n/a")
    with pytest.raises(TargetError, match=r"id 'b', row 5: .*found 'n/a' in a column") as caught:
        read(frame)
    check(caught.value, column="y", id="b", row=5)


@BACKENDS
def test_stamps_that_are_strings(convert):
    frame = convert(daily().assign(ds=daily()["ds"].astype(str)))
    with pytest.raises(TimeError, match=r"found '2024-01-01' .*to_datetime") as caught:
        read(frame)
    check(caught.value, column="ds", id="a", row=0)


@pytest.mark.parametrize(
    ("ds", "match"),
    [
        ([datetime.date(2024, 1, k + 1) for k in range(8)], r"datetime.date.*pd.to_datetime"),
        (list(pd.date_range("2024", periods=8)), r"Timestamp.*pd.to_datetime"),
        (np.arange(8) / 2, r"found 0.0 .*astype\('int64'\)"),
        ([True] * 8, "found True"),
    ],
)
def test_stamps_of_other_types(ds, match):
    ds = pd.Series(ds, dtype=None if isinstance(ds, np.ndarray) else object)
    with pytest.raises(TimeError, match=match):
        read(daily().assign(ds=ds))


def test_mixed_time_zones():
    ds = [pd.Timestamp("2024-03-30", tz="Europe/Berlin") + pd.Timedelta(days=k) for k in range(8)]
    ds[5] = ds[5].tz_convert("UTC")
    frame = daily().assign(ds=pd.Series(ds, dtype=object))
    with pytest.raises(
        TimeError, match=r"id 'b', row 5: expected one time zone.*utc=True"
    ) as caught:
        read(frame)
    check(caught.value, column="ds", id="b", row=5)


@BACKENDS
def test_stamps_off_the_grid(convert):
    frame = convert(changed(6, ds=pd.Timestamp("2024-01-03 05:00")))
    with pytest.raises(
        TimeError, match=r"id 'b', row 6: .*such as 2024-01-03 or .*05:00"
    ) as caught:
        read(frame, freq="D")
    check(caught.value, column="ds", id="b", row=6)
    shifted = convert(changed(4, ds=pd.Timestamp("2024-01-01 05:00")))
    with pytest.raises(TimeError, match=r"id 'b', row 5: .*first row .* 05:00:00; found") as caught:
        read(shifted, freq="D")
    check(caught.value, column="ds", id="b", row=5)
    monthly = daily(freq="MS")
    monthly.loc[6, "ds"] = pd.Timestamp("2024-03-02")
    with pytest.raises(TimeError, match=r"row 6: .*freq='MS', such as 2024-03-01 or 2024-04-01"):
        read(convert(monthly), freq="MS")


def test_the_first_row_off_the_grid_is_named_in_the_order_of_the_frame():
    frame = daily(freq="MS", steps=5)
    frame.loc[[3, 7], "ds"] += pd.Timedelta(days=1)
    with pytest.raises(TimeError) as caught:
        read(frame.iloc[::-1], freq="MS")
    check(caught.value, column="ds", id="b", row=2)


def test_frequencies_that_cannot_be_inferred():
    with pytest.raises(TimeError, match=r"id 'b', row 0: .*one row only. Give freq=") as caught:
        read(daily(("b", "a"), steps=1))
    check(caught.value, column="ds", id="b", row=0)
    frame = pd.concat([daily(("a",)), daily(("b",), freq="2D")], ignore_index=True)
    with pytest.raises(TimeError, match="2 days here and of 1 day in id 'a'") as caught:
        read(frame)
    check(caught.value, column="ds", id="b", row=4)
    assert read(frame, freq="D").panel.rows == 11


def test_old_aliases():
    with pytest.raises(TimeError, match=r"'H'. It is now 'h'"):
        read(daily(freq="h"), freq="H")


def test_time_zones_without_a_name(monkeypatch):
    def nameless(_):
        raise TimeError("expected a time zone with a name")

    monkeypatch.setattr("seqlatent.forecasting.frames.timestamps.zone", nameless)
    with pytest.raises(TimeError, match=r"df: column 'ds', id 'a', row 0: .* a name"):
        read(daily(tz="UTC"))


def test_two_rows_in_one_step():
    twice = pd.DatetimeIndex(["2024-10-26 02:30", "2024-10-27 02:30", "2024-10-27 02:30"])
    ds = twice.tz_localize("Europe/Berlin", ambiguous=[True, True, False])
    frame = daily(("a",), steps=3).assign(ds=ds)
    with pytest.raises(TimeError, match="row 2: expected one row per step of freq='D'") as caught:
        read(frame, freq="D")
    check(caught.value, column="ds", id="a", row=2)


def test_a_grid_that_is_far_too_fine():
    frame = daily(("a",), steps=3).assign(ds=[0, 1, 10**9])
    with pytest.raises(TimeError, match=r"found 3 rows in 1000000001 steps.*'irregular'") as caught:
        read(frame)
    check(caught.value, column="ds", id="a", row=0)


@pytest.mark.parametrize("tz", [None, "UTC"])
def test_stamps_of_another_kind_than_in_training(tz):
    time_index = read(daily(tz=tz)).panel.time_index
    with pytest.raises(
        TimeError, match=r"expected datetimes with.* as in training, found integers"
    ):
        read(daily().assign(ds=np.arange(8)), time_index=time_index)
    other = daily(tz="UTC" if tz is None else None)
    with pytest.raises(TimeError, match=rf"found datetimes with.*tz_localize\({tz!r}\)") as caught:
        read(other, time_index=time_index)
    check(caught.value, column="ds", id="a", row=0)


def test_columns_without_a_role():
    match = r"column 'region': .*get_dummies.*past=.*static_df"
    with pytest.raises(ColumnError, match=match) as caught:
        read(daily(region="north"))
    check(caught.value, column="region")
    with pytest.raises(ColumnError, match=match):
        read(daily(region=pd.Series(["north", None] * 4, dtype=object)))
    with pytest.raises(CovariateError, match="expected numbers, found 'x'"):
        read(daily(mixed=pd.Series([1, "x"] * 4, dtype=object)))
    with pytest.raises(CovariateError, match="expected numbers, found 'north'"):
        read(daily(region="north"), Columns(past=["region"]))


@BACKENDS
@pytest.mark.parametrize(("value", "word"), [(np.nan, "missing"), (np.inf, "found inf")])
def test_covariates_known_ahead_are_finite(convert, value, word):
    price = np.ones(8)
    price[[6, 5]] = value
    with pytest.raises(CovariateError, match=f"'price', id 'b', row 5: .*{word}") as caught:
        read(convert(daily(price=price)))
    check(caught.value, column="price", id="b", row=5)


def test_past_covariates_may_be_missing_but_not_infinite():
    columns = Columns(past=["load"])
    panel = read(daily(load=[np.nan, 1] * 4).drop(2), columns).panel
    np.testing.assert_array_equal(panel.past[:4, 0], [np.nan, 1, np.nan, 1])
    with pytest.raises(CovariateError, match="'load', id 'a', row 1"):
        read(daily(load=[1, np.inf] * 4), columns)


@BACKENDS
def test_gaps_in_covariates(convert):
    frame = convert(daily(price=1.0).drop(6).reset_index(drop=True))
    match = "id 'b', row 5: .*no row at 2024-01-03, after this one. Add the row"
    with pytest.raises(CovariateError, match=match) as caught:
        read(frame)
    check(caught.value, column="ds", id="b", row=5)
    assert read(frame, NO_COVARIATES).panel.rows == 8


# Style


def test_a_style_gives_all_kinds_of_columns():
    for frame in (daily(), pl.from_pandas(daily())):
        style = read(frame).output_format
        out = style.frame(
            {
                "unique_id": np.array(["new", "a"], object),
                "ds": np.array(["2024-01-01", "2024-01-02"], "datetime64[us]"),
                "cutoff": np.array(["2024-01-01", "2024-01-02"], "datetime64[s]"),
                "name": np.array(["level", "trend"], object),
                "sample_id": np.arange(2),
                "srnn": np.ones(2),
            }
        )
        assert type(out) is type(frame)
        assert list(out.columns) == ["unique_id", "ds", "cutoff", "name", "sample_id", "srnn"]
        assert out["cutoff"].dtype == frame["ds"].dtype
        assert out["ds"].dtype == frame["ds"].dtype


def test_identifiers_that_training_did_not_know():
    unseen = np.array(["a", "new"], object)
    category = daily().astype({"unique_id": "category"})
    out = read(category).output_format.frame({"unique_id": unseen})
    assert out["unique_id"].tolist() == ["a", "new"]
    enum = pl.from_pandas(daily()).cast({"unique_id": pl.Enum(["b", "a"])})
    assert read(enum).output_format.frame({"unique_id": unseen})["unique_id"].to_list() == [
        "a",
        "new",
    ]
    ints = read(daily((1, 2))).output_format.frame({"unique_id": unseen})
    assert ints["unique_id"].tolist() == ["a", "new"]


def test_stamps_too_large_for_their_type_stay_whole():
    frame = daily(("a",)).assign(ds=np.array([124, 125, 126, 127], np.int8))
    reading = read(frame)
    ahead = reading.output_format.frame(
        {"ds": reading.panel.time_index.stamps(reading.panel.t + 4)}
    )
    assert ahead["ds"].tolist() == [128, 129, 130, 131]
    narrow = pl.DataFrame({"unique_id": "a", "ds": pl.Series([126, 127], dtype=pl.Int8), "y": 1.0})
    reading = read(narrow)
    ahead = reading.output_format.frame(
        {"ds": reading.panel.time_index.stamps(reading.panel.t + 2)}
    )
    assert ahead["ds"].to_list() == [128, 129]


@pytest.mark.parametrize(
    "convert",
    [
        lambda f: f.assign(ds=f["ds"].astype("date32[day][pyarrow]")),
        lambda f: pl.from_pandas(f).with_columns(pl.col("ds").cast(pl.Date)),
    ],
    ids=["pandas", "polars"],
)
def test_days_without_a_time_cannot_hold_hours(convert):
    with pytest.raises(TimeError, match=r"dates have no time of day.*freq='h'"):
        read(convert(daily()), freq="h")
    weekly = convert(daily(freq="W-WED"))
    assert read(weekly).panel.time_index.freq == "W-WED"


# Static features


def features(ids=("b", "a", "c")):
    return pd.DataFrame(
        {
            "unique_id": list(ids),
            "size": [3.0, 1.0, 100.0][: len(ids)],
            "kind": ["x", "y", "z"][: len(ids)],
            "open": [True, False, True][: len(ids)],
        }
    )


@BACKENDS
def test_static_features(convert):
    panel, _, statics, _ = read(daily(), static=convert(features()))
    assert statics.reals == ("size",)
    assert statics.categories == ("kind", "open")
    assert statics.names == ("size", "kind", "open")
    assert statics.vocabularies == (("x", "y"), (False, True))  # of the ids of the panel, sorted
    assert statics.cardinalities == (3, 3)
    np.testing.assert_allclose(panel.real, [[-1.0], [1.0]])
    assert panel.codes.tolist() == [[2, 1], [1, 2]]
    known = Statics.from_dict(json.loads(json.dumps(statics.to_dict())))
    assert known == statics
    new = read(daily(("c", "a")), static=convert(features()), statics=known).panel
    assert new.codes.tolist() == [[0, 2], [2, 1]]  # 'z' was not seen in training
    np.testing.assert_allclose(new.real, [[98.0], [-1.0]])


def test_kinds_of_static_features():
    frame = (
        features()
        .astype({"kind": "category"})
        .assign(
            code=pd.Categorical([7, 8, 7]),
            flag=pd.array([True, False, True], dtype="boolean"),
            same=2,
            mixed=pd.Series(["u", True, "u"], dtype=object),
        )
    )
    real, codes, statics = read_static(frame, np.array(["a", "b", "c"], object))
    assert statics.reals == ("size", "same")
    assert statics.scales[1] == 1
    assert real[:, 1].tolist() == [0, 0, 0]
    assert dict(zip(statics.categories, statics.vocabularies, strict=True))["code"] == (7, 8)
    assert codes[:, statics.categories.index("mixed")].tolist() == [1, 2, 2]
    assert json.loads(json.dumps(statics.to_dict()))


class Counted(str):
    """Text that counts how often it is looked up."""

    hashed = 0

    def __hash__(self):
        Counted.hashed += 1
        return str.__hash__(self)


def test_categories_are_looked_up_a_few_times_each():
    ids = np.array([Counted(i) for i in range(500)], object)
    kept = OutputFormat(id="category", categories=tuple(ids[:400]))
    Counted.hashed = 0
    found = kept.frame({"unique_id": ids})["unique_id"]
    assert Counted.hashed < 20 * len(ids)  # against a set that is made anew for each: 200,000
    assert found.tolist() == found.cat.categories.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"target": 3}, "target must be a column name, found 3"),
        ({"target": None}, "target must be a column name, found None"),
        ({"target": ["y", 3]}, "target must be a column name, found 3"),
        ({"future": 3}, "future must be a list of column names, found 3"),
        ({"past": 2.5}, "past must be a list of column names, found 2.5"),
        ({"past": "x"}, r"past must be a list .* write \['x'\]"),
        ({"id": 3}, "id must be a column name, found 3"),
    ],
)
def test_names_of_columns_are_names(given, match):
    columns = object.__new__(Columns)  # whose types no other check has seen before
    vars(columns).update(vars(Columns()) | given)
    with pytest.raises(TypeError, match=match):
        columns.__post_init__()


def test_static_features_do_not_follow_the_order_of_the_series():
    values = np.random.default_rng(0).normal(0, 1e5, 9)
    ids = np.array([*"abcdefghi"], object)
    frame = pd.DataFrame({"unique_id": ids, "size": values, "same": 0.1, "kind": [*"ihgfedcbi"]})
    _, codes, statics = read_static(frame, ids)
    assert statics.means[1] == 0.1  # where a mean of nine rounds
    assert statics.scales[1] == 1
    for k in range(5):
        other = np.random.default_rng(k).permutation(ids)
        _, there, found = read_static(frame.sample(frac=1, random_state=k), other)
        assert found == statics
        assert dict(zip(other, there.tolist(), strict=True)) == dict(
            zip(ids, codes.tolist(), strict=True)
        )


def test_no_static_features():
    panel, _, statics, _ = read(daily())
    assert panel.real.shape == panel.codes.shape == (2, 0)
    assert statics == Statics()
    _, _, known, _ = read(daily(), static=features())
    with pytest.raises(CovariateError, match=r"static_df: expected.*\['size', 'kind', 'open'\]"):
        read(daily(), statics=known)
    ignored = read(daily(), static=features(), statics=Statics()).panel
    assert ignored.real.shape == (2, 0)


STATIC_ERRORS = [
    (features(("b", "x", "c")), CovariateError, "none for id 'a'", ("unique_id", "a", None)),
    (features((1, 2, 3)), CovariateError, "such as 1, of type int", ("unique_id", "a", None)),
    (features(("b", "a", "a")), CovariateError, "id 'a', row 2: .*one row", ("unique_id", "a", 2)),
    (features().assign(size=[1, np.nan, 2]), CovariateError, "missing", ("size", "a", 1)),
    (features().assign(size=[1, np.inf, 2]), CovariateError, "finite", ("size", "a", 1)),
    (features().assign(kind=["x", None, "y"]), CovariateError, "missing", ("kind", "a", 1)),
    (features().assign(kind=pd.Timestamp("2024")), ColumnError, "Convert", ("kind", None, None)),
    (features().drop(columns="unique_id"), ColumnError, "'unique_id'", ("unique_id", None, None)),
]


@pytest.mark.parametrize(("frame", "error", "match", "place"), STATIC_ERRORS)
def test_errors_of_static_features(frame, error, match, place):
    with pytest.raises(error, match=f"static_df: .*{match}") as caught:
        read(daily(), static=frame)
    assert (caught.value.column, caught.value.id, caught.value.row) == place


def test_static_features_of_series_not_asked_for_may_be_anything():
    frame = features().assign(size=[1, 2, np.nan], kind=["x", "y", None])
    assert read(daily(), static=frame).panel.real.shape == (2, 1)


def test_static_features_stay_of_their_kind():
    _, _, statics, _ = read(daily(), static=features())
    with pytest.raises(ColumnError, match="'size': expected numbers as in training, found str"):
        read(daily(), static=features().assign(size="x"), statics=statics)
    with pytest.raises(ColumnError, match="expected a column 'kind'"):
        read(daily(), static=features().drop(columns="kind"), statics=statics)


# The rows to forecast


def future_of(panel, h, **columns):
    stamps = panel.time_index.stamps(panel.last[:, None] + np.arange(1, h + 1))
    frame = {"unique_id": np.repeat(panel.ids, h), "ds": stamps.reshape(-1)}
    return pd.DataFrame({**frame, "price": np.arange(panel.batch * h, dtype=float), **columns})


def ahead(frame, panel, h, names=("price",), columns=None):
    return read_future(frame, panel.ids, panel.time_index, panel.last, h, names, columns)


@pytest.fixture
def panel():
    frame = daily(("b", "a", "c"), price=1.0)
    return read(frame.drop(3)).panel  # series end at different times


@BACKENDS
def test_future_covariates_in_any_order(convert, panel):
    frame = future_of(panel, 3)
    expected = np.arange(9.0).reshape(3, 3, 1)
    more = pd.concat(
        [
            future_of(panel, 5).groupby("unique_id").tail(2),
            daily(("b", "other"), steps=3, price=np.inf),
            frame,
        ]
    ).sample(frac=1, random_state=0)
    for rows in (frame, more.assign(note="x")):
        future = ahead(convert(rows), panel, 3)
        assert future.t.tolist() == (panel.last[:, None] + [1, 2, 3]).tolist()
        np.testing.assert_array_equal(future.u, expected)
        assert future.horizon == 3


def test_without_covariates_no_frame_is_needed(panel):
    for frame in (None, future_of(panel, 2)):
        future = ahead(frame, panel, 2, ())
        assert future.u.shape == (3, 2, 0)
        assert future.t.tolist() == [[3, 4], [4, 5], [4, 5]]
    with pytest.raises(
        CovariateError, match=r"X_df: expected.*\['price'\].*found no X_df"
    ) as caught:
        ahead(None, panel, 2)
    check(caught.value, column="price")


@pytest.mark.parametrize("h", [0, -1, 1.5, True, "3"])
def test_horizons(panel, h):
    with pytest.raises(ValueError, match=f"h must be a number of steps of at least 1, found {h!r}"):
        ahead(None, panel, h, ())


def test_a_horizon_must_be_given(panel):
    with pytest.raises(ValueError, match="h must be given where"):
        ahead(None, panel, None, ())
    with pytest.raises(ValueError, match="only an irregular time index"):
        ahead(future_of(panel, 2), panel, None)


def with_value(frame, row, name, value):
    frame = frame.copy()
    frame.loc[row, name] = value
    return frame


FUTURE_ERRORS = [
    (lambda f: f[f["unique_id"] != "a"], CovariateError, "none for id 'a'", "unique_id", "a", None),
    (
        lambda f: f.drop(4),
        CovariateError,
        "id 'a': .*2024-01-04, found none at 2024-01-06",
        "ds",
        "a",
        None,
    ),
    (lambda f: f.iloc[[*range(9), 4]], TimeError, "row 9: .*once per series", "ds", "a", 9),
    (
        lambda f: with_value(f, 4, "price", np.nan),
        CovariateError,
        "missing one at 2024-01-06",
        "price",
        "a",
        4,
    ),
    (lambda f: with_value(f, 4, "price", np.inf), CovariateError, "found inf", "price", "a", 4),
    (lambda f: f.assign(price="x"), CovariateError, "expected numbers, found 'x'", "price", "b", 0),
    (
        lambda f: f.drop(columns="price"),
        ColumnError,
        "expected a column 'price'",
        "price",
        None,
        None,
    ),
    (
        lambda f: with_value(f, 4, "ds", pd.Timestamp("2024-01-06 01:00")),
        TimeError,
        "row 4: .*grid of freq='D'",
        "ds",
        "a",
        4,
    ),
    (lambda f: f.assign(ds=np.arange(9)), TimeError, "found integers", "ds", "b", 0),
    (lambda f: f.assign(ds=f["ds"].dt.tz_localize("UTC")), TimeError, "time zone", "ds", "b", 0),
    (
        lambda f: f.assign(unique_id=1),
        CovariateError,
        "such as 1, of type int",
        "unique_id",
        "b",
        None,
    ),
]


@BACKENDS
@pytest.mark.parametrize(("spoil", "error", "match", "column", "id", "row"), FUTURE_ERRORS)
def test_errors_of_future_covariates(convert, panel, spoil, error, match, column, id, row):
    frame = convert(spoil(future_of(panel, 3)))
    with pytest.raises(error, match=f"X_df: .*{match}") as caught:
        ahead(frame, panel, 3)
    check(caught.value, column=column, id=id, row=row)


def test_future_of_irregular_times():
    frame = daily(("b", "a")).assign(ds=[0, 2, 4, 7, 1, 3, 5, 7])
    panel = read(frame, freq="irregular").panel
    assert ahead(None, panel, 2, ()).t.tolist() == (panel.last[:, None] + [1, 2]).tolist()
    times = pd.DataFrame(
        {
            "unique_id": ["a", "b", "a", "b", "a"],
            "ds": [9, 20, 8, 10, 7],
            "price": [9, 20, 8, 10, 7],
        }
    )
    for h in (2, None):
        future = ahead(times, panel, h)
        assert panel.time_index.stamps(future.t).tolist() == [[10, 20], [8, 9]]
        assert future.u[..., 0].tolist() == [[10, 20], [8, 9]]
    assert ahead(times, panel, 1).u[..., 0].tolist() == [[10], [8]]
    with pytest.raises(CovariateError, match=r"id 'b': expected 3 rows after .*found 2") as caught:
        ahead(times, panel, 3)
    check(caught.value, column="ds", id="b")
    with pytest.raises(TimeError, match=r"id 'a', row 5: .*once per series"):
        ahead(pd.concat([times, times.iloc[[2]]], ignore_index=True), panel, 2)


def test_future_across_daylight_saving():
    panel = read(daily(("a",), start="2024-03-27", tz="Europe/Berlin", price=1.0)).panel
    frame = daily(("a",), start="2024-03-31", tz="Europe/Berlin", price=2.0, steps=3)
    assert ahead(frame, panel, 3).u.ravel().tolist() == [2, 2, 2]
    abroad = frame.assign(ds=frame["ds"].dt.tz_convert("Asia/Tokyo"))
    assert ahead(abroad, panel, 3).u.ravel().tolist() == [2, 2, 2]


def test_tables_name_their_backend():
    assert Table.open(daily(), Columns()).backend == "pandas"
    assert Table.open(pl.from_pandas(daily()), Columns()).backend == "polars"
