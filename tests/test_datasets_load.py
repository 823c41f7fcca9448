"""Benchmark sets: search order, checksums, downloads, long frames, splits, piano rolls."""

import dataclasses
import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from seqlatent.datasets import (
    Dataset,
    Source,
    Task,
    cache_folder,
    catalogue,
    load,
    load_long,
    piano_rolls,
    split,
    tasks,
)
from seqlatent.datasets.panels import PANELS, PARTS
from seqlatent.datasets.readers import READERS

DATA = Path(os.environ.get("SEQLATENT_DATA") or Path(__file__).parents[1] / "../shared/data")

needs_data = pytest.mark.skipif(
    not (DATA / "m3.parquet").is_file(), reason="benchmark files absent: set SEQLATENT_DATA"
)

CSV = b"ds,y\n2020-01-01,1.5\n2020-01-02,2.5\n"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty cache, and no folder named by the environment."""
    monkeypatch.delenv("SEQLATENT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def read_csv(files):
    return pd.concat([pd.read_csv(io.BytesIO(file)) for file in files], ignore_index=True)


def small(*contents, reader=read_csv, **changes):
    sources = [
        Source("me/data", "c0ffee", f"folder/part{i}.csv", sha256(c))
        for i, c in enumerate(contents)
    ]
    fields = {"name": "small", "file": "small.parquet", "sha256": "0" * 64, "origin": "me/data"}
    return Dataset(**(fields | changes), sources=tuple(sources), reader=reader)


def refuse(url):
    raise urllib.error.URLError(f"no network, yet asked for {url}")


@pytest.fixture
def server():
    """A server on this machine: ``answers`` maps paths to (status, length announced, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            status, length, body = self.server.answers.get(self.path, (404, 0, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.answers, instance.asked = {}, []
        thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        host = f"http://127.0.0.1:{instance.server_port}"
        public = "https://raw.githubusercontent.com"
        instance.opener = lambda url: direct.open(url.replace(public, host), timeout=10)
        yield instance
        instance.shutdown()
        thread.join()


def serve(server, dataset, *contents):
    for source, content in zip(dataset.sources, contents, strict=True):
        path = source.url.removeprefix("https://raw.githubusercontent.com")
        server.answers[path] = (200, len(content), content)


def test_the_catalogue_is_complete():
    sets = catalogue()
    assert len(sets) == 25
    assert {name for name, dataset in sets.items() if dataset.downloadable} == set(READERS)
    for name, dataset in sets.items():
        assert dataset.name == name
        assert dataset.file == f"{name}.parquet"
        assert dataset.description
        assert dataset.licence
        assert dataset.origin
        for checksum in [dataset.sha256, *(source.sha256 for source in dataset.sources)]:
            assert len(checksum) == 64
        for source in dataset.sources:
            assert len(source.commit) == 40
            assert f"{source.repository}@{source.commit[:8]}" in dataset.origin
    with pytest.raises(TypeError):
        sets["mine"] = sets["m3"]


def test_the_tasks_are_those_of_the_scoreboard():
    assert len(tasks()) == 10
    assert {task.dataset for task in tasks()} <= set(catalogue())
    assert tasks()[0].file == "m4_hourly.parquet"
    with pytest.raises(dataclasses.FrozenInstanceError):
        tasks()[0].horizon = 3


def test_a_parquet_file_is_checked_and_read(tmp_path):
    frame = pd.DataFrame({"ds": [1, 2], "y": [0.5, None]})
    path = tmp_path / "small.parquet"
    frame.to_parquet(path)
    good = small(CSV, sha256=sha256(path.read_bytes()))
    assert_frame_equal(load(good, root=tmp_path, opener=refuse), frame)
    wrong = small(CSV, sha256="1" * 64)
    with pytest.raises(
        ValueError, match=f"small.parquet must have sha256 {'1' * 64}, found {good.sha256}"
    ):
        load(wrong, root=tmp_path, opener=refuse)


def test_what_is_read_is_what_was_checked(tmp_path, monkeypatch):
    frame = pd.DataFrame({"y": [0.5, 1.0]})
    path = tmp_path / "small.parquet"
    frame.to_parquet(path)
    good = small(CSV, sha256=sha256(path.read_bytes()))

    def read_and_replaced(path, read=Path.read_bytes):
        content = read(path)
        frame.assign(y=7.0).to_parquet(path)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replaced)
    assert_frame_equal(load(good, root=tmp_path, opener=refuse), frame)


def test_folders_are_searched_in_order(tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("root", "named")} | {"cache": cache_folder()}
    contents = {}
    for i, (name, folder) in enumerate(folders.items()):
        folder.mkdir(parents=True)
        pd.DataFrame({"y": [float(i)]}).to_parquet(folder / "small.parquet")
        contents[name] = sha256((folder / "small.parquet").read_bytes())
    monkeypatch.setenv("SEQLATENT_DATA", str(folders["named"]))
    for i, name in enumerate(folders):
        assert load(small(sha256=contents[name]), root=folders["root"])["y"][0] == i
        (folders[name] / "small.parquet").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load(small(), root=folders["root"])
    for folder in folders.values():
        assert str(folder) in str(caught.value)


def test_the_cache_folder_follows_the_user(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache" / "seqlatent"
    assert not cache_folder().exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "seqlatent"


@pytest.mark.parametrize("to_root", [True, False])
def test_a_download_is_stored_once(server, tmp_path, to_root):
    second = b"ds,y\n2020-01-03,3.5\n"
    dataset = small(CSV, second)
    serve(server, dataset, CSV, second)
    root = tmp_path / "mine" if to_root else None
    frame = load(dataset, root=root, opener=server.opener)
    assert frame["y"].tolist() == [1.5, 2.5, 3.5]
    assert server.asked == [f"/me/data/c0ffee/folder/part{i}.csv" for i in range(2)]
    folder = (root or cache_folder()) / "small"
    assert sorted(path.name for path in folder.iterdir()) == ["part0.csv", "part1.csv"]
    assert_frame_equal(load(dataset, root=root, opener=refuse), frame)
    (folder / "part1.csv").write_bytes(b"edited")
    with pytest.raises(
        ValueError, match=f"part1.csv must have .*{sha256(second)}, found {sha256(b'edited')}"
    ):
        load(dataset, root=root, opener=refuse)


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        ((200, len(CSV), CSV[::-1]), ValueError, f"{sha256(CSV)}, found {sha256(CSV[::-1])}"),
        ((200, len(CSV), CSV[:9]), ConnectionError, "small was looked for.*IncompleteRead"),
        ((404, 0, b""), ConnectionError, "could not be downloaded from https.*404"),
    ],
    ids=["corrupted", "truncated", "absent"],
)
def test_a_bad_download_leaves_nothing_behind(server, tmp_path, answer, error, match):
    dataset = small(CSV, CSV)
    serve(server, dataset, CSV, CSV)
    server.answers["/me/data/c0ffee/folder/part1.csv"] = answer
    with pytest.raises(error, match=match):
        load(dataset, opener=server.opener)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_part_of_a_file(server, tmp_path, monkeypatch):
    dataset = small(CSV)
    serve(server, dataset, CSV)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        load(dataset, root=tmp_path / "mine", opener=server.opener)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_network_says_what_to_do(tmp_path):
    with pytest.raises(ConnectionError, match=r"etth1\.parquet.*no network.*SEQLATENT_DATA"):
        load("etth1", opener=refuse)
    with pytest.raises(FileNotFoundError, match=r"pass download=True, or put etth1\.parquet"):
        load("etth1", download=False, opener=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(catalogue()) - set(READERS)))
