"""Notes are about what was fitted, and the rows looked at last: they do not pile up."""

import numpy as np
import pytest
from engines import BASELINES, ENGINES, copied, panel, rows_of

FALLING_BACK = ("seasonal_naive", "ets", "theta", "sarimax")


def newcomers(rows=3):
    df = panel(rows, prefix="new")
    df.loc[df["unique_id"] == "new1", "y"] = 3.0
    return df


def looks(model, df):
    holes = df.assign(y=df["y"].where(rows_of(df) % 3 != 1))
    for act in (
        lambda: model.predict(2, df),
        lambda: model.sample(2, 3, df),
        lambda: model.score(df),
        lambda: model.innovations(df),
        lambda: model.impute(holes),
        lambda: model.smooth(df),
    ):
        try:
            act()
        except NotImplementedError:  # not every baseline does
            continue


@pytest.mark.parametrize("name", [*BASELINES, "amortised", "structural", "srnn", "own"])
def test_looking_at_other_frames_leaves_nothing_behind(name, tmp_path):
    model = copied(name)
    own = {k: dict(v) for k, v in model.notes.items()}
    for rows in (3, 4):
        looks(model, newcomers(rows))
        for alias, notes in model.notes.items():
            for id, text in notes.items():
                assert len(text.split("; ")) == len(set(text.split("; ")))
                assert id is None or id in own.get(alias, {}) or str(id).startswith("new")
    model.predict(2)
    model.predict(2, panel(28))
    assert model.notes == own
    looks(model, newcomers())
    model.save(tmp_path / "m")
    specs = [ENGINES[name]()] if name == "own" else ()
    assert type(model).load(tmp_path / "m", specs=specs).notes == own
    assert copied(name).notes == own


@pytest.mark.parametrize("name", FALLING_BACK)
def test_what_gives_way_in_a_new_frame_is_said(name):
    model = copied(name)
    model.predict(2, newcomers().assign(unique_id=lambda df: "other " + df["unique_id"]))
    model.predict(2, newcomers())
    said = {id for id in model.notes.get(name, {}) if id is not None and "new" in id}
    assert said
    assert not any("other" in id for id in said)


@pytest.mark.parametrize("name", FALLING_BACK)
def test_what_gives_way_in_an_update_stays_said(name):
    model = copied(name)
    model.update(newcomers())
    said = {id: text for id, text in model.notes[name].items() if id is not None and "new" in id}
    assert said
    model.predict(2, panel(5, prefix="other"))
    kept = {id: model.notes[name][id] for id in said}
    assert kept == said
    assert np.isfinite(model.predict(1)[name]).all()
