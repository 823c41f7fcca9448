"""How a panel reaches a model: scales, inputs, windows, transforms, mixtures of members."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats

from seqlatent.forecasting import Columns
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.engines.latent.stages import SequentialTraining
from seqlatent.forecasting.engines.mixture import allot, quantiles
from seqlatent.forecasting.features.anchors import Anchors, reached
from seqlatent.forecasting.features.covariates import Inputs
from seqlatent.forecasting.features.pieces import pieces
from seqlatent.forecasting.features.scaling import Reading, Units, scales
from seqlatent.forecasting.features.transforms import Identity, Log
from seqlatent.forecasting.features.windows import ModelData, Windows, batches, whole
from seqlatent.forecasting.frames.panel import Future
from seqlatent.forecasting.frames.read import read
from seqlatent.training import Deadline


def frame(lengths=(30, 12, 50), seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": np.arange(n), "y": 5 + rng.normal(size=n)})
        for i, n in enumerate(lengths)
    ]
    return pd.concat(parts, ignore_index=True)


def numbers(panel, u=None, kind="standard", flags=slice(0, 0), season=1):
    u = np.zeros((panel.rows, 0)) if u is None else u
    codes = np.zeros((panel.batch, 0), dtype=np.int64)
    units = Units.of(panel, (Reading(kind),) * panel.y.shape[1], season=season, context=None)
    return ModelData(panel, u, codes, np.arange(panel.batch), units, torch.float64, flags)


def all_of(data, series, **options):
    return whole(data, series, data.scale(series, data.panel.lengths[series]), **options)


KINDS = ("magnitude", "level", "standard", "differences", "local", "counts")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "y",
    [[0.0] * 8, [5.0] * 8, [np.nan] * 8, [1e-8, 2e-8] * 4, [1e12, 3e12] * 4, [1.0] + [np.nan] * 7],
    ids=["zeros", "constant", "missing", "tiny", "huge", "single"],
)
def test_scales_are_positive_and_finite_whatever_the_rows_hold(kind, y):
    df = pd.DataFrame({"unique_id": "a", "ds": range(8), "y": y})
    shift, scale = scales(read(df).panel, kind, season=2, rows=8)
    assert np.isfinite(shift).all()
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scales_follow_the_units(kind):
    df = frame()
    one = scales(read(df).panel, kind, season=4, rows=20)
    many = scales(read(df.assign(y=df["y"] * 1000)).panel, kind, season=4, rows=20)
    tolerance = 0.2 if kind == "counts" else 1e-9  # which adds half a count
    np.testing.assert_allclose(many[1], 1000 * one[1], rtol=tolerance)


def test_one_spike_does_not_set_the_scale():
    df = frame(lengths=(100,))
    spiked = df.copy()
    spiked.loc[50, "y"] = 1e6
    for kind in ("magnitude", "level", "standard", "local"):
        usual = scales(read(df).panel, kind, season=4, rows=100)[1]
        found = scales(read(spiked).panel, kind, season=4, rows=100)[1]
        assert (found < 3 * usual).all(), kind


def test_past_covariates_come_one_row_late_with_a_flag():
    df = frame(lengths=(4, 3)).assign(p=[1.0, np.nan, 3.0, 4.0, 5.0, 6.0, 7.0])
    panel = read(df, Columns(past=["p"])).panel
    inputs = Inputs.of(panel, calendar=False, season_lengths=())
    u = inputs.of_panel(panel)
    assert u[:, 1].tolist() == [0, 1, 0, 1, 0, 1, 1]
    scaled = (np.array([1.0, 3.0]) - inputs.past_mean[0]) / inputs.past_scale[0]
    np.testing.assert_allclose(u[[1, 3], 0], scaled)
    future = Future(panel.last[:, None] + np.arange(1, 4), np.zeros((2, 3, 0)))
    ahead = inputs.of_future(panel.time_index, future, panel.real, np.array([[4.0], [7.0]]))
    assert ahead[:, :, 1].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert Inputs.from_dict(inputs.to_dict()) == inputs


def test_integer_times_get_the_phase_of_day_and_week():
    panel = read(frame(lengths=(400,))).panel
    hourly = Inputs.of(panel, calendar=True, season_lengths=(24,))
    assert hourly.season_lengths == (24, 168)
    assert hourly.width(panel.time_index) == 12
    u = hourly.of_panel(panel)
    np.testing.assert_allclose(u[0], u[168], atol=1e-9)


def test_windows_are_pieces_of_the_series():
    panel = read(frame()).panel
    data = numbers(panel, kind="magnitude")
    windows = Windows(data, 10, 16)
    batch = windows(torch.Generator().manual_seed(0))
    assert windows.batch_size == 16
    assert batch.y.shape == (16, 10, 1)
    assert bool(batch.regular)
    known = {round(v, 9) for v in panel.y[:, 0]}
    found = batch.y[batch.observed].numpy() * data.units.unit
    assert {round(v, 9) for v in found.tolist()} <= known


@pytest.mark.parametrize("full", [False, True])
def test_windows_with_a_horizon_end_in_what_comes(full):
    panel = read(frame()).panel
    windows = Windows(numbers(panel, kind="local"), 8, 16, horizon=4, full=full)
    for seed in range(5):
        batch = windows(torch.Generator().manual_seed(seed))
        assert batch.observed[:, -4].all()
        if full:
            assert batch.steps == 12
            assert bool(batch.observed.all())


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_does_not_change_the_units_of_a_window(kind):
    """Of training windows too, whatever else is known of the series."""
    panel = read(frame()).panel
    data = numbers(panel, kind=kind)
    later = replace(panel, y=panel.y.copy())
    later.y[panel.offsets[0] + 13 :] = 1e9
    again = replace(data, panel=later)
    for training in (False, True):
        one, other = (
            x.scale(np.array([0]), np.array([13]), training=training) for x in (data, again)
        )
        np.testing.assert_array_equal(one.shift, other.shift)
        np.testing.assert_array_equal(one.scale, other.scale)


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_of_which_nothing_was_seen_has_the_units_of_the_others(kind):
    df = frame(lengths=(30, 30, 30))
    df["y"] *= df["unique_id"].map({"s0": 1.0, "s1": 10.0, "s2": 30.0})
    panel = read(df).panel
    data = numbers(panel, kind=kind)
    new = replace(data, known=np.full(3, -1))
    own, typical = (x.scale(np.arange(3), np.zeros(3, int)).scale for x in (data, new))
    np.testing.assert_allclose(own, data.units.scale)
    np.testing.assert_allclose(typical[:, 0], typical[0, 0])
    assert data.units.scale.min() < typical[0, 0] < 60
    few = new.scale(np.arange(3), np.full(3, 2)).scale
    many = new.scale(np.arange(3), np.full(3, 30)).scale
    if kind != "counts":
        np.testing.assert_allclose(many, data.units.scale)
        assert (np.abs(np.log(few / many)) < 3).all()


def test_values_far_from_zero_lose_no_digits_in_single_precision():
    df = frame()
    near = replace(numbers(read(df).panel), dtype=torch.float32)
    far = replace(numbers(read(df.assign(y=df["y"] + 2.0**33)).panel), dtype=torch.float32)
    series = np.arange(3)
    torch.testing.assert_close(
        all_of(far, series).normalised, all_of(near, series).normalised, rtol=0, atol=2e-5
    )


def test_past_covariates_of_windows_are_hidden_from_some_row_on():
    panel = read(frame(lengths=(40,)).assign(p=1.0), Columns(past=["p"])).panel
    inputs = Inputs.of(panel, calendar=False, season_lengths=())
    windows = Windows(numbers(panel, inputs.of_panel(panel), flags=inputs.flags), 20, 32)
    flags = windows(torch.Generator().manual_seed(0)).u[:, 1:, 1]
    assert bool((flags.diff(dim=1) <= 0).all())
    assert 0 < flags.mean() < 1


def test_batches_hold_all_series_once_and_stay_small():
    lengths = np.array([5, 100, 7, 7, 50, 3])
    found = list(batches(lengths, 100))
    assert sorted(np.concatenate(found).tolist()) == list(range(6))
    assert all(lengths[b].max() * len(b) <= 100 for b in found)
    panel = read(frame()).panel
    data = all_of(numbers(panel), np.array([2, 0]), plain=True)
    np.testing.assert_array_equal(data.y[1, :30, 0].numpy(), panel.y[:30, 0])
    assert not data.observed[1, 30:].any()


@pytest.mark.parametrize("context", [None, 1, 2, 7, 24])
@pytest.mark.parametrize("fixed", [False, True])
def test_anchors_are_found_without_counting_them_all(context, fixed):
    anchors = Anchors(context, fixed)
    seen = np.arange(200)
    all_of_them = anchors.upto(199)
    expected = [all_of_them[all_of_them <= n][-1] for n in seen]
    np.testing.assert_array_equal(anchors.before(seen), expected)
    np.testing.assert_array_equal([anchors.before(seen[n : n + 1])[0] for n in seen], expected)


@pytest.mark.parametrize("context", [None, 1, 7, 24])
def test_a_series_that_has_settled_is_filtered_from_one_row_however_long_it_grows(context):
    anchors = Anchors(context, fixed=True)
    panel = read(frame(lengths=(90, 33, 60))).panel
    begin = np.array([30, np.inf, 0])
    spans = anchors.spans(panel, begin)
    half = 0 if context is None else context // 2
    for i in range(3):
        mine = spans.select(spans.series == i)
        assert mine.first[0] == 0
        assert mine.stop[-1] == panel.lengths[i]
        np.testing.assert_array_equal(mine.first[1:], mine.stop[:-1])
        settled = mine.stop > begin[i] + half
        assert (mine.start[settled] == begin[i]).all()
        assert settled.sum() == (i != 1)
        early = mine.anchor[~settled]
        np.testing.assert_array_equal(mine.start[~settled], anchors.start(early))
        np.testing.assert_array_equal(anchors.before(mine.first[~settled]), early)


@pytest.mark.parametrize("context", [None, 1, 7, 24])
@pytest.mark.parametrize("fixed", [False, True])
def test_spans_speak_of_every_row_once_and_stand_where_a_state_would(context, fixed):
    anchors = Anchors(context, fixed)
    df = frame(lengths=(1, 2, 9, 60, 33))
    df.loc[[40, 50, *range(75, 105)], "y"] = np.nan  # rows 28, 38, 3 to 32 of their series
    panel = read(df).panel
    spans, seen = anchors.spans(panel), reached(panel)
    spoken = [[] for _ in range(panel.batch)]
    for i, start, anchor, first, stop in zip(*spans, strict=True):
        spoken[i] += range(first, stop)
        before = np.array(
            [seen[panel.offsets[i] + row - 1] if row else 0 for row in range(first, stop)]
        )
        assert (anchors.before(before) == anchor).all()
        assert start == anchors.start(np.array([anchor]))[0]
    assert spoken == [list(range(n)) for n in panel.lengths]


@pytest.mark.parametrize("context", [None, 1, 7, 24])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_what_is_computed_together_does_not_depend_on_later_holes(context, fixed, drawn):
    df = frame(lengths=(1, 2, 9, 60, 33, 33))
    df.loc[[40, 50, *range(75, 90)], "y"] = np.nan  # rows 28, 38, 3 to 17 of their series
    nth = df.groupby("unique_id").cumcount().to_numpy()
    later = df.assign(y=df["y"].where((nth <= 20) | (nth % 4 != 0)))
    said = []
    for rows in (df, later):
        panel, spoken = read(rows).panel, {}
        for one in pieces(panel, Anchors(context, fixed), 300, drawn=drawn):
            together = tuple(x.tobytes() for x in one.spans)
            for i, first, stop in zip(one.spans.series, one.first, one.stop, strict=True):
                assert not spoken.keys() & {(i, row) for row in range(first, stop)}
                spoken |= {(i, row): (one.number, together) for row in range(first, stop)}
        assert len(spoken) == panel.rows
        said.append({key: x for key, x in spoken.items() if key[1] <= 20})
    assert said[0] == said[1]


def test_paths_are_allotted_as_the_weights_say():
    weights = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    owner = allot(weights, 100, torch.Generator().manual_seed(0))
    for series in range(2):
        shares = np.bincount(owner[:, series], minlength=3) / 100
        np.testing.assert_allclose(shares, weights[series], atol=0.011)


def test_quantiles_of_a_mixture_of_normals_and_lognormals():
    weights, mean = np.array([0.3, 0.7]), np.array([1.0, 0.5])
    scale = np.array([0.5, 0.4])
    levels = np.array([0.05, 0.5, 0.9])
    transforms = [Identity(), Log(1e-300)]
    found = quantiles(weights[:, None], mean[:, None], scale[:, None], levels, transforms)[:, 0]

    def cdf(y):
        logs = stats.norm.cdf((np.log(y) - 0.5) / 0.4) if y > 0 else 0.0
        return 0.3 * stats.norm.cdf((y - 1.0) / 0.5) + 0.7 * logs

    for level, q in zip(levels, found, strict=True):
        expected = optimize.brentq(lambda y, level=level: cdf(y) - level, -5, 20)
        assert q == pytest.approx(expected, abs=1e-6)


def test_an_outage_is_far_off_in_logarithms_and_finite():
    transform = Log(2.0)
    assert np.isfinite(transform.forward(np.array([0.0, -3.0]))).all()
    np.testing.assert_allclose(
        transform.inverse(transform.forward(np.array([2.0, 9.0]))), [2.0, 9.0]
    )


def test_stages_divide_the_time_and_have_seeds_of_their_own():
    jobs = []
    panel = read(frame()).panel

    def stage(models, training):
        jobs.append(training.fit_options)

    from seqlatent.emissions import Normal
    from seqlatent.forecasting.engines.spec import DataSummary, Training
    from seqlatent.zoo import srnn

    models = [srnn(latent_dim=0, hidden_dim=4, emission=Normal) for _ in range(2)]
    training = Training(
        numbers(panel),
        DataSummary(),
        slice(0, 0),
        FitOptions(deadline=Deadline(10.0), seed=3),
        panel,
    )
    SequentialTraining([stage, stage], [0.25, 0.75])(models, training)
    assert len({fit_options.seed for fit_options in jobs}) == 4
    # what a stage leaves of the time of its member goes to the next one
    assert [fit_options.deadline.total for fit_options in jobs[:2]] == pytest.approx(
        [1.25, 5.0], abs=0.1
    )


def phases(starts, periods, freq):
    parts = [
        pd.DataFrame({"unique_id": start, "ds": pd.date_range(start, periods=periods, freq=freq)})
        for start in starts
    ]
    return pd.concat(parts, ignore_index=True).assign(y=1.0)


@pytest.mark.parametrize(
    ("starts", "periods", "freq"),
    [
        (("2010-01-04", "2010-01-09"), 400, "7D"),
        (("2010-01-04 00:00", "2010-01-04 00:20"), 3000, "h"),
    ],
)
def test_series_out_of_phase_are_one_step_apart_in_single_precision(starts, periods, freq):
    single = replace(numbers(read(phases(starts, periods, freq)).panel), dtype=torch.float32)
    batch = all_of(single, np.array([0, 1]))
    assert batch.y.dtype == batch.dt.dtype == torch.float32
    assert batch.regular


def test_irregular_gaps_stay_apart_over_a_long_span():
    gaps = np.ones(2000)
    gaps[1000] = 16e6  # usual gaps, of an hour each
    gaps[1500:1510] = 1 / 3600
    stamps = pd.Timestamp("1950-01-01") + pd.to_timedelta(
        np.cumsum(gaps * 3600).round().astype(np.int64) - 3600, unit="s"
    ).as_unit("s")
    df = pd.DataFrame({"unique_id": "a", "ds": stamps.as_unit("s"), "y": 1.0})
    single = replace(numbers(read(df, freq="irregular").panel), dtype=torch.float32)
    batch = all_of(single, np.array([0]))
    np.testing.assert_allclose(batch.dt[0, 1:], gaps[1:], rtol=1e-4)
