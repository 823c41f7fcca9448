import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from seqlatent.amortised import load_networks
from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.cli import app, files
from seqlatent.forecasting.cli import options as cli_options
from seqlatent.forecasting.engines.registry import names

NAIVE = ["--model", "seasonal_naive"]


def run(*args, status=0, input=None):
    result = CliRunner().invoke(app, [str(arg) for arg in args], input=input)
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result


def table(text):
    return pd.read_csv(io.StringIO(text), dtype={"unique_id": str}, keep_default_na=False)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    ds = pd.date_range("2024-01-01", periods=40, freq="D")
    parts = [
        pd.DataFrame(
            {
                "unique_id": id,
                "ds": ds[:rows],
                "y": (10 + 3 * np.sin(np.arange(rows)) + rng.normal(size=rows)).round(3),
            }
        )
        for id, rows in (("007", 40), ("NA", 35))
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[5, "y"] = np.nan
    return frame


@pytest.fixture
def data(frame, tmp_path):
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def saved(data, tmp_path):
    folder = tmp_path / "model"
    run("forecast", data, "--h", 1, *NAIVE, "--save", folder, "-q")
    return folder


# --- forecast --------------------------------------------------------------------------------


def test_stdout_holds_the_forecast_and_nothing_else(frame, data):
    result = run("forecast", data, "--h", 3, *NAIVE, "--level", 80, "--quantile", 0.1)
    expected = Forecaster("seasonal_naive").fit(frame).predict(3, level=[80], quantiles=[0.1])
    found = table(result.stdout)
    assert list(found) == list(expected)
    assert found["unique_id"].tolist() == ["007"] * 3 + ["NA"] * 3
    pd.testing.assert_frame_equal(
        found.astype({"ds": expected["ds"].dtype}), expected, check_dtype=False
    )
    assert "fitting seasonal_naive on 2 series, 75 rows" in result.stderr


@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_tables_of_one_series_need_not_name_it(command, frame, tmp_path):
    data, static = tmp_path / "data.csv", tmp_path / "static.csv"
    frame[frame["unique_id"] == "007"].drop(columns="unique_id").to_csv(data, index=False)
    static.write_text("kind\nx\n")
    run(command, data, "--h", 2, *NAIVE, "--static", static)


def test_quiet_says_nothing(data):
    assert run("forecast", data, "--h", 1, *NAIVE, "--quiet").stderr == ""


def test_stdin_and_stdout(data):
    piped = run("forecast", "-", "--h", 2, *NAIVE, input=data.read_text())
    assert piped.stdout == run("forecast", data, "--h", 2, *NAIVE).stdout


def test_parquet_in_and_out_is_csv_in_and_out(frame, data, tmp_path):
    frame.to_parquet(tmp_path / "data.parquet")
    out = tmp_path / "out.parquet"
    run("forecast", tmp_path / "data.parquet", "--h", 2, *NAIVE, "--out", out)
    run("forecast", data, "--h", 2, *NAIVE, "--out", tmp_path / "out.csv")
    pd.testing.assert_frame_equal(
        pd.read_parquet(out),
        pd.read_csv(
            tmp_path / "out.csv",
            parse_dates=["ds"],
            dtype={"unique_id": str},
            keep_default_na=False,
        ),
        check_dtype=False,
    )


def test_models_stand_side_by_side(data):
    found = table(run("forecast", data, "--h", 1, "--model", "naive", *NAIVE).stdout)
    assert {"naive", "seasonal_naive", "naive-lo-95", "seasonal_naive-hi-80"} <= {*found}


def test_integer_times_stay_integers():
    text = "unique_id,ds,y\na,1,1\na,2,2\na,3,4\n"
    found = table(run("forecast", "-", "--h", 2, "--model", "naive", input=text).stdout)
    assert found["ds"].tolist() == [4, 5]


def test_offsets_of_summer_and_winter_meet_in_utc():
    stamps = ["2024-03-31T00:00+01:00", "2024-03-31T01:00+01:00", "2024-03-31T03:00+02:00"]
    text = "unique_id,ds,y\n" + "".join(f"a,{stamp},1\n" for stamp in stamps)
    found = table(run("forecast", "-", "--h", 1, "--model", "naive", input=text).stdout)
    assert found["ds"].tolist() == ["2024-03-31 02:00:00+00:00"]


def test_a_table_without_identifiers_is_one_series():
    text = "ds,y\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n"
    found = table(run("forecast", "-", "--h", 1, "--model", "naive", input=text).stdout)
    assert found["unique_id"].tolist() == ["y"]
    result = run("forecast", "-", "--h", 1, "--id-col", "unique_id", status=1, input=text)
    assert "expected a column 'unique_id', found 'ds', 'y'" in result.stderr


@pytest.mark.slow
def test_columns_have_the_names_that_were_given():
    text = "item,when,sold,wind\na,1,1,5\na,2,2,6\na,3,3,\n"
    named = ["--id-col", "item", "--time-col", "when", "--target-col", "sold"]
    for more in (["--past", "wind"], ["--drop", "wind"]):
        found = run("forecast", "-", "--h", 1, *named, *more, input=text).stdout
        assert found.startswith("item,when,structural,")


def test_covariates_known_ahead_come_from_a_table_of_their_own(frame, tmp_path):
    promo = frame.assign(promo=(frame.index % 3 == 0).astype(float), y=frame["y"].fillna(1.0))
    promo["y"] += 5 * promo["promo"]
    data, ahead = tmp_path / "data.csv", tmp_path / "x.csv"
    promo.to_csv(data, index=False)
    end = promo.groupby("unique_id")["ds"].max()
    days = [pd.Timedelta(days=1), pd.Timedelta(days=2)]
    x = pd.DataFrame(
        [(id, last + day) for id, last in end.items() for day in days], columns=["unique_id", "ds"]
    ).assign(promo=[1.0, 0.0] * 2)
    x.to_csv(ahead, index=False)
    forecast = ["forecast", data, "--h", 2, "--model", "sarimax", "--season-length", 1]
    first = table(run(*forecast, "--x", ahead).stdout)["sarimax"]
    x.assign(promo=[0.0, 1.0] * 2).to_csv(ahead, index=False)
    second = table(run(*forecast, "--x", ahead).stdout)["sarimax"]
    assert (first[::2] > second[::2] + 2).all()
    assert (first[1::2] < second[1::2] - 2).all()
    absent = run(*forecast, status=1).stderr
    assert "--x: expected the covariates known ahead ['promo']" in absent
    x.iloc[:2].to_csv(ahead, index=False)
    short = run(*forecast, "--x", ahead, status=1).stderr
    assert "'NA'" in short


def test_sample_paths_have_a_table_of_their_own(data, tmp_path):
    paths = tmp_path / "paths.csv"
    run("forecast", data, "--h", 2, *NAIVE, "--sample-paths", 3, "--paths-out", paths)
    found = table(paths.read_text())
    assert len(found) == 2 * 3 * 2
    assert list(found) == ["unique_id", "ds", "sample_id", "seasonal_naive"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_a_picture(data, tmp_path, suffix):
    picture = tmp_path / f"fan.{suffix}"
    run("forecast", data, "--h", 3, *NAIVE, "--plot", picture)
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert picture.read_bytes().startswith(start)


def test_a_neural_model_takes_its_options(data, tmp_path):
    static = tmp_path / "static.csv"
    static.write_text("unique_id,kind\n007,x\nNA,y\n")
    fast = ["--members", 1, "--emission", "normal", "--time-limit", 0.5, "--samples", 10]
    more = ["--static", static, "--seed", 1, "--season-length", 7]
    found = table(run("forecast", data, "--h", 2, "--model", "srnn", *fast, *more).stdout)
    assert np.isfinite(found["srnn"]).all()


# --- saved models ----------------------------------------------------------------------------


def test_a_saved_model_forecasts_the_same(data, saved):
    expected = run("forecast", data, "--h", 2, *NAIVE).stdout
    assert run("forecast", "--load", saved, "--h", 2).stdout == expected
    assert run("forecast", data, "--load", saved, "--h", 2).stdout == expected


def test_a_saved_model_forecasts_from_other_rows(frame, saved, tmp_path):
    frame[frame["ds"] < "2024-01-20"].to_csv(tmp_path / "less.csv", index=False)
    found = table(run("forecast", tmp_path / "less.csv", "--load", saved, "--h", 1).stdout)
    assert found["ds"].tolist() == ["2024-01-20"] * 2


def test_identifiers_are_what_the_saved_model_knows(tmp_path):
    folder, data = tmp_path / "model", tmp_path / "data.csv"
    known = pd.DataFrame({"unique_id": 7, "ds": range(5), "y": 1.0 + np.arange(5)})
    Forecaster("naive").fit(known).save(folder)
    known.to_csv(data, index=False)
    found = run("forecast", data, "--load", folder, "--h", 1).stdout
    assert found == run("forecast", "--load", folder, "--h", 1).stdout


def test_a_model_that_was_fitted_on_polars_gives_the_same_tables(data, saved, tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.read_csv(data, try_parse_dates=True, infer_schema_length=None)
    folder = tmp_path / "polars"
    Forecaster("seasonal_naive").fit(frame).save(folder)
    expected = run("forecast", "--load", saved, "--h", 2).stdout
    assert run("forecast", "--load", folder, "--h", 2).stdout == expected


def test_a_saved_model_needs_no_options_of_fitting(saved):
    result = run("forecast", "--load", saved, "--h", 1, "--model", "ets", status=2)
    assert "'--model': the saved model knows it" in result.stderr


@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_results_do_not_replace_what_is_read_or_each_other(command, data, tmp_path):
    before = data.read_bytes()
    link, other = tmp_path / "link.csv", tmp_path / "other.csv"
    link.symlink_to(data)
    same = tmp_path / "same.csv"
    same.symlink_to(other)
    more = ["--sample-paths", 2, "--paths-out"] if command == "forecast" else ["--scores-out"]
    for places, named in (
        (["--out", data], "--out"),
        (["--out", link], "--out"),
        (["--out", other, *more, data], more[-1]),
        (["--out", other, *more, same], more[-1]),
    ):
        text = run(command, data, "--h", 2, "--model", "naive", *places, status=1).stderr
        assert f"{named} " in text
        assert "would replace what" in text
    assert data.read_bytes() == before
    assert not other.exists()


def test_info_tells_what_a_saved_model_is(saved):
    text = run("info", saved).stdout
    for words in ("seqlatent 0", "format 4", "D, season of 7", "id unique_id, time ds, target y"):
        assert words in text
    assert re.search(r"seasonal_naive +baseline +- +\d+", text)
    assert re.search(r"NA +2024-02-04", text)


def test_info_counts_members_and_parameters(frame, tmp_path):
    folder = tmp_path / "model"
    Forecaster(spec_of("srnn", members=2, steps=2, hidden_dim=4)).fit(frame).save(folder)
    (engine,) = Forecaster.load(folder)._engines.values()
    models = engine.ensemble.models
    numbers = sum(p.numel() for model in models for p in model.state_dict().values())
    assert re.search(rf"srnn +latent +2 +{numbers:,}", run("info", folder).stdout)


@pytest.mark.slow
def test_networks_of_the_package_forecast_and_are_told(data, tmp_path):
    folder = tmp_path / "model"
    result = run("forecast", data, "--h", 2, "--model", "amortised", "--save", folder, "-q")
    assert len(table(result.stdout)) == 4
    networks = load_networks()
    numbers = sum(p.numel() for network in networks for p in network.parameters())
    told = run("info", folder).stdout
    assert re.search(rf"amortised +amortised +{len(networks)} +{numbers:,}", told)


def test_info_of_a_folder_that_is_none(tmp_path, saved):
    assert "expected a model folder" in run("info", tmp_path, status=1).stderr
    config = json.loads((saved / "config.json").read_text())
    del config["time_index"]
    (saved / "config.json").write_text(json.dumps(config))
    assert "it is damaged or was edited" in run("info", saved, status=1).stderr


# --- backtest --------------------------------------------------------------------------------


def test_backtest_prints_scores_and_writes_windows(frame, data, tmp_path):
    out, scores = tmp_path / "windows.csv", tmp_path / "scores.csv"
    windows = ["--h", 5, "--n-windows", 2, "--step-size", 4, "--no-refit", "--level", 80]
    files = ["--out", out, "--scores-out", scores]
    result = run("backtest", data, *windows, "--model", "naive", *NAIVE, *files)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "wql", "crps", "mase", "coverage80", "seconds"]
    assert [line.split()[0] for line in lines[2:]] == ["naive", "seasonal_naive"]
    found = table(out.read_text())
    expected = Forecaster("seasonal_naive").cross_validation(
        frame, 5, n_windows=2, step_size=4, refit=False, level=[80]
    )
    np.testing.assert_allclose(found["seasonal_naive"], expected["seasonal_naive"])
    np.testing.assert_allclose(found["y"].astype(float), expected["y"])
    assert "[2/2] seasonal_naive" in result.stderr
    inside = expected["y"].between(
        expected["seasonal_naive-lo-80"], expected["seasonal_naive-hi-80"]
    )
    kept = pd.read_csv(scores, index_col="model")
    assert kept.loc["seasonal_naive", "coverage80"] == pytest.approx(inside.mean())


def test_a_season_ago_is_a_season_ago_across_gaps(frame, tmp_path):
    gaps, full = tmp_path / "gaps.csv", tmp_path / "full.csv"
    frame.to_csv(full, index=False)
    frame.dropna().to_csv(gaps, index=False)
    scores = []
    for path in (gaps, full):
        run("backtest", path, "--h", 3, *NAIVE, "--scores-out", tmp_path / "scores.csv")
        scores.append(pd.read_csv(tmp_path / "scores.csv").drop(columns="seconds"))
    pd.testing.assert_frame_equal(*scores)


def test_backtest_can_write_windows_to_stdout(data):
    result = run("backtest", data, "--h", 2, *NAIVE, "--out", "-")
    assert len(table(result.stdout)) == 4
    assert "mase" in result.stderr


def test_options_reach_the_models_that_take_them(data):
    fast = ["--members", 1, "--time-limit", 0.2, "--samples", 20]
    result = run("backtest", data, "--h", 2, "--model", "naive", "--model", "srnn", *fast)
    assert "srnn" in result.stdout


def test_windows_longer_than_the_data(data):
    error = run("backtest", data, "--h", 50, *NAIVE, status=1).stderr
    assert "these windows need 52 rows" in error


# --- errors ----------------------------------------------------------------------------------

HEAD = "unique_id,ds,y\na,2024-01-01,1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "stdin is no readable CSV"),
        (HEAD + "a,2024-01-02,x\n", "column 'y', line 3: expected a number, found 'x'"),
        (HEAD + "a,2024-01-02,\na,2024-01-03,-\n", "line 4: expected a number, found '-'"),
        (HEAD + "a,,2\na,soon,2\n", "line 4: expected an integer or a date"),
        (HEAD + "a,02/01/2024,2\n", "column 'ds', line 3: expected an integer or a date"),
        (HEAD + "a,2024-01-01,2\n", "stdin: column 'ds', id 'a', line 3: expected each"),
        (HEAD + "a,,2\n", "line 3: expected a time stamp, found a missing value"),
        (HEAD + ",2024-01-02,2\n", "line 3: expected an identifier, found a missing value"),
        (HEAD + "\na,2024-01-01,2\n", "id 'a', row 1: expected each"),
        (HEAD + "a,2024-01-02,inf\n", "line 3"),
        ("unique_id,ds,y,y\na,1,1,1\n", "expected every column once, found 'y' twice"),
        (
            "unique_id,ds,z\na,1,1\n",
            "expected a column 'y', found 'unique_id', 'ds', 'z' (parted at",
        ),
        ("item,ds,y\na,2024-01-01,1\na,2024-01-02,1\n", "--id-col names those of several"),
        (
            "unique_id,ds,y\na,2024-01-01T00:00Z,1\na,2024-01-01T01:00,2\n",
            "line 3: expected a time zone as in other rows",
        ),
        ("unique_id,ds,y,kind\na,1,1,b\na,2,1,b\n", "leave it out with --drop"),
    ],
)
def test_an_error_of_the_data_is_one_line(text, words):
    result = run("forecast", "-", "--h", 1, "--model", "naive", "-q", status=1, input=text)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("seqlatent: error: ")
    assert words in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing.csv", "--h", "1"], "nothing.csv: no such file"),
        (["nothing.parquet", "--h", "1"], "nothing.parquet: no such file"),
        (["{data}", "--h", "1", "--out", "nowhere/out.csv"], "there is no folder nowhere"),
        (["{data}", "--h", "1", "--out", "{folder}"], "must name a file"),
        (["{data}", "--h", "1", "--save", "{folder}"], "found 'other'"),
        (["{data}", "--h", "1", "--save", "{data}"], "found a file"),
        (["{data}", "--h", "1", *NAIVE, "--static", "{data}"], "data.csv: "),
        (["--load", "nothing", "--h", "1"], "expected a model folder"),
    ],
)
def test_an_error_of_files_is_one_line(args, words, data, tmp_path):
    folder = tmp_path / "taken.csv"
    folder.mkdir()
    (folder / "other").touch()
    args = [arg.format(data=data, folder=folder) for arg in args]
    result = run("forecast", *args, "-q", status=1)
    (line,) = result.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["--h", "1"], "DATA"),
        (["{data}"], "--h"),
        (["{data}", "--h", "0"], "--h"),
        (["{data}", "--h", "1", "--model", "prophecy"], "--model"),
        (["{data}", "--h", "1", "--model", "ets", "--members", "2"], "--members"),
        (["{data}", "--h", "1", "--model", "srnn", "--emission", "odd"], "--emission"),
        (["{data}", "--h", "1", "--time-limit", "0"], "--time-limit"),
        (["{data}", "--h", "1", "--level", "100"], "--level"),
        (["{data}", "--h", "1", "--level", "99.99999999999999"], "--level"),
        (["{data}", "--h", "1", *NAIVE, "--freq", "often"], "'--freq': expected a pandas alias"),
        (["{data}", "--h", "1", *NAIVE, "--seed", "9223372036854775808"], "--seed"),
        (["{data}", "--h", "1", *NAIVE, "--device", "tpu"], "--device"),
        (["{data}", "--h", "1", "--quantile", "5"], "--quantile"),
        (["{data}", "--h", "1", "--target-col", "ds"], "--target-col"),
        (["{data}", "--h", "1", "--drop", "z"], "--drop"),
        (["{data}", "--h", "1", "--out", "out.xlsx"], "--out"),
        (["{data}", "--h", "1", "--plot", "fan.csv"], "--plot"),
        (["{data}", "--h", "1", "--sample-paths", "2"], "--paths-out"),
        (["--load", "model", "--h", "1", "--plot", "fan.png"], "--plot"),
        (["{other}", "--h", "1"], "DATA"),
        (["{data}", "--h", "1", "--frob"], "--frob"),
    ],
)
def test_a_command_that_is_not_understood_has_status_2(args, option, data):
    other = data.with_suffix(".xlsx")
    other.touch()
    result = run("forecast", *[arg.format(data=data, other=other) for arg in args], status=2)
    assert option in result.stderr


