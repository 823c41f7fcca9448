"""A loaded forecaster is made as the saved one was: it fits and backtests the same again."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from engines import ENGINES, SEASON, fitted, panel, rows_of

from seqlatent.emissions import StudentT
from seqlatent.forecasting import ArgumentError, FolderError, Forecaster, Spec, spec_of
from seqlatent.forecasting.engines.latent.engine import LatentEngine
from seqlatent.forecasting.engines.latent.recipes import srnn
from seqlatent.forecasting.engines.spec import Members

SLOW = ("structural", "sarimax", "vrnn", "latent_ode")
OWN = {name: ENGINES[name]() for name in ("own", "short_own")}
SMALL = {"members": 1, "steps": 2, "hidden_dim": 8}


class Family(StudentT):
    """An emission that the package does not know."""


def again(model, place, specs=()):
    model.save(place)
    return Forecaster.load(place, specs=specs)


def short():
    df = panel()
    return df[rows_of(df) < 28]


@pytest.mark.parametrize("name", ENGINES)
def test_a_loaded_forecaster_fits_as_the_first_time(name, tmp_path):
    first = Forecaster(ENGINES[name](), season_length=SEASON).fit(short())
    loaded = again(first, tmp_path / "model", [OWN[name]] if name in OWN else [])
    expected = first.predict(3, samples=20)
    pd.testing.assert_frame_equal(loaded.fit(short()).predict(3, samples=20), expected)
    assert loaded.notes == first.notes


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ENGINES]
)
def test_a_loaded_forecaster_backtests_as_the_saved_one(name, tmp_path):
    loaded = again(fitted(name), tmp_path / "model", [OWN[name]] if name in OWN else [])
    found, expected = (
        m.cross_validation(short(), 2, refit=True, samples=20) for m in (loaded, fitted(name))
    )
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    "model",
    [
        lambda: spec_of("srnn", **SMALL),
        lambda: replace(spec_of("srnn", **SMALL), name="mine", context=12, scaling="level"),
        lambda: replace(spec_of("structural", specifications=("level",), draws=1), samples=7),
        lambda: ["naive", spec_of("srnn", emission="normal", **SMALL), "ets"],
    ],
)
def test_what_a_factory_made_needs_no_spec(model, tmp_path):
    first = Forecaster(model(), season_length=SEASON, seed=3).fit(short())
    loaded = again(first, tmp_path / "model")
    assert loaded.aliases == first.aliases
    for ours, theirs in zip(loaded._engines.values(), first._engines.values(), strict=True):
        assert getattr(ours, "samples", None) == getattr(theirs, "samples", None)
    expected = first.predict(3)
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(short()).predict(3), expected)
    latent = [e for e in loaded._engines.values() if isinstance(e, LatentEngine)]
    assert [len(e.ensemble.models) for e in latent] == [1]


@pytest.mark.parametrize(
    "spec",
    [
        OWN["own"],
        srnn(emission=Family, **SMALL),
        replace(srnn(**SMALL), context=lambda data_summary: 12),
        replace(srnn(**SMALL), train=srnn(members=1, steps=3, hidden_dim=8).train),
    ],
)
def test_what_cannot_be_saved_has_to_be_given_again(spec, tmp_path):
    first = Forecaster(spec, season_length=SEASON).fit(short())
    first.save(tmp_path / "model")
    with pytest.raises(FolderError, match=r"specs=\[spec\]"):
        Forecaster.load(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", specs=spec)
    expected = first.predict(3)
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(short()).predict(3), expected)


def replaced(models, training):
    """A trainer that makes members of its own, and uses the first."""
    made = [deepcopy(model) for model in models]
    return Members(made, np.tile([1.0, 0.0], (training.data_summary.series, 1)))


def test_members_that_a_trainer_made_take_the_place_of_those_it_was_given(tmp_path):
    spec = replace(srnn(members=2, steps=1, hidden_dim=8), train=replaced, own=True)
    first = Forecaster(spec, season_length=SEASON).fit(short())
    first.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", specs=spec)
    pd.testing.assert_frame_equal(loaded.predict(3), first.predict(3))


def test_a_spec_that_does_not_belong_to_the_folder_is_refused(tmp_path):
    place = tmp_path / "model"
    Forecaster(srnn(**SMALL), season_length=SEASON).fit(short()).save(place)
    with pytest.raises(ArgumentError, match="specs must have the names of models"):
        Forecaster.load(place, specs=[OWN["own"]])
    for other in (srnn(members=2, steps=2, hidden_dim=8), srnn(members=1, steps=2, hidden_dim=4)):
        assert isinstance(other, Spec)
        with pytest.raises(FolderError, match="pass the Spec that it was fitted with"):
            Forecaster.load(place, specs=[other])
