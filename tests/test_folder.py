"""Model folders: nothing foreign is touched, all damage is found, whatever stops a save."""

import errno
import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from engines import ENGINES, copied, fitted, panel, rows_of

from seqlatent import files
from seqlatent.forecasting import FolderError, Forecaster, spec_of
from seqlatent.forecasting.storage.manifest import _digest

OWN = {name: ENGINES[name]() for name in ("own", "short_own")}


def load(name, place):
    """Reads a folder, with the Spec that was fitted where it is needed."""
    return Forecaster.load(place, specs=[OWN[name]] if name in OWN else [])


def forecast(model):
    return model.predict(2, samples=20)


def attempt(step, *args):
    """What a step gives, and the FolderError that it raises instead."""
    try:
        return step(*args), None
    except FolderError as error:
        return None, error


def rewritten(place, **changes):
    """Changes the manifest as one who knows how checksums are made."""
    config = json.loads((place / "config.json").read_text()) | changes
    config["sha256"] = _digest(config)
    (place / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A saved model, not to be touched."""
    place = tmp_path_factory.mktemp("original") / "model"
    fitted("naive").save(place)
    return place


@pytest.fixture
def saved(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "model"))


# --- What is at the place --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"thesis.txt": "mine"}, "thesis.txt"),
        ({"config.json": "{}", "data.csv": "1"}, "config.json"),
        ({"config.json": '{"kind": "forecaster", "format": 2}'}, "format 4, found 2"),
        ({"config.json": "{"}, "config.json"),
        ({"sub/config.json": "{}"}, "sub"),
    ],
)
def test_what_is_no_model_is_neither_replaced_nor_touched(found, named, tmp_path):
    place = tmp_path / "project"
    for name, text in found.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    with pytest.raises(FolderError, match=named):
        fitted("naive").save(place)
    left = {str(p.relative_to(place)): p.read_text() for p in place.rglob("*") if p.is_file()}
    assert left == found


def test_a_model_beside_an_unknown_file_is_not_replaced(saved):
    (saved / "README.md").write_text("mine")
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    with pytest.raises(FolderError, match=r"README\.md"):
        fitted("ets").save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert load("naive", saved).aliases == ("naive",)  # it still reads


def test_a_file_at_the_place_is_refused(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FolderError, match="found a file"):
        fitted("naive").save(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_link_is_followed(saved, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(saved)
    fitted("ets").save(link)
    assert link.is_symlink()
    assert Forecaster.load(saved).aliases == Forecaster.load(link).aliases == ("ets",)
    ahead = tmp_path / "ahead"
    ahead.symlink_to(tmp_path / "later" / "model")
    fitted("ets").save(ahead)
    assert Forecaster.load(tmp_path / "later" / "model").aliases == ("ets",)


def test_the_umask_is_kept(tmp_path):
    before = os.umask(0o027)
    try:
        fitted("naive").save(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "model").iterdir()}
    assert modes == {0o640}
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750


def test_a_damaged_model_can_be_saved_again(saved):
    (saved / "config.json").write_bytes(b"\xff")
    fitted("ets").save(saved)
    assert Forecaster.load(saved).aliases == ("ets",)
    assert len(list(saved.iterdir())) == 4


@pytest.mark.parametrize("name", ENGINES)
def test_notes_positions_and_identifiers_survive(name, tmp_path):
    df, model = panel(), copied(name)
    model.update(df[rows_of(df) >= 28])
    model.save(tmp_path / "model")
    found = load(name, tmp_path / "model")
    assert found.notes == model.notes
    assert found.ids == model.ids
    pd.testing.assert_frame_equal(forecast(found), forecast(model))


@pytest.mark.parametrize("model", ["deep_state", "ets"])
def test_notes_of_series_survive(model, tmp_path):
    days = pd.date_range("2024-01-01", periods=12, freq="D")
    ids = [7, 8]
    y = np.arange(24.0) % 5
    y[13:] = np.nan
    df = pd.DataFrame({"unique_id": np.repeat(ids, 12), "ds": [*days, *days], "y": y})
    spec = spec_of(model, steps=2) if model == "deep_state" else model
    fit = Forecaster(spec, season_length=1).fit(df)
    assert ids[1] in fit.notes[model]
    fit.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    assert loaded.notes == fit.notes
    pd.testing.assert_frame_equal(forecast(loaded), forecast(fit))


# --- Damage ----------------------------------------------------------------------------------


def _directory(path):
    path.unlink()
    path.mkdir()


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _changed(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGE = {
    "missing": Path.unlink,
    "empty": _changed(lambda x: b""),
    "cut": _changed(lambda x: x[: len(x) // 2]),
    "longer": _changed(lambda x: x + b"}"),
    "zeros": _changed(lambda x: bytes(len(x))),
    "text in another code": _changed(lambda x: b"\xff\xfe" + x[2:]),
    "a folder": _directory,
    "a link": _link,
    "a pipe": _pipe,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["config", "last_rows", "model-0", "state-0"])
def test_a_damaged_file_is_named(file, damage, saved):
    (path,) = saved.glob(f"{file}*")
    DAMAGE[damage](path)
    with pytest.raises(FolderError, match=rf"{path.name}: expected .*, found .*(again|manifest)"):
        Forecaster.load(saved)


def test_a_file_that_may_not_be_read_is_named(saved, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(FolderError, match="Permission denied; correct its permissions"):
        Forecaster.load(saved)


@pytest.mark.parametrize(
    "found", [0, -5, 1, 2, 3, 5, 99, 10**400, True, False, None, "1", "4", 4.0, [4], {}]
)
def test_another_format_is_refused(found, saved):
    rewritten(saved, format=found)
    with pytest.raises(FolderError, match=r"config.json: (expected|this version reads) format 4"):
        Forecaster.load(saved)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"kind":' * 100_000 + b"1" + b"}" * 100_000,
        b"9" * 10_000,
        b"null",
        b"[]",
        b'{"kind": "other"}',
        b'{"kind": ["seqlatent forecaster"]}',
    ],
)
def test_json_that_is_no_manifest_is_refused(text, saved):
    (saved / "config.json").write_bytes(text)
    with pytest.raises(FolderError, match=r"config.json: expected"):
        Forecaster.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": [1]},
        {"files": []},
        {"ids": ["s0"]},
        {"ids": [["Nothing", 1], "s1", "s2"]},
        {"models": {}},
        {"time_index": {"kind": "x"}},
        {"seed": None, "columns": None},
        {"seed": None},
        {"time_limit": -1},
        {"freq": "often"},
        {"season_length": [0.5]},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_add_up_is_refused(changes, saved):
    rewritten(saved, **changes)
    with pytest.raises(FolderError):
        Forecaster.load(saved)


def test_a_folder_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(FolderError, match="none: expected a model folder, found none; name one"):
        Forecaster.load(tmp_path / "none")
    with pytest.raises(FolderError, match=r"expected a model folder with config\.json, found none"):
        Forecaster.load(tmp_path)


def test_a_manifest_leads_to_no_file_outside(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    shutil.copy(saved / config["files"][0]["file"], tmp_path / "outside.safetensors")
    config["files"][0]["file"] = "../outside.safetensors"
    rewritten(saved, files=config["files"])
    with pytest.raises(FolderError, match=r"expected names of files, found \['\.\./outside"):
        Forecaster.load(saved)


def test_files_of_two_models_do_not_mix(saved, tmp_path):
    other = tmp_path / "other"
    Forecaster("naive").fit(panel(seed=1)).save(other)
    (mine,), (theirs,) = saved.glob("state-0*"), other.glob("state-0*")
    shutil.copy(theirs, saved / theirs.name)  # one that is left over, and of no model
    pd.testing.assert_frame_equal(forecast(Forecaster.load(saved)), forecast(fitted("naive")))
    shutil.copy(theirs, mine)
    with pytest.raises(FolderError, match=mine.name):
        Forecaster.load(saved)
    shutil.copy(other / "config.json", saved / "config.json")
    with pytest.raises(FolderError, match="expected this file of the model, found none"):
        Forecaster.load(saved)


def flips(path, n, seed):
    """Places of bits to flip, in all of a file."""
    return np.random.default_rng(seed).integers(0, 8 * path.stat().st_size, n)


def flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << int(bit % 8)
    path.write_bytes(data)


def assert_found_or_equal(name, place, expected, what):
    model, error = attempt(load, name, place)
    if error is None:
        pd.testing.assert_frame_equal(forecast(model), expected, obj=what)
    else:
        assert str(place) in str(error)


def test_a_flipped_bit_is_found_or_harmless(saved):
    expected = forecast(fitted("naive"))
    for path in sorted(saved.iterdir()):
        kept = path.read_bytes()
        for bit in flips(path, 40, 0):
            flipped(path, bit)
            assert_found_or_equal("naive", saved, expected, f"{path.name} {bit}")
            path.write_bytes(kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_every_damage_of_every_file_of_every_engine_is_found_or_harmless(name, tmp_path):
    place, other = tmp_path / "model", tmp_path / "other"
    fitted(name).save(place)
    Forecaster("naive").fit(panel(seed=1)).save(other)
    expected = forecast(fitted(name))
    foreign = next(other.glob("state-0*")).read_bytes()
    damages = {**DAMAGE, "of another model": lambda path: path.write_bytes(foreign)}
    damages |= {f"{size} bytes": _changed(lambda x, n=size: x[:n]) for size in (1, 7, 8, 9, 100)}
    for i, path in enumerate(sorted(place.iterdir())):
        bits = {f"bit {b}": lambda path, b=b: flipped(path, b) for b in flips(path, 30, i)}
        for what, damage in {**damages, **bits}.items():
            shutil.rmtree(tmp_path / "broken", ignore_errors=True)
            shutil.copytree(place, tmp_path / "broken")
            damage(tmp_path / "broken" / path.name)
            assert_found_or_equal(name, tmp_path / "broken", expected, f"{path.name} {what}")


# --- Stops -----------------------------------------------------------------------------------


class Stopped(BaseException):
    """What stops a process: nothing of the package may catch it."""


class Steps:
    """Counts the steps of the file system that change something, and fails at one of them."""

    def __init__(self, monkeypatch, stop, error):
        self.stop, self.error, self.taken = stop, error, 0
        for name in ("mkdir", "fsync", "replace", "unlink", "rmdir", "chmod"):
            monkeypatch.setattr(os, name, self.counted(name, getattr(os, name)))
        monkeypatch.setattr(Path, "open", self.counted("open", Path.open))

    def counted(self, name, step):
        def run(*args, **options):
            self.taken += 1
            if self.taken == self.stop or (self.taken > self.stop and self.error is Stopped):
                raise self.error(errno.ENOSPC, "No space left on device")
            return step(*args, **options)

        return run


def steps_of(model, place):
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(patch, 10**9, OSError)
        model.save(place)
    return steps.taken


@pytest.mark.parametrize("error", [OSError, Stopped], ids=["full", "killed"])
@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_a_save_that_stops_at_any_step_leaves_the_old_or_the_new_model(
    there, error, original, tmp_path
):
    old, new = fitted("naive"), fitted("ets")
    count = steps_of(new, Path(shutil.copytree(original, tmp_path / "count")))
    assert count > 15
    for stop in range(1, count + 3):
        place = tmp_path / str(stop) / "model"
        if there:
            shutil.copytree(original, place)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, stop, error)
            with suppress(Stopped):
                _, found = attempt(new.save, place)
                assert error is OSError or steps.taken < stop
                assert found is None or "No space left" in str(found)
                assert found is None or isinstance(found.__cause__, OSError)
        assert_old_or_new(place, there, {"naive": old, "ets": new})
        if error is OSError:  # nothing is left over but what a later save removes
            names = [p.name for p in place.iterdir()] if place.exists() else []
            assert not any(files.DRAFT.fullmatch(name) for name in names) or steps.taken > stop
        old.save(place)
        assert sorted(p.name for p in place.iterdir()) == sorted(p.name for p in original.iterdir())
        assert [p.name for p in place.parent.iterdir()] == ["model"]
        pd.testing.assert_frame_equal(forecast(Forecaster.load(place)), forecast(old))


def assert_old_or_new(place, there, models):
    found, error = attempt(Forecaster.load, place)
    if found is None:
        assert not there, error
        assert "found none" in str(error)
    else:
        pd.testing.assert_frame_equal(forecast(found), forecast(models[found.aliases[0]]))


def test_two_that_save_and_one_that_loads_at_the_same_time(saved):
    models = {"naive": fitted("naive"), "ets": fitted("ets")}
    failures, over = [], threading.Event()

    def work(step):
        try:
            while not over.is_set():
                step()
        except Exception as error:
            failures.append(error)
            raise

    threads = [
        threading.Thread(target=work, args=[lambda m=model: m.save(saved)])
        for model in models.values()
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert_old_or_new(saved, True, models)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(list(saved.iterdir())) == 4