def test_debug_shows_the_traceback():
    result = CliRunner().invoke(app, ["forecast", "none.csv", "--h", "1", "--debug"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)


def test_parquet_without_pyarrow_is_taught(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "out.parquet"
    error = run("forecast", data, "--h", 1, *NAIVE, "--out", out, status=1).stderr
    assert "needs pyarrow" in error
    assert "seqlatent[parquet]" in error


def test_warnings_are_lines(monkeypatch, data):
    import warnings

    def fit(self, *args):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("careful", UserWarning, stacklevel=1)
        raise IndexError("deep inside")

    monkeypatch.setattr(Forecaster, "fit", fit)
    said = run("forecast", data, "--h", 1, status=1).stderr
    assert "seqlatent: warning: careful\n" in said
    assert "unexpected IndexError: deep inside; --debug shows" in said
    assert "careful" not in run("forecast", data, "--h", 1, "-q", status=1).stderr


# --- files -----------------------------------------------------------------------------------


def test_an_old_file_stays_until_the_new_one_is_complete(tmp_path):
    old = tmp_path / "out.csv"
    old.write_text("old")
    old.chmod(0o640)
    with pytest.raises(ValueError, match="no space"), files.replacing(old) as draft:  # noqa: PT012
        draft.write_text("half")
        raise ValueError("no space")
    assert old.read_text() == "old"
    with files.replacing(old) as draft:
        draft.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"
    assert old.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_link_still_leads_to_the_file(data, tmp_path):
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to("real.csv")
    run("forecast", data, "--h", 1, *NAIVE, "--out", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "real.csv").read_text().splitlines()) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(data):
    error = run("forecast", data, "--h", 1, *NAIVE, "-q", "--out", "/dev/full", status=1).stderr
    assert re.fullmatch("seqlatent: error: cannot write /dev/full: no space.*\n", error, re.I)


def test_nothing_is_written_that_was_not_asked_for(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("forecast", data, "--h", 1, *NAIVE)
    run("backtest", data, "--h", 1, *NAIVE)
    assert os.listdir(tmp_path) == ["data.csv"]


# --- the rest --------------------------------------------------------------------------------


def test_help_names_all_models():
    (_, option) = cli_options.Models.__metadata__[0], cli_options.Models.__metadata__[0]
    assert all(re.search(rf"\b{name}\b", option.help) for name in names())


def test_help_is_quick():
    code = (
        "import sys; from seqlatent.forecasting.cli import main; sys.argv = ['seqlatent', '-h']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "forecast" in done.stdout


@pytest.mark.slow
def test_statuses_of_a_process(data):
    command = [sys.executable, "-m", "seqlatent.forecasting"]
    for args, status in (
        (["--version"], 0),
        (["forecast", str(data), "--h", "1", *NAIVE], 0),
        (["forecast", "none.csv", "--h", "1"], 1),
        (["forecast", "none.csv"], 2),
    ):
        done = subprocess.run([*command, *args], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*command, "forecast", "none.csv", "--h", "1", "--debug"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_the_demo_scores_writes_and_draws(tmp_path, monkeypatch):
    from seqlatent.forecasting.cli import demo

    monkeypatch.setattr(demo, "MODELS", ("seasonal_naive", "structural", "recurrent"))
    monkeypatch.setattr(demo, "QUICK", 0.3)
    text = run("demo", "--quick", "--out", tmp_path).stdout
    assert re.search(r"model +wql +mase +coverage80 +seconds", text)
    assert re.search(r"\nco2 +\d", text)
    assert sorted(os.listdir(tmp_path)) == ["fan.png", "forecast.csv"]
    found = pd.read_csv(tmp_path / "forecast.csv")
    assert len(found) == 3 * 24
    assert np.isfinite(found[["y", "structural", "recurrent"]]).all(axis=None)
    assert "no such folder" in run("demo", "--out", tmp_path / "none", status=1).stderr


@pytest.mark.parametrize(("given", "count"), [([], 1), (["--threads", 2], 2)])
def test_commands_run_on_one_thread_unless_told_otherwise(data, given, count, monkeypatch):
    asked = []
    build = Forecaster.__init__

    def note(self, *model, **named):
        asked.append(named["threads"])
        build(self, *model, **named)

    monkeypatch.setattr(Forecaster, "__init__", note)
    run("forecast", data, "--h", 2, *NAIVE, *given)
    run("backtest", data, "--h", 2, *NAIVE, *given)
    assert set(asked) == {count}


def test_what_would_not_fit_into_memory_is_refused_before_the_fit(data, monkeypatch):
    from seqlatent.forecasting.forecaster import Forecaster

    monkeypatch.setattr(Forecaster, "fit", lambda *given: pytest.fail("it was fitted"))
    said = run("forecast", data, "--h", 10**12, *NAIVE, status=1).stderr
    assert "h must leave forecasts that fit into memory" in said
    assert "GiB of memory, found" in said
    assert "Traceback" not in said
