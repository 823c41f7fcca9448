"""Pictures: what is drawn where, what axes are called, what is refused; nothing is left behind."""

from importlib.util import find_spec

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.dates import ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from seqlatent.forecasting import plots
from seqlatent.forecasting.errors import ColumnError, DataError, TargetError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots import (
    components,
    fan,
    fans,
    horizon_scores,
    latents,
    pit_histogram,
    reliability,
    spaghetti,
)
from seqlatent.forecasting.plots.calibration import _binomial

HORIZON = 6
WIDTH = {50: 0.7, 80: 1.3, 95: 2.0}


@pytest.fixture(autouse=True)
def nothing_left():
    """No picture changes a setting or leaves a figure open."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def stamps(count, dates=False, start=0):
    every = np.arange(start, start + count)
    return pd.Timestamp("2024-01-01") + pd.to_timedelta(every, "D") if dates else every


def observed(ids=("a",), steps=30, dates=False, start=0):
    t = np.arange(start, start + steps)
    parts = [
        pd.DataFrame({"unique_id": id, "ds": stamps(steps, dates, start), "y": np.sin(t) + 10 * i})
        for i, id in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True)


def predicted(
    ids=("a",), models=("srnn",), levels=(80, 95), dates=False, start=30, horizon=HORIZON
):
    frame = observed(ids, horizon, dates, start)
    middle = frame.pop("y")
    for shift, model in enumerate(models):
        frame[model] = middle + shift
        frame[f"{model}-mean"] = middle + shift
        for level in levels:
            frame[f"{model}-lo-{level}"] = middle + shift - WIDTH[level]
            frame[f"{model}-hi-{level}"] = middle + shift + WIDTH[level]
    return frame


def sampled(samples=20, ids=("a",)):
    frame = predicted(ids, levels=())[["unique_id", "ds", "srnn"]]
    parts = [frame.assign(sample_id=n, srnn=frame["srnn"] + 0.1 * n) for n in range(samples)]
    return pd.concat(parts, ignore_index=True)


def smoothed(names=(("signal", "signal"), ("level", "component"), ("season", "component"))):
    parts = [
        observed().rename(columns={"y": "mean"}).assign(model="structural", kind=kind, name=name)
        for name, kind in names
    ]
    frame = pd.concat(parts, ignore_index=True)
    for level in (80, 95):
        frame[f"lo-{level}"] = frame["mean"] - WIDTH[level]
        frame[f"hi-{level}"] = frame["mean"] + WIDTH[level]
    return frame


def backtested(levels=(50, 80, 95), models=("srnn",), windows=2):
    parts = [
        predicted(models=models, levels=levels, start=30 + HORIZON * window).assign(
            cutoff=29 + HORIZON * window
        )
        for window in range(windows)
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(y=frame[models[0]] + np.linspace(-1.5, 1.5, len(frame)))


def areas(ax):
    return [one for one in ax.collections if isinstance(one, PolyCollection)]


def said(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestFan:
    def test_bands_lines_and_names(self):
        ax = fan(observed(), predicted(levels=(50, 80, 95)))
        assert isinstance(ax, Axes)
        assert len(areas(ax)) == 3
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == ("ds", "y", "a")
        assert said(ax) == ["observed", "srnn", "50 %", "80 %", "95 %"]

    def test_wider_bands_are_lighter_and_below(self):
        wide, narrow = sorted(
            areas(fan(observed(), predicted())),
            key=lambda one: -np.ptp(one.get_datalim(one.axes.transData).intervaly),
        )
        assert wide.get_facecolor().mean() > narrow.get_facecolor().mean()
        assert wide.get_zorder() < narrow.get_zorder()

    def test_limits_hold_all_that_is_shown(self):
        history, forecasts = observed(), predicted()
        ax = fan(history, forecasts)
        low, high = ax.get_xlim()
        assert low <= 0
        assert high >= 35
        low, high = ax.get_ylim()
        assert low <= forecasts["srnn-lo-95"].min()
        assert high >= forecasts["srnn-hi-95"].max()

    def test_boundary_lies_between_past_and_future(self):
        ax = fan(observed(), predicted())
        assert [one.get_xdata()[0] for one in ax.lines if len(set(one.get_xdata())) == 1] == [29.5]

    def test_levels_choose_bands(self):
        forecasts = predicted(levels=(50, 80, 95))
        assert len(areas(fan(observed(), forecasts, levels=(95,)))) == 1
        assert len(areas(fan(observed(), forecasts, levels=()))) == 0

    def test_quantile_columns_are_ends_of_bands(self):
        forecasts = predicted(levels=())
        for level, shift in ((0.1, -1), (0.5, 0), (0.9, 1)):
            forecasts[f"srnn_ql{level}"] = forecasts["srnn"] + shift
        assert said(fan(observed(), forecasts))[-1] == "80 %"

    def test_history_after_the_first_stamp_is_truth(self):
        ax = fan(observed(steps=34), predicted())
        assert said(ax)[:2] == ["observed", "truth"]
        lengths = [len(one.get_xdata()) for one in ax.lines]
        assert 30 in lengths
        assert 4 in lengths

    def test_truth_may_be_the_whole_series(self):
        ax = fan(observed(), predicted(), truth=observed(steps=40))
        truth = next(one for one in ax.lines if one.get_marker() == "o")
        np.testing.assert_array_equal(truth.get_xdata(), np.arange(30, 36))

    def test_last_rows_of_history(self):
        ax = fan(observed(steps=30), predicted(), last=7)
        assert min(min(one.get_xdata()) for one in ax.lines) == 23
        ax = fan(observed(steps=200), predicted(start=200))
        assert min(min(one.get_xdata()) for one in ax.lines) == 150

    def test_missing_values_and_rows_are_gaps(self):
        history = observed()
        history.loc[10, "y"] = np.nan
        line = fan(history, predicted()).lines[-2]
        assert np.isnan(line.get_ydata()).sum() == 1
        line = fan(history.drop(index=[20, 21]), predicted()).lines[-2]
        assert np.isnan(line.get_ydata()).sum() == 2

    def test_a_value_alone_between_gaps_is_a_dot(self):
        history = observed()
        history.loc[[9, 11], "y"] = np.nan
        dots = [one for one in fan(history, predicted()).lines if one.get_marker() == "."]
        assert [one.get_xdata().tolist() for one in dots] == [[10.0]]

    def test_weekends_are_no_gaps(self):
        history = observed(steps=90, dates=True)
        history = history[history["ds"].dt.day_of_week < 5]
        line = fan(history, predicted(start=90, dates=True)).lines[-2]
        assert np.isfinite(line.get_ydata()).all()

    def test_a_single_step_has_width(self):
        ax = fan(observed(), predicted(horizon=1))
        assert all(np.ptp(one.get_paths()[0].vertices[:, 0]) > 0.5 for one in areas(ax))

    def test_several_models_have_a_band_each(self):
        ax = fan(observed(), predicted(models=("srnn", "ets", "naive")))
        assert len(areas(ax)) == 3
        assert said(ax) == ["observed", "srnn, 80 %", "ets, 80 %", "naive, 80 %"]
        lines = [one for one in ax.lines if one.get_linewidth() == 1.6]
        assert len({one.get_color() for one in lines}) == 3
        assert len({str(one._dash_pattern) for one in lines}) == 3

    def test_a_model_without_intervals_beside_one_that_has_some(self):
        forecasts = predicted().assign(naive=0.0)
        assert said(fan(observed(), forecasts)) == ["observed", "srnn, 80 %", "naive"]
        assert said(fan(observed(), forecasts, model="srnn"))[-1] == "95 %"

    def test_several_models_with_several_levels(self):
        ax = fan(observed(), predicted(models=("srnn", "ets")), levels=(80, 95))
        assert len(areas(ax)) == 4
        assert said(ax) == ["observed", "srnn, 80, 95 %", "ets, 80, 95 %"]

    def test_many_bands_have_a_short_legend(self):
        forecasts = predicted(levels=())
        for level in range(10, 100, 10):
            forecasts[f"srnn-lo-{level}"] = forecasts["srnn"] - level
            forecasts[f"srnn-hi-{level}"] = forecasts["srnn"] + level
        ax = fan(observed(), forecasts)
        assert len(areas(ax)) == 9
        assert said(ax)[-2:] == ["10 %", "90 %"]

    def test_nullable_and_categorical_columns(self):
        history, forecasts = observed(), predicted()
        plain = fan(history, forecasts)
        history["y"] = history["y"].astype("Float64")
        history["ds"] = history["ds"].astype("Int64")
        history["unique_id"] = history["unique_id"].astype("category")
        for one, other in zip(fan(history, forecasts).lines, plain.lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())

    def test_dates_are_concise_and_carry_their_zone(self):
        history, forecasts = observed(dates=True), predicted(dates=True)
        ax = fan(history, forecasts)
        assert isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)
        assert ax.get_xlim()[0] <= date2num(history["ds"].min())
        for frame in (history, forecasts):
            frame["ds"] = frame["ds"].dt.tz_localize("Europe/Berlin")
        assert fan(history, forecasts).get_xlabel() == "ds (Europe/Berlin)"
        for frame in (history, forecasts):
            frame["ds"] = frame["ds"].dt.tz_convert("+02:00")
        assert fan(history, forecasts).get_xlabel() == "ds (UTC)"

    @pytest.mark.parametrize("dates", [False, True])
    def test_polars(self, dates):
        pl = pytest.importorskip("polars")
        history, forecasts = observed(dates=dates), predicted(dates=dates)
        history.loc[3, "y"] = np.nan
        ours = fan(pl.from_pandas(history), pl.from_pandas(forecasts))
        theirs = fan(history, forecasts)
        assert len(areas(ours)) == 2
        for one, other in zip(ours.lines, theirs.lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())

    def test_pandas_series_and_wide_frames(self):
        history = observed(dates=True).set_index("ds")["y"]
        assert fan(history, predicted(("y",), dates=True)).get_title("left") == "y"
        wide = history.rename("a").to_frame().assign(b=1.0)
        wide.index = wide.index.to_period("D")
        assert len(fan(wide, predicted(("b",), dates=True)).lines) == 3

    def test_rows_in_any_order(self):
        history, forecasts = observed(), predicted()
        ax = fan(history.sample(frac=1, random_state=0), forecasts.sample(frac=1, random_state=1))
        for one, other in zip(ax.lines, fan(history, forecasts).lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())

    def test_own_column_names_name_the_axes(self):
        names = {"unique_id": "shop", "ds": "day", "y": "sales (pieces)"}
        ax = fan(
            observed().rename(columns=names),
            predicted().rename(columns=names),
            columns=Columns(id="shop", time="day", target="sales (pieces)"),
        )
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("day", "sales (pieces)")

    def test_one_of_several_targets(self):
        history = observed().rename(columns={"y": "flow"}).assign(level=1.0)
        forecasts = pd.concat([predicted().assign(target=one) for one in ("flow", "level")])
        ax = fan(history, forecasts, target="level")
        assert (ax.get_ylabel(), ax.get_title("left")) == ("level", "a, level")
        with pytest.raises(DataError, match=r"target must be named .* one of 'flow', 'level'"):
            fan(history, forecasts)

    def test_windows_of_a_backtest(self):
        ax = fan(observed(steps=42), backtested())
        assert len(areas(ax)) == 6
        assert len([one for one in ax.lines if len(set(one.get_xdata())) == 1]) == 2
        overlapping = pd.concat([predicted(start=start).assign(cutoff=start) for start in (30, 32)])
        assert len(areas(fan(observed(), overlapping))) == 2

    def test_axes_that_are_given(self):
        given = Figure().subplots()
        assert fan(observed(), predicted(), ax=given) is given

    def test_long_names_leave_the_legend_its_line(self):
        name = "a series with a name of many words"
        models = ("structural", "srnn", "seasonal_naive", "ets")
        ax = fan(observed((name,)), predicted((name,), models))
        ax.figure.draw_without_rendering()
        title = ax._left_title.get_window_extent()
        assert not title.overlaps(ax.get_legend().get_window_extent())


class TestFanRefuses:
    def test_unknown_series_lists_some(self):
        ids = tuple(f"s{i}" for i in range(9))
        with pytest.raises(
            DataError, match=r"found 'x'; there are 's0', .* \(9 in all\)"
        ) as caught:
            fan(observed(ids), predicted(ids), id="x")
        assert caught.value.id == "x"
        with pytest.raises(DataError, match="id must be named"):
            fan(observed(ids), predicted(ids))
        with pytest.raises(DataError, match="series of history, found 's8'; there are 's0'"):
            fan(observed(ids[:2]), predicted(ids), id="s8")

    @pytest.mark.parametrize("kind", ["pandas", "polars"])
    def test_an_identifier_of_another_type(self, kind):
        history, forecasts = observed((1, 2)), predicted(("1", "2"))
        other = history.assign(unique_id=forecasts["unique_id"][0])
        if kind == "polars":
            pl = pytest.importorskip("polars")
            history, forecasts = pl.from_pandas(history), pl.from_pandas(forecasts)
        with pytest.raises(DataError, match="series of history, found '1'; there are 1, 2"):
            fan(history, forecasts, id="1")
        if kind == "polars":
            other = pl.from_pandas(other)
        numbers = predicted((1, 2)) if kind == "pandas" else pl.from_pandas(predicted((1, 2)))
        with pytest.raises(DataError, match="series of history, found 1; there are '1'"):
            fan(other, numbers, id=1)

    def test_no_intervals(self):
        with pytest.raises(ColumnError, match=r"level=\(80, 95\).* levels=\(\)") as caught:
            fan(observed(), predicted(levels=()))
        assert caught.value.column == "srnn-lo-80"

    def test_a_level_that_is_not_there(self):
        with pytest.raises(ColumnError, match="found 50; there are: 80, 95"):
            fan(observed(), predicted(), levels=(50,))

    def test_unknown_model(self):
        with pytest.raises(DataError, match="found 'ets'; there are 'srnn'"):
            fan(observed(), predicted(), model="ets")
        with pytest.raises(ValueError, match="at most 6 models"):
            fan(observed(), predicted(models=tuple("abcdefg")))

    @pytest.mark.parametrize("column", ["unique_id", "ds", "y"])
    def test_missing_columns(self, column):
        with pytest.raises(ColumnError, match=f"column '{column}'") as caught:
            fan(observed().drop(columns=column), predicted())
        assert caught.value.column == column

    def test_no_models(self):
        with pytest.raises(ColumnError, match="a column for each model"):
            fan(observed(), observed(start=30))

    def test_samples_are_no_fan(self):
        with pytest.raises(ColumnError, match="spaghetti"):
            fan(observed(), sampled(), levels=())

    def test_other_things_than_frames(self):
        with pytest.raises(
            TypeError, match="history must be a pandas or a polars frame, found dict"
        ):
            fan({"y": [1]}, predicted())
        with pytest.raises(DataError, match="forecasts must have rows"):
            fan(observed(), predicted().head(0))

    def test_stamps_of_two_kinds(self):
        with pytest.raises(TimeError, match="dates, found numbers"):
            fan(observed(), predicted(dates=True))
        with pytest.raises(TimeError, match="dates, periods or integers, found"):
            fan(observed(), predicted().assign(ds="monday"))

    def test_text_for_numbers(self):
        with pytest.raises(ColumnError, match="'y' of history must hold numbers"):
            fan(observed().assign(y="many"), predicted())


class TestFans:
    ids = tuple(f"s{i}" for i in range(10))

    def test_a_panel_for_each_series(self):
        axes = fans(observed(self.ids), predicted(self.ids))
        assert axes.shape == (8,)
        assert [ax.get_title("left") for ax in axes] == list(self.ids[:8])
        assert len(axes[0].figure.axes) == 8
        assert len(axes[0].figure.legends) == 1
        assert fans(observed(self.ids), predicted(self.ids), ids=["s9", "s0", "s4"]).shape == (3,)
        assert fans(observed(self.ids), predicted(self.ids), max_ids=1).shape == (1,)

    def test_models_apart_share_a_scale(self):
        axes = fans(
            observed(self.ids), predicted(self.ids, ("srnn", "ets")), max_ids=2, separate=True
        )
        titles = [ax.get_title("left") for ax in axes]
        assert titles == ["s0, srnn", "s0, ets", "s1, srnn", "s1, ets"]
        assert axes[0].get_ylim() == axes[1].get_ylim() != axes[2].get_ylim()

    def test_a_panel_for_each_target(self):
        history = observed().rename(columns={"y": "flow"}).assign(level=1.0)
        forecasts = pd.concat([predicted().assign(target=one) for one in ("flow", "level")])
        assert [ax.get_title("left") for ax in fans(history, forecasts)] == ["a, flow", "a, level"]

    def test_axes_that_are_given(self):
        given = Figure().subplots(2, 2)
        axes = fans(observed(self.ids), predicted(self.ids), max_ids=3, axes=given)
        assert list(axes) == list(given.ravel()[:3])
        with pytest.raises(ValueError, match="enough for 5 panels, found 4"):
            fans(observed(self.ids), predicted(self.ids), max_ids=5, axes=given)

    def test_unknown_series(self):
        with pytest.raises(DataError, match="found 'x'"):
            fans(observed(self.ids), predicted(self.ids), ids=["x"])


class TestSpaghetti:
    def test_paths_one_emphasised(self):
        ax = spaghetti(observed(), sampled(), paths=12, path=3)
        assert said(ax) == ["observed", "one path of srnn", "11 more"]
        assert len(ax.lines) == 12 + 2
        (bold,) = [one for one in ax.lines if one.get_linewidth() == 1.6]
        np.testing.assert_allclose(bold.get_ydata(), np.sin(np.arange(30, 36)) + 0.3)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("ds", "y")

    def test_imputed_gaps_are_joined_to_their_neighbours(self):
        history = observed()
        history.loc[10:12, "y"] = np.nan
        filled = pd.DataFrame({"unique_id": "a", "ds": [10, 11, 12] * 2, "y": 0.5})
        ax = spaghetti(history, filled.assign(sample_id=[0, 0, 0, 1, 1, 1]))
        (bold,) = [one for one in ax.lines if one.get_linewidth() == 1.6]
        known = np.isfinite(bold.get_ydata())
        np.testing.assert_array_equal(bold.get_xdata()[known], np.arange(9, 14))
        assert said(ax) == ["observed", "one path", "1 more"]

    def test_refuses(self):
        with pytest.raises(ColumnError, match=r"'sample_id'.*draw what sample or impute returned"):
            spaghetti(observed(), predicted())
        with pytest.raises(DataError, match="path must be one that samples hold, found 99"):
            spaghetti(observed(), sampled(), path=99)
        with pytest.raises(DataError, match="model must be named"):
            spaghetti(observed(), sampled().assign(ets=1.0))
        with pytest.raises(ColumnError, match="found several"):
            spaghetti(observed(), pd.concat([sampled(), sampled()]))

    def test_polars(self):
        pl = pytest.importorskip("polars")
        ax = spaghetti(pl.from_pandas(observed()), pl.from_pandas(sampled()))
        assert len(ax.lines) == 20 + 2


class TestLatent:
    def test_signal_first_then_components(self):
        names = (("level", "component"), ("signal", "signal"), ("z1", "state"))
        axes = components(smoothed(names), history=observed())
        assert [ax.get_title("left") for ax in axes] == ["signal", "level"]
        assert [len(areas(ax)) for ax in axes] == [2, 2]
        assert said(axes[0]) == ["mean", "80 %", "95 %", "observed"]
        assert [ax.get_xlabel() for ax in axes] == ["", "ds"]
        assert axes[0].get_ylabel() == "y"

    def test_signals_of_several_targets(self):
        history = observed().rename(columns={"y": "flow"}).assign(level=7.0)
        frame = smoothed((("flow", "signal"), ("level", "signal")))
        axes = components(frame, history=history, columns=Columns(target=("flow", "level")))
        assert [ax.get_ylabel() for ax in axes] == ["flow", "level"]
        assert set(axes[1].lines[-1].get_ydata()) == {7.0}

    def test_states(self):
        frame = smoothed([(f"z{k}", "state") for k in range(12)])
        assert len(latents(frame)) == 8
        assert [ax.get_title("left") for ax in latents(frame, names=["z11"])] == ["z11"]
        with pytest.raises(DataError, match="'component', found 'state'; draw them with latents"):
            components(frame)

    def test_last_and_levels(self):
        (ax,) = components(smoothed(), names=["level"], last=5, levels=(80,))
        assert ax.lines[0].get_xdata().tolist() == [25, 26, 27, 28, 29]
        assert len(areas(ax)) == 1
        assert areas(ax)[0].get_datalim(ax.transData).x0 == 25

    def test_polars(self):
        pl = pytest.importorskip("polars")
        axes = components(pl.from_pandas(smoothed()), history=pl.from_pandas(observed()))
        assert len(axes) == 3

    def test_refuses(self):
        with pytest.raises(ColumnError, match=r"'model'.*draw what smooth returned"):
            components(predicted())
        with pytest.raises(DataError, match=r"names must be one .* found 'cycle'; there are 'sig"):
            components(smoothed(), names=["cycle"])
        with pytest.raises(ColumnError, match="found 50; there are: 80, 95"):
            components(smoothed(), levels=(50,))
        with pytest.raises(DataError, match="model must be named"):
            components(pd.concat([smoothed(), smoothed().assign(model="ets")]))


class TestCalibration:
    def scores(self, count=400):
        pit = (np.arange(count) + 0.5) / count
        return pd.DataFrame(
            {"unique_id": "a", "ds": np.arange(count), "srnn-log_score": 0.0, "srnn-pit": pit}
        )

    def test_pit_of_a_calibrated_model_is_flat(self):
        ax = pit_histogram(self.scores(), bins=8)
        (stairs,) = [one for one in ax.patches if hasattr(one, "get_data")]
        np.testing.assert_allclose(stairs.get_data().values, np.ones(8))
        assert said(ax) == ["calibrated (95 %)", "srnn"]
        assert ax.get_xlim() == (0, 1)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("probability integral transform", "density")

    def test_pit_of_several_models(self):
        frame = self.scores().assign(**{"ets-pit": 0.5})
        assert said(pit_histogram(frame))[1:] == ["srnn", "ets"]
        assert said(pit_histogram(frame, model="ets"))[1:] == ["ets"]

    def test_pit_refuses(self):
        with pytest.raises(ColumnError, match="'<model>-pit'"):
            pit_histogram(predicted())
        with pytest.raises(TargetError, match="between 0 and 1, found 2"):
            pit_histogram(self.scores().assign(**{"srnn-pit": 2.0}))
        with pytest.raises(TargetError, match="found NaN only"):
            pit_histogram(self.scores().assign(**{"srnn-pit": np.nan}))
        with pytest.raises(ValueError, match="bins must be at least 2, found 1"):
            pit_histogram(self.scores(), bins=1)

    def test_reliability_is_the_share_inside(self):
        cv = backtested()
        ax = reliability(cv)
        (line,) = [one for one in ax.lines if one.get_marker() == "o"]
        shares = [
            100 * ((cv["y"] >= cv[f"srnn-lo-{level}"]) & (cv["y"] <= cv[f"srnn-hi-{level}"])).mean()
            for level in (50, 80, 95)
        ]
        np.testing.assert_allclose(line.get_xydata().T, [[50, 80, 95], shares])
        assert said(ax) == ["calibrated (95 %)", "srnn"]

    def test_reliability_leaves_out_what_is_missing(self):
        cv = backtested()
        full = reliability(pd.concat([cv, cv.assign(y=np.nan)])).lines[-1].get_ydata()
        np.testing.assert_array_equal(full, reliability(cv).lines[-1].get_ydata())

    def test_reliability_refuses(self):
        with pytest.raises(ColumnError, match="must have intervals"):
            reliability(backtested(levels=()))
        with pytest.raises(ColumnError, match=r"'y'.*join what was observed"):
            reliability(predicted())
        with pytest.raises(TargetError, match="must have observed values"):
            reliability(backtested().assign(y=np.nan))

    @pytest.mark.skipif(find_spec("scipy") is None, reason="scipy is the reference")
    @pytest.mark.parametrize("count", [1, 37, 2000])
    def test_band_is_binomial(self, count):
        from scipy.stats import binom

        share = np.linspace(0.01, 0.99, 50)
        low, high = _binomial(count, share)
        np.testing.assert_allclose(low, binom.ppf(0.025, count, share) / count)
        np.testing.assert_allclose(high, binom.ppf(0.975, count, share) / count)

    def test_band_of_many_is_close_to_that_of_fewer(self):
        share = np.linspace(0.05, 0.95, 10)
        for few, many in zip(_binomial(2000, share), _binomial(2001, share), strict=True):
            np.testing.assert_allclose(few, many, atol=1e-3)

    def test_polars(self):
        pl = pytest.importorskip("polars")
        assert isinstance(reliability(pl.from_pandas(backtested())), Axes)
        assert isinstance(pit_histogram(pl.from_pandas(self.scores())), Axes)


class TestHorizon:
    table = pd.DataFrame({"step": [2, 1, 3], "srnn": [2.0, 1.0, 3.0], "ets": [2.0, 2.0, 3.01]})

    def test_lines_in_the_order_of_steps(self):
        ax = horizon_scores(self.table, metric="CRPS")
        assert ax.lines[0].get_ydata().tolist() == [1.0, 2.0, 3.0]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("steps ahead", "CRPS")

    def test_names_stand_apart(self):
        ax = horizon_scores(self.table.assign(naive=3.0, rw=2.99))
        ax.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) == 4
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    def test_refuses(self):
        with pytest.raises(ColumnError, match="'step'"):
            horizon_scores(self.table.drop(columns="step"))
        with pytest.raises(DataError, match="one row for each step"):
            horizon_scores(pd.concat([self.table, self.table]))
        with pytest.raises(DataError, match="found 'x'; there are 'srnn', 'ets'"):
            horizon_scores(self.table, model="x")


def test_pictures_can_be_written(tmp_path):
    ax = fan(observed(dates=True), predicted(dates=True))
    for kind in ("png", "pdf"):
        ax.figure.savefig(tmp_path / f"fan.{kind}")
        assert (tmp_path / f"fan.{kind}").stat().st_size > 5000


def test_every_name_is_exported():
    assert all(callable(getattr(plots, name)) for name in plots.__all__)


def test_periods_are_drawn_at_their_start():
    period = pd.Series(pd.period_range("2019-01", periods=15, freq="M"))
    history = pd.DataFrame({"unique_id": "a", "ds": period[:12], "y": np.arange(12.0)})
    forecasts = pd.DataFrame({"unique_id": "a", "ds": period[12:], "m": np.arange(3.0)})
    (axes,) = fans(history, forecasts, levels=())
    start = date2num(period.dt.to_timestamp().to_numpy())
    drawn = np.unique(np.concatenate([line.get_xdata() for line in axes.lines]))
    np.testing.assert_array_equal(drawn[np.isin(drawn, start)], start)
    plt.close("all")
