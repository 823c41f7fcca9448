"""Models of one's own behind a forecaster: weights are kept, names are known, folders are read."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from engines import panel
from own_engines import Smoothed, Walk
from torch import nn

from seqlatent import LatentModel, evidence, zoo
from seqlatent.emissions import Normal
from seqlatent.forecasting import (
    ArgumentError,
    FolderError,
    Forecaster,
    SequentialTraining,
    Spec,
    WindowTraining,
    register,
    spec_of,
)
from seqlatent.forecasting.engines import registry
from seqlatent.inference import Particles
from seqlatent.transitions import DiagonalTransition


class Damped(DiagonalTransition):
    """A walk with a weight of its own, which nothing says how to draw."""

    def __init__(self, scale):
        super().__init__()
        self.latent_dim = 1
        self.log_scale = nn.Parameter(torch.tensor([scale]))
        self.layer = nn.Linear(1, 1)

    def initial_affine(self, c):
        return torch.zeros(1), torch.ones(1)

    def affine(self, c):
        return torch.tensor([0.9]), 0.0 * self.layer.bias, self.log_scale.exp()


def untrained(models, training):
    """Leaves the members as they are."""


def fourteen(data_summary):
    return 14


def damped(scale=-1.0, members=2, train=untrained):
    def build(data_summary):
        return [
            LatentModel(
                Damped(scale),
                Normal(1, data_summary.obs_dim, context_dim=data_summary.covariate_dim),
                Particles(20),
            )
            for _ in range(members)
        ]

    return Spec("damped", build, train, calendar=False, samples=50)


@pytest.fixture
def df():
    return panel(24)


@pytest.fixture
def names(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})


def members(forecaster):
    (engine,) = forecaster._fitted.engines.values()
    return [model.transition for model in engine.ensemble.models]


def test_a_part_needs_no_method_beside_those_of_its_class(df):
    train = SequentialTraining(
        [WindowTraining(evidence, 2, fourteen), WindowTraining(evidence, 2, fourteen)], [0.5, 0.5]
    )
    found = Forecaster(damped(train=train)).fit(df).predict(2)
    assert np.isfinite(found["damped"]).all()


def test_weights_that_come_with_a_model_are_kept(df):
    kept = members(Forecaster(damped(scale=-0.625)).fit(df))
    assert [p.log_scale.item() for p in kept] == [-0.625, -0.625]


def test_weights_of_a_network_of_the_package_are_kept_too(df):
    trained = zoo.srnn(latent_dim=0, hidden_dim=4, obs_dim=1, emission=Normal)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.fill_(0.25)

    def build(data_summary):
        return [trained]

    spec = Spec("kept", build, untrained, calendar=False)
    (engine,) = Forecaster(spec).fit(df)._fitted.engines.values()
    assert all((p == 0.25).all() for p in engine.ensemble.models[0].parameters())
    train = WindowTraining(evidence, 2, fourteen)
    first = Forecaster(replace(spec, train=train)).fit(df).predict(2, seed=1)
    assert all((p == 0.25).all() for p in trained.parameters())
    again = Forecaster(replace(spec, train=train)).fit(df).predict(2, seed=1)
    pd.testing.assert_frame_equal(first, again)


def test_what_is_drawn_in_a_build_follows_from_the_seed(df):
    state = torch.get_rng_state()
    first, second = members(Forecaster(damped()).fit(df))
    assert not torch.equal(first.layer.weight, second.layer.weight)
    torch.manual_seed(5)
    again = members(Forecaster(damped()).fit(df))
    assert torch.equal(first.layer.weight, again[0].layer.weight)
    other = members(Forecaster(damped(), seed=1).fit(df))
    assert not torch.equal(first.layer.weight, other[0].layer.weight)
    torch.set_rng_state(state)


def test_a_recipe_with_a_build_of_ones_own_keeps_its_weights(df):
    spec = replace(spec_of("srnn"), build=damped(-0.5).build, train=untrained, name="mine")
    assert [p.log_scale.item() for p in members(Forecaster(spec).fit(df))] == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: damped().build(s)[0], "list of LatentModels, the members, found LatentModel;"),
        (lambda s: [], "found list;"),
        (lambda s: [Damped(0.0)], "found list of Damped;"),
    ],
)
def test_a_build_says_what_it_must_return(build, message, df):
    with pytest.raises(TypeError, match=message):
        Forecaster(replace(damped(), build=build)).fit(df)


def test_a_spec_is_saved_and_loaded_and_fitted_again(df, tmp_path):
    fitted = Forecaster(damped(-0.3), seed=3).fit(df)
    expected = fitted.predict(3)
    fitted.save(tmp_path / "model")
    with pytest.raises(FolderError, match=r"specs=\[spec\]"):
        Forecaster.load(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", specs=damped(-0.3))
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(df).predict(3), expected)


def lifted():
    return Walk(1.0)


@pytest.mark.parametrize("factory", [damped, lifted, Walk, Smoothed])
def test_a_registered_name_is_a_model(factory, df, names, tmp_path):
    assert register("mine", factory) is factory
    assert "mine" in registry.names()
    fitted = Forecaster(["mine", "naive"]).fit(df)
    assert fitted.aliases == ("mine", "naive")
    expected = fitted.predict(3)
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(df).predict(3), expected)
    loaded.save(tmp_path / "model")  # as the model that it was, and under its name
    pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "model").predict(3), expected)
    del registry._REGISTERED["mine"]
    with pytest.raises(FolderError, match=r"register\(|specs=\[spec\]"):
        Forecaster.load(tmp_path / "model")


def test_a_registered_factory_takes_the_options_that_it_names(names):
    register("mine", lambda members=1: damped(members=members))
    assert Forecaster("mine", members=3).aliases == ("mine",)
    with pytest.raises(ValueError, match=r"emission is for the models .*found model='mine'"):
        Forecaster("mine", emission="poisson")


@pytest.mark.parametrize("name", ["srnn", "naive", "mine"])
def test_a_name_is_given_once_unless_said(name, names, df):
    register("mine", damped)
    with pytest.raises(ArgumentError, match=f"found '{name}', which is a model already"):
        register(name, Walk)
    register(name, Walk, replace=True)
    assert isinstance(Forecaster(name).fit(df)._fitted.engines[name].engine, Walk)


def test_registration_says_what_it_expects(names):
    with pytest.raises(TypeError, match="name must be a text, found 3"):
        inspect.unwrap(register)(3, Walk)
    with pytest.raises(TypeError, match=r"found Walk; write register\('mine', lambda: model\)"):
        inspect.unwrap(register)("mine", Walk())
    register("mine", lambda: 3)
    with pytest.raises(TypeError, match="factory of 'mine' must return a Spec or an Engine"):
        Forecaster("mine")
    with pytest.raises(ArgumentError, match=r"found 'hers'.*named by register\(name, factory\)"):
        Forecaster("hers")


def test_a_registered_name_is_known_to_the_command_line(df, names, tmp_path):
    from typer.testing import CliRunner

    from seqlatent.forecasting.cli import app

    register("mine", Walk)
    df.to_csv(tmp_path / "table.csv", index=False)
    command = ["forecast", str(tmp_path / "table.csv"), "--h", "2", "--model", "mine"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "mine-lo-80" in done.output


def test_options_of_a_registered_name_are_kept_in_the_folder(df, names, tmp_path):
    register("mine", lambda members=1: damped(members=members))
    fitted = Forecaster("mine", members=3).fit(df)
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    assert len(members(loaded)) == 3
    pd.testing.assert_frame_equal(loaded.fit(df).predict(2), fitted.predict(2))


def test_each_member_trains_on_what_its_transform_lets_it_see():
    seen = {}

    def objective(model, sequences):
        found = sequences.y[sequences.observed].abs()
        seen.setdefault(id(model), []).append(float(found.max() / found.min()))
        return evidence(model, sequences)

    def build(data_summary):
        return [zoo.structural() for _ in range(3)]

    stage = WindowTraining(objective, steps=2, length=fourteen, batch_size=4)
    df = panel()
    df["y"] = np.exp(5 + 0.5 * df.groupby("unique_id").cumcount())  # e^{6.5} in a window
    for train in (stage, SequentialTraining([stage, stage], [0.5, 0.5])):
        seen.clear()
        kinds = ["none", "log", "none"]
        spec = Spec("mine", build, train, calendar=False, transform=lambda _, k=kinds: k)
        Forecaster(spec).fit(df)
        ratio = [min(found) for found in seen.values()]
        assert [x < 50 for x in ratio] == [kind == "log" for kind in kinds]