def test_some_sets_come_as_parquet_only(name):
    with pytest.raises(
        FileNotFoundError, match=rf"cannot be downloaded.*put {name}\.parquet \(sha256"
    ):
        load(name, opener=refuse)


def test_the_default_opener_opens_addresses(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(CSV)
    monkeypatch.setattr(Source, "url", property(lambda self: (tmp_path / "a.csv").as_uri()))
    assert len(load(small(CSV))) == 2


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    pd.DataFrame({"y": [1.0]}).to_parquet(tmp_path / "small.parquet")
    dataset = small(sha256=sha256((tmp_path / "small.parquet").read_bytes()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'seqlatent\[parquet\]'"):
        load(dataset, root=tmp_path)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: load("etth"), r"found 'etth'; did you mean 'etth1'"),
        (lambda: load("m3_monthly"), r"part of 'm3': use load_long\('m3_monthly'\)"),
        (lambda: load_long("m3"), "mixes frequencies: load one part of it, m3_monthly"),
        (lambda: load_long("gunpoint"), r"no form unique_id, ds, y; use load\('gunpoint'\)"),
        (lambda: load_long("musedata"), r"or piano_rolls\('musedata'\)"),
        (lambda: load_long("nothing"), r"catalogue\(\) lists all sets"),
        (lambda: split("m3"), r"found 'm3'; .*tasks\(\) lists all tasks"),
        (lambda: piano_rolls("jsb_chorales", steps=0), "steps must be at least 1 or None, found 0"),
    ],
)
def test_wrong_names_are_explained(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_piano_rolls_need_piano_rolls():
    with pytest.raises(ValueError, match="must be a set of piano rolls, found 'small'"):
        piano_rolls(stored(small(CSV), CSV))


def test_the_import_is_light():
    code = "import sys, seqlatent.datasets; print({'pandas', 'statsmodels'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Readers, on small files written in the format of the real ones.


def stored(dataset, *contents):
    """Puts source files into the cache, as if they had been downloaded."""
    for source, content in zip(dataset.sources, contents, strict=True):
        path = cache_folder() / dataset.name / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return dataset


def test_reader_of_dated_tables():
    table = b"date,A,B\n2016-07-01 00:00:00,5,2.25\n2016-07-01 00:15:00,6,1.5\n"
    for content in (table, gzip.compress(table)):
        frame = READERS["ettm1"]([content])
        assert list(frame.columns) == ["ds", "A", "B"]
        assert frame["ds"].iloc[1] == pd.Timestamp("2016-07-01 00:15")
        assert frame["A"].dtype == np.float64


def test_reader_of_bike_sharing():
    names = "instant,dteday,season,yr,mnth,hr,holiday,weekday,workingday,weathersit,"
    names += "temp,atemp,hum,windspeed,casual,registered,cnt\n"
    frame = READERS["bike_sharing"](
        [(names + "1,2011-01-01,1,0,1,5,0,6,0,1,.2,.3,.8,0,3,13,16").encode()]
    )
    assert frame["ds"][0] == pd.Timestamp("2011-01-01 05:00")
    assert frame["cnt"][0] == 16
    assert frame["cnt"].dtype == np.int16
    assert len(frame.columns) == 16


def test_reader_of_electricity():
    clients = np.arange(2 * 336, dtype=np.float32).reshape(2, 336)
    windows = np.stack([clients[:, 24 * i : 24 * i + 192] for i in range(7)], 1).reshape(14, 192)
    file = io.BytesIO()
    np.save(file, windows)
    frame = READERS["electricity_14d"]([file.getvalue()])
    assert list(frame.columns) == ["ds", "MT_001", "MT_002"]
    assert np.array_equal(frame[["MT_001", "MT_002"]].to_numpy(), clients.T)
    assert frame["ds"].iloc[-1] == pd.Timestamp("2014-09-07 23:00")


def test_reader_of_exchange_rates():
    frame = READERS["exchange_rate"]([gzip.compress(b"1,2,3,4,5,6,7,8\n" * 6300)])
    assert frame["part"].value_counts().to_dict() == {"train": 6071, "test": 150, "rest": 79}
    assert frame["singapore"].iloc[0] == 8


def test_readers_of_long_tables():
    m5 = b"unique_id,ds,y,sell_price,event_type_Cultural\nA,2011-01-29,3,2.0,0\n"
    assert READERS["m5_small"]([m5])["sell_price"].dtype == np.float32
    epf = b"unique_id,ds,y,Exogenous1,Exogenous2,day_0\nBE,2016-10-22 01:00:00,70.0,1.0,2.0,0.0\n"
    assert list(READERS["epf_short"]([epf]).columns) == ["series", "ds", "y", "exog1", "exog2"]


def test_reader_of_solar_plants():
    weather = "SolarRadiationGlobalAt0;SolarRadiationDirectAt0;SolarRadiationDiffuseAt0;"
    weather += "clearsky_global;sunposition_solarHeight;TemperatureAt0;TotalCloudCoverAt0;"
    weather += "RelativeHumidityAt0"
    rows = [(0, 0.0), (1, 0.1), (7, 0.2), (0, 0.3), (0, 0.4)]  # 0, 3, 21, 24 and 48 hours
    lines = [f"{h / 7};0.9090909;{y};" + ";".join(["0.5"] * 8) for h, y in rows]
    file = "\n".join([f"hour_of_day;month_of_year;power_normed;{weather}", *lines]).encode()
    frame = READERS["german_solar_2"]([file, file])
    first = frame[frame["series"] == "pv_06"]
    assert first["elapsed_h"].tolist() == [0, 3, 21, 24, 48]
    assert first["month"].tolist() == [11] * 5
    assert len(frame) == 10


def test_reader_of_labelled_sequences():
    files = [b"#note\n@classLabel true 1 2\n@data\n1.5,2.5:2\n", b"@data\n3.0,4.0:1\n5.0,6.0:2\n"]
    frame = READERS["gunpoint"](files)
    assert frame["split"].tolist() == ["train", "test", "test"]
    assert frame["label"].tolist() == ["2", "1", "2"]
    assert frame["x1"].tolist() == [2.5, 4.0, 6.0]


def test_reader_of_m4():
    files = [b'"V1","V2","V3"\n"H10","1","2"\n"H2","3",NA\n', b'"V1","V2"\n"H10","4"\n"H2","5"\n']
    frame = READERS["m4_hourly"](files)
    assert frame["series"].tolist() == ["H10"] * 3 + ["H2"] * 2
    assert frame["y"].tolist() == [1, 2, 4, 3, 5]
    assert frame["t"].tolist() == [0, 1, 2, 0, 1]
    assert frame["test"].tolist() == [False, False, True, False, True]


def test_reader_of_prices():
    frame = READERS["stock"]([b"Open,Volume\n49.5,100\n50.5,200\n"])
    assert frame["t"].tolist() == [0, 1]
    assert frame["Volume"].dtype == np.float64


def chorales():
    """A tiny set of piano rolls: pieces of 3 and 5 steps to train on, then 2 and 4."""
    from scipy.io import savemat

    pieces = {"train": [3, 5], "valid": [2], "test": [4]}
    content = {}
    for i, (part, lengths) in enumerate(pieces.items()):
        rolls = np.empty((1, len(lengths)), dtype=object)
        for j, n in enumerate(lengths):
            rolls[0, j] = np.eye(n, 88, k=10 * i + j, dtype=np.uint8)
        content[part + "data"] = rolls
    file = io.BytesIO()
    savemat(file, content)
    content = file.getvalue()
    return stored(small(content, reader=READERS["jsb_chorales"]), content)


def test_piano_rolls_are_padded_with_unobserved_steps():
    frame = load(chorales())
    assert frame["seq"].unique().tolist() == [0, 1, 2, 3]
    parts = piano_rolls(chorales(), dtype=torch.float64)
    train = parts["train"]
    assert train.y.shape == (2, 5, 88)
    assert train.y.dtype == torch.float64
    assert train.last.tolist() == [2, 4]
    assert torch.equal(train.y[0, :3], torch.eye(3, 88, dtype=torch.float64))
    assert not train.observed[0, 3:].any()
    assert train.observed[:, :3].all()
    assert torch.equal(train.y[1].nonzero()[:, 1], torch.arange(1, 6))
    assert parts["test"].y.shape == (1, 4, 88)


def test_long_pieces_can_be_cut():
    train = piano_rolls(chorales(), steps=2)["train"]
    assert train.y.shape == (5, 2, 88)
    assert train.last.tolist() == [1, 0, 1, 1, 0]
    assert train.y.sum() == 8
    assert train.y[4, 0].nonzero().item() == 5
    assert piano_rolls(chorales(), steps=100)["train"].steps == 5


# The real files, where they are.


@needs_data
@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_file_has_its_checksum(name):
    dataset = catalogue()[name]
    assert sha256((DATA / dataset.file).read_bytes()) == dataset.sha256


LONG = sorted({*PANELS, *PARTS} - {"m1", "m3"})
EXTRA = {  # whose series are not at regular times, or have values that are missing
    "bike_sharing": (1, 0),
    "car_parts": (2674, 6122),
    "german_solar_2": (2, 0),
    "gefcom2012_load": (20, 20 * 1344),
    "m3_other": (174, 0),
    "pbcseq": (312, 0),
}


@needs_data
@pytest.mark.parametrize("name", LONG)
def test_long_frames_are_ready_for_a_forecaster(name):
    frame = load_long(name, root=DATA)
    assert list(frame.columns[:3]) == ["unique_id", "ds", "y"]
    assert frame["y"].dtype == np.float64
    assert not frame[["unique_id", "ds"]].isna().any().any()
    assert isinstance(frame["unique_id"].iloc[0], str)
    assert frame["ds"].dtype.kind in "Mi"
    assert (frame.index == np.arange(len(frame))).all()
    same = (frame["unique_id"] == frame["unique_id"].shift()).to_numpy()
    assert frame["unique_id"].nunique() == (~same).sum()  # every series in one piece
    assert (np.diff(frame["ds"].to_numpy().astype(np.int64))[same[1:]] > 0).all()
    if name in EXTRA:
        assert (frame["unique_id"].nunique(), frame["y"].isna().sum()) == EXTRA[name]
    freq = catalogue()[name].freq if name in catalogue() else None
    if freq not in (None, 1) and name != "bike_sharing":
        one = frame["ds"][frame["unique_id"] == frame["unique_id"].iloc[0]]
        expected = pd.date_range(one.iloc[0], periods=len(one), freq=freq)
        assert (one.to_numpy() == expected.to_numpy()).all()


@needs_data
def test_competition_series_have_their_dates():
    frame = load_long("m3_quarterly", root=DATA)
    stored = load("m3", root=DATA)
    first = stored[(stored["period"] == "QUARTERLY") & (stored["t"] == 0)].iloc[5]
    ds = frame["ds"][frame["unique_id"] == first["series"]]
    assert ds.iloc[0] == pd.Timestamp(first["start_year"], 3 * first["start_period"] - 2, 1)
    expected = pd.date_range(ds.iloc[0], periods=len(ds), freq="QS")
    assert (ds.to_numpy() == expected.to_numpy()).all()
    assert load_long("m1_yearly", root=DATA)["ds"].dt.year.min() == 1865
    assert load_long("m3_other", root=DATA)["ds"].dtype.kind == "i"


SEASONAL_NAIVE = {  # WQL, as published for these tasks
    "m4_hourly": 0.0483091941403194,
    "m4_weekly": 0.0633986476090776,
    "exchange_rate": 0.0129841406759913,
    "m1_monthly": 0.1914632595030148,
    "m1_quarterly": 0.1495022062865622,
    "m1_yearly": 0.2092955931101782,
    "m3_monthly": 0.1485446007554992,
    "m3_quarterly": 0.1012520529806161,
    "m3_yearly": 0.1665329650420048,
    "car_parts": 1.5999522140809177,
}


def wql(y, forecast):
    """Weighted quantile loss of a forecast whose quantiles are all the same."""
    error = y - forecast
    losses = [2 * np.maximum(q * error, (q - 1) * error).sum() for q in np.arange(1, 10) / 10]
    return np.mean(losses) / np.abs(y).sum()


@needs_data
@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_the_seasonal_naive_forecast_scores_as_published(task):
    train, test = split(task, root=DATA)
    assert (test.groupby("unique_id").size() == task.horizon).all()
    assert set(test["unique_id"]) == set(train["unique_id"])
    season = train.groupby("unique_id", sort=False).tail(task.season)
    season = season["y"].to_numpy().reshape(-1, task.season)
    repeats = -(-task.horizon // task.season)
    forecast = np.tile(season, repeats)[:, : task.horizon].reshape(-1)
    score = wql(test["y"].to_numpy(), forecast)
    # the total absolute errors on m3_monthly differ by 2400.0 of 2e7: one value of the two copies
    rel = 2e-4 if task.name == "m3_monthly" else 1e-6
    assert score == pytest.approx(SEASONAL_NAIVE[task.name], rel=rel)
    assert round(score, 4) == round(SEASONAL_NAIVE[task.name], 4)
    last = train.groupby("unique_id", sort=False)["ds"].max()
    assert (test.groupby("unique_id", sort=False)["ds"].min() > last).all()


@needs_data
def test_the_split_is_the_one_that_the_source_marks():
    stored = load("m4_weekly", root=DATA)
    train, test = split("m4_weekly", root=DATA)
    assert len(train) == (~stored["test"]).sum()
    assert np.array_equal(test["y"].to_numpy(), stored["y"][stored["test"]].to_numpy())


@needs_data
def test_a_task_of_ones_own():
    train, test = split(Task("wind", "gefcom2012_wind", 48, 24, "h"), root=DATA)
    assert len(test) == 7 * 48
    assert len(train) == 7 * (13176 - 48)


@needs_data
def test_the_chorales_are_whole():
    parts = piano_rolls("jsb_chorales", root=DATA)
    assert {k: v.batch for k, v in parts.items()} == {"train": 229, "valid": 76, "test": 77}
    frames = sum(v.observed[..., 0].sum().item() for v in parts.values())
    assert frames == 23134
    notes = sum(v.y.sum().item() for v in parts.values())
    assert notes / frames == pytest.approx(3.89, abs=0.005)
    assert {k: v.steps for k, v in parts.items()} == {"train": 129, "valid": 144, "test": 160}


@needs_data
@pytest.mark.network
@pytest.mark.parametrize("name", sorted(READERS))
def test_downloads_equal_the_stored_files(name, tmp_path):
    downloaded = load(name, root=tmp_path)
    assert_frame_equal(downloaded, load(name, root=DATA), check_exact=True)


PAGE = Path(__file__).parents[1] / "docs/datasets.md"


def test_the_page_lists_every_set_and_how_it_comes():
    page = PAGE.read_text("utf-8").partition("## Benchmark sets")[2].partition("\n### ")[0]
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line[:1] == "|"]
    listed = {row[0].strip(" `"): row for row in rows}
    for name, dataset in catalogue().items():
        assert listed[name][3].strip().startswith("yes" if dataset.downloadable else "no")


@needs_data
def test_the_examples_of_the_page_run(monkeypatch):
    monkeypatch.setenv("SEQLATENT_DATA", str(DATA))
    blocks = [block.split("```")[0] for block in PAGE.read_text("utf-8").split("```python\n")[1:]]
    assert len(blocks) > 5
    namespace = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert len(namespace["test"]) == 645 * 6
    assert namespace["short"]["train"].steps == 40
