"""Scores and tables of the scoreboard, on results made up here."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqlatent.datasets import tasks

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "scoreboard.py"
NAMES = [task.name for task in tasks()]
QUARTERS = next(task for task in tasks() if task.name == "m1_quarterly")


@pytest.fixture(scope="module")
def board():
    if not SCRIPT.is_file():
        pytest.skip("the scripts of the folder benchmarks are not part of this distribution")
    spec = importlib.util.spec_from_file_location("scoreboard", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def published(board):
    found = {name: {task: (0.2, 1.5) for task in NAMES} for name in board.PUBLISHED}
    for task in ("m4_hourly", "m4_weekly"):
        del found["auto_ets"][task]
    found["auto_ets"]["exchange_rate"] = (0.1, 1.0)
    return found


def line(task, model="srnn", seed=0, wql=0.1, **more):
    scores = {"wql": wql, "wql_median": wql, "mase": 2.0, "coverage_80": 0.8, "coverage_95": 0.943}
    return {"task": task, "model": model, "seed": seed, **scores, "minutes": 12.3, **more}


def frames(board, shift=0.0):
    """Two series of two years of quarters and two of truth; the second never changes."""
    ds = pd.date_range("2000-01-01", periods=16, freq="QS")
    rows = []
    for name, slope in (("b", 1.0), ("a", 0.0)):
        y = slope * np.arange(16.0) + 1
        rows.append(pd.DataFrame({"unique_id": name, "ds": ds, "y": y}))
    frame = pd.concat(rows, ignore_index=True)
    left = frame.groupby("unique_id").cumcount(ascending=False)
    train, test = frame[left >= 8], frame[left < 8]
    forecast = test[["unique_id", "ds"]].iloc[::-1].reset_index(drop=True)
    centre = test["y"].to_numpy()[::-1] + shift
    columns = {f"m_ql{level}": centre for level in board.LEVELS}
    columns |= {"m-lo-80": centre - 0.5, "m-hi-80": centre + 0.5}
    columns |= {"m-lo-95": centre - 2, "m-hi-95": centre + 2}
    return train, test, forecast.assign(**columns)


def test_weighted_quantile_loss_of_a_point_is_its_absolute_error(board):
    y = np.array([1.0, -2.0, 4.0, np.nan])
    point = np.array([0.0, 0.0, 5.0, 7.0])
    found = board.weighted_quantile_loss(y, np.repeat(point[:, None], 9, 1))
    assert found == pytest.approx((1 + 2 + 1) / 7, rel=1e-12)


def test_weighted_quantile_loss_by_hand(board):
    quantiles = np.arange(1.0, 10.0)[None]
    q = np.arange(1, 10) / 10
    error = 3.0 - quantiles[0]
    expected = (
        np.mean([2 * (p * e if e > 0 else (p - 1) * e) for p, e in zip(q, error, strict=True)]) / 3
    )
    assert board.weighted_quantile_loss(np.array([3.0]), quantiles) == pytest.approx(expected)


def test_scores_match_rows_by_series_and_time(board):
    train, test, forecast = frames(board)
    found = board.score(train, test, forecast, QUARTERS, "m")
    assert found["wql"] == 0
    assert found["mase"] == 0
    assert (found["coverage_80"], found["coverage_95"]) == (1, 1)


def test_a_series_without_a_scale_is_left_out_of_mase_and_of_nothing_else(board):
    train, test, forecast = frames(board, shift=1.0)
    found = board.score(train, test, forecast, QUARTERS, "m")
    assert found["mase"] == pytest.approx(1 / 4)  # the first series moves by 4 in a season
    assert found["wql"] == pytest.approx(16 / test["y"].abs().sum())
    assert found["wql_median"] == pytest.approx(found["wql"])
    assert (found["coverage_80"], found["coverage_95"]) == (0, 1)


def test_missing_truth_is_not_scored(board):
    train, test, forecast = frames(board, shift=1.0)
    whole = board.score(train, test, forecast, QUARTERS, "m")
    test = test.assign(y=test["y"].where(np.arange(16) != 3))
    found = board.score(train, test, forecast, QUARTERS, "m")
    assert found["mase"] == pytest.approx(whole["mase"])
    assert found["wql"] == pytest.approx(15 / test["y"].abs().sum())


def test_a_forecast_that_lacks_rows_is_refused(board):
    train, test, forecast = frames(board)
    with pytest.raises(ValueError, match=r"1 rows have no complete forecast; the first is .*'a'"):
        board.score(train, test, forecast.iloc[1:], QUARTERS, "m")


def test_the_naive_forecast_is_checked_to_four_digits(board):
    assert board.reproduces({"wql": 0.04, "wql_median": 0.048309}, 0.0483091941)
    assert board.reproduces({"wql": 0.04829, "wql_median": 0.1}, 0.0483091941)
    assert not board.reproduces({"wql": 0.04, "wql_median": 0.0484}, 0.0483091941)


def test_the_newest_line_of_a_seed_counts(board, tmp_path):
    path = tmp_path / "lines.jsonl"
    assert board.read_lines(path) == []
    for wql, seed in ((0.3, 0), (0.1, 1), (0.2, 0)):
        board.append(path, line("m4_hourly", wql=wql, seed=seed))
    found = board.read_lines(path)
    assert {(x["seed"], x["wql"]) for x in found} == {(0, 0.2), (1, 0.1)}


def test_published_numbers_are_read_by_task(board, tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("dataset,model,MASE,WQL,split\nmonash_m1_yearly,auto_ets,3.9,0.139,zero\n")
    assert board.read_published(path) == {"auto_ets": {"m1_yearly": (0.139, 3.9)}}


def rows_of(page, heading):
    """Cells of the table under a heading, by the name of the row."""
    lines = page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    cells = [[c.strip() for c in x.strip("|").split("|")] for x in lines if x.startswith("|")]
    assert len({len(row) for row in cells}) == 1
    return {
        row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells if row[0] != "---"
    }


def test_tables_hold_every_task_and_model(board, published):
    lines = [line(task) for task in NAMES] + [line("m4_hourly", "seasonal_naive", wql=0.2)]
    page = board.render(lines, published)
    relative = rows_of(page, "Relative to the seasonal naive forecast")
    assert list(relative)[:3] == ["", "`seasonal_naive`", "`srnn`"]
    assert "AutoETS, published" in relative
    assert relative["`srnn`"]["m4_hourly"] == "**0.500**"
    assert relative["`srnn`"]["10 tasks"] == relative["`srnn`"]["8 tasks"] == "0.500"
    ets = math.exp(math.log(0.5) / 8)
    assert relative["AutoETS, published"]["m4_weekly"] == ""
    assert relative["AutoETS, published"]["8 tasks"] == f"{ets:.3f}"
    assert relative["AutoETS, published"]["10 tasks"] == f"({ets:.3f} of 8)"
    assert relative["`seasonal_naive`"]["10 tasks"] == "(1.000 of 1)"
    assert relative["`seasonal_naive`"]["8 tasks"] == ""
    assert rows_of(page, "WQL")["AutoETS, published"]["exchange_rate"] == "**0.1000**"
    assert rows_of(page, "MASE")["`srnn`"]["car_parts"] == "2.000"
    assert rows_of(page, "Time")["`srnn`"]["m1_yearly"] == "12"


def test_coverage_is_pooled_over_origins_by_how_many_values_there_are(board, published):
    known = {"thirds_95": [1.0, 1.0, 1.0], "thirds_rows": [10.0, 10.0, 20.0]}
    lines = [
        line("m1_yearly", origin=k, thirds_80=[0.6 + 0.1 * k, 0.8, 0.9], wql=0.1 + k, **known)
        for k in range(2)
    ]
    lines.append(line("m3_yearly", thirds_80=[0.5] * 3, origin=0, capped=True, **known))
    page = board.render(lines, published)
    own = rows_of(page, "Coverage")
    assert own["`srnn`, 80 %"]["m1_yearly"] == "**81** (65 80 90, 2 of 3)"
    assert own["`srnn`, 95 %"]["m3_yearly"] == "**100** (100 100 100, 1 of 3)"
    assert rows_of(page, "WQL")["`srnn`"]["m1_yearly"] == "**0.1000**"  # of the test alone
    assert rows_of(page, "Time")["`srnn`"]["m3_yearly"] == "12, capped"


def test_whole_numbers_are_covered_as_often_as_their_levels_say(board):
    """Quantiles of counts leave no tenth out: their intervals hold more than they are said to."""
    rng = np.random.default_rng(0)
    rate, n = 1.3, 3000
    ds = pd.date_range("2000-01-01", periods=3, freq="QS")
    ids = np.repeat(np.arange(n), 3)
    test = pd.DataFrame({"unique_id": ids, "ds": np.tile(ds, n), "y": rng.poisson(rate, 3 * n)})
    counts = np.sort(rng.poisson(rate, 100_000))
    columns = {f"m_ql{v}": float(counts[int(v * len(counts))]) for v in board.FINE}
    same = pd.DataFrame(columns, index=test.index)
    found = board.covered(test, pd.concat([test[["unique_id", "ds"]], same], axis=1), 3, "m")
    assert found["thirds_rows"] == [n] * 3
    np.testing.assert_allclose(found["thirds_80"], 0.8, atol=0.03)
    np.testing.assert_allclose(found["thirds_95"], 0.95, atol=0.02)


def test_the_page_tells_of_seeds_and_of_a_naive_forecast_that_differs(board, published):
    lines = [line("m4_hourly", seed=0, wql=0.1), line("m4_hourly", seed=1, wql=0.3)]
    page = board.render(lines, published)
    assert rows_of(page, "WQL")["`srnn`"]["m4_hourly"] == "**0.2000**"
    assert "as many as the brackets say: `srnn` (2)." in page
    assert "seasonal naive forecast differs" not in page
    lines = [line("m4_hourly", "seasonal_naive", reproduces=False)]
    assert "differs from the published one** on m4_hourly:" in board.render(lines, published)


def test_the_page_can_be_made_before_there_are_results(board, published):
    assert "Chronos-Bolt-small, published" in rows_of(board.render([], published), "WQL")
