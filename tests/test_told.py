"""What goes wrong inside a model is told in the words of the frame: column, id and row."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from engines import own, panel

from seqlatent import fit, zoo
from seqlatent.emissions import Poisson
from seqlatent.forecasting import Columns, Forecaster, TargetError, spec_of
from seqlatent.forecasting.engines.latent.training import WindowTraining
from seqlatent.objectives import evidence
from seqlatent.training import NotFinite

NEURAL = ("srnn", "vrnn", "deep_markov", "deep_state", "latent_ode")


class NoNumber:
    """An objective that is not a number for series of large values."""

    def __init__(self, inner, code=2):
        self.inner, self.code = inner, code

    def __call__(self, model, sequences, generator=None):
        values = self.inner(model, sequences)
        return torch.where(sequences.codes[:, 0] == self.code, torch.nan, values)


class Wrong(NoNumber):
    """An objective that refuses a series, as checks of the core do."""

    def __call__(self, model, sequences, generator=None):
        wrong = (sequences.codes[:, 0] == self.code).nonzero()
        if len(wrong):
            raise ValueError(
                f"Poisson expects counts, found 1.5 at series {int(wrong[0])}, step 2, "
                "dimension 0; transform the values."
            )
        return self.inner(model, sequences)


def trained(objective, **columns):
    spec = replace(own(), train=WindowTraining(objective, 15, lambda data_summary: 16))
    df = panel(prefix="shop ")
    kinds = pd.DataFrame({"unique_id": df["unique_id"].unique()})
    return Forecaster(spec, columns=Columns(**columns)).fit(
        df.rename(columns={"y": columns.get("target", "y")}), kinds.assign(kind=kinds["unique_id"])
    )


def test_an_objective_that_is_not_finite_names_id_and_column():
    with pytest.raises(TargetError, match=r"column 'sales'.*it is nan for id 'shop 1'") as caught:
        trained(NoNumber(evidence), target="sales")
    error = caught.value
    assert (error.column, error.id) == ("sales", "shop 1")
    assert "of the batch" not in str(error).replace("more of the batch", "")
    assert "WindowTraining(learning_rate=" in str(error)
    assert "optimizer=" not in str(error)
    assert isinstance(error.__cause__, NotFinite)


def test_a_check_of_the_core_names_id_and_column():
    with pytest.raises(
        TargetError, match=r"at id 'shop 1', step 2, column 'y'; transform"
    ) as caught:
        trained(Wrong(evidence))
    assert (caught.value.column, caught.value.id) == ("y", "shop 1")


def test_what_the_user_wrote_is_not_put_in_other_words():
    def broken(model, sequences):
        raise RuntimeError("series 0 of my own")

    with pytest.raises(RuntimeError, match="series 0 of my own"):
        trained(broken)


def spoiled(name, monkeypatch, spoil):
    """A named model, trained on an objective that something is wrong with."""
    from seqlatent.forecasting.engines.latent import training as trainers

    def training(model, data, objective, **options):
        def other(model, sequences, **more):
            return spoil(objective(model, sequences, **more))

        return fit(model, data, other, **options)

    monkeypatch.setattr(trainers, "fit", training)
    Forecaster(spec_of(name, steps=40, hidden_dim=4)).fit(panel())


@pytest.mark.parametrize("name", NEURAL)
def test_named_models_name_the_series(name, monkeypatch):
    def spoil(values):
        return torch.where(torch.arange(len(values)) == 0, torch.nan, values)

    with pytest.raises(TargetError, match=r"column 'y'.*it is nan for id 's\d'\. Look") as caught:
        spoiled(name, monkeypatch, spoil)
    assert caught.value.id in {"s0", "s1", "s2"}
    assert caught.value.column == "y"


def test_parameters_that_a_distribution_cannot_have_are_told_in_a_line(monkeypatch):
    def spoil(values):
        torch.distributions.Chi2(values * torch.nan)

    with pytest.raises(TargetError, match=r"column 'y': .*parameter df of Chi2.*Look") as caught:
        spoiled("srnn", monkeypatch, spoil)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "model", "text"),
    [
        (1.5, spec_of("srnn", steps=2, emission=Poisson), "Poisson expects counts"),
        (1e30, spec_of("srnn", steps=2), "single precision"),
        (-1.0, spec_of("structural", specifications=["log level"]), "describes logarithms"),
    ],
)
@pytest.mark.parametrize("targets", [["a"], ["a", "b"]])
def test_values_that_a_model_cannot_take_name_column_id_and_row(value, model, text, targets):
    if len(targets) > 1 and "structural" in repr(model):
        pytest.skip("a structural model has one target")
    rows = np.arange(40)
    df = pd.DataFrame({"unique_id": "s", "ds": rows, "a": rows % 5 + 1.0, "b": rows % 3 + 1.0})
    df.loc[7, targets[-1]] = value
    with pytest.raises(
        TargetError, match=rf"^column '{targets[-1]}', id 's', row 7: .*{text}"
    ) as caught:
        Forecaster(model, columns=Columns(target=targets, future=[])).fit(df)
    assert (caught.value.column, caught.value.id, caught.value.row) == (targets[-1], "s", 7)


def test_the_core_still_says_what_it_said():
    from seqlatent import Sequences

    data = Sequences.of(torch.randn(3, 5, 1))
    objective = NoNumber(evidence, code=1)
    coded = replace(data, codes=torch.arange(3)[:, None])
    with pytest.raises(
        FloatingPointError, match=r"nan for series 1\. Lower the learning rate"
    ) as e:
        fit(zoo.structural(), coded, objective, steps=12)
    assert isinstance(e.value, NotFinite)
