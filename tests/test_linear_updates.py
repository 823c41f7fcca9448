"""A row more for all members of an ensemble at once."""

import numpy as np
import pytest
import torch
from engines import SEASON, copied, panel, rows_of

from seqlatent import zoo
from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.latent.recipes import structural
from seqlatent.forecasting.engines.latent.updates import LinearUpdates
from seqlatent.model import LatentModel, per_series
from seqlatent.sequences import Sequences

F64 = torch.float64


def members():
    """Models of unlike widths, some with parameters of each series."""
    built = [zoo.structural(trend=True), zoo.structural(season_length=3), zoo.structural()]
    built += [zoo.structural(trend=True)]
    generator = torch.Generator().manual_seed(0)
    models = []
    for i, model in enumerate(built):
        model = per_series(model.double(), 3) if i < 2 else model.double()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator, dtype=F64)
        models.append(model.eval().requires_grad_(False))
    return models


def data(steps=12):
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(3, steps, 1, generator=generator, dtype=F64).cumsum(1)
    y[0, 10] = torch.nan
    scale = torch.tensor([[0.5], [1.0], [2.0]], dtype=F64)
    return Sequences.of(y, codes=torch.tensor([[2], [0], [3]]), scale=scale)


def moved(steps, beliefs, rows):
    """Beliefs of members after every row."""
    for i in range(rows.steps):
        y, observed = rows.y[:, i], rows.observed[:, i]
        beliefs = steps(beliefs, [y] * len(beliefs), observed, rows.t[:, i])
        assert beliefs is not None
    return beliefs


def assert_as_updated(models, beliefs, rows, found):
    for model, belief, one in zip(models, beliefs, found, strict=True):
        expected = model.update(belief, rows)
        for name, x in expected.tensors().items():
            torch.testing.assert_close(one.tensors()[name], x, rtol=1e-10, atol=1e-12)


def test_all_members_move_as_each_would_alone():
    models, s = members(), data()
    beliefs = [m.belief(s.window(0, 9)) for m in models]
    steps = LinearUpdates.of(models)
    assert steps is not None
    found = moved(steps, beliefs, s.window(9, 12))
    assert_as_updated(models, beliefs, s.window(9, 12), found)
    assert len(steps.kept) == 1


def test_steps_follow_parameters_that_change():
    models, s = members(), data()
    beliefs = [m.belief(s.window(0, 9)) for m in models]
    steps = LinearUpdates.of(models)
    moved(steps, beliefs, s.window(9, 10))
    others = members()
    for model, other in zip(models, others, strict=True):
        state = {name: x + 0.1 for name, x in other.state_dict().items()}
        model.load_state_dict(state)
    assert_as_updated(models, beliefs, s.window(9, 10), moved(steps, beliefs, s.window(9, 10)))


def test_models_with_a_memory_or_an_inference_of_another_kind_take_no_such_steps():
    exact = zoo.structural()
    assert LinearUpdates.of([exact]) is not None
    assert LinearUpdates.of([exact, zoo.vrnn(1)]) is None
    scanned = LatentModel(exact.transition, exact.emission, type(exact.inference)(scan=True))
    assert LinearUpdates.of([scanned]) is None


def test_a_prediction_that_knows_next_to_nothing_is_left_to_the_filter():
    model = zoo.structural().double().eval()
    s = data()
    s = Sequences.of(s.y, observed=torch.zeros_like(s.observed))
    belief = model.belief(s)
    assert belief.latest.cov is not None
    belief.latest.cov.mul_(1e8)
    steps = LinearUpdates.of([model])
    assert steps is not None
    assert steps([belief], [s.y[:, -1]], s.observed[:, -1], s.t[:, -1] + 1) is None


@pytest.mark.parametrize("name", ["structural", "own"])
def test_an_update_follows_a_second_fit_and_a_load(name, tmp_path):
    df = panel()
    nth = rows_of(df)
    model = copied(name)
    model.update(df[nth == 28])
    again = Forecaster(structural(["damped"], draws=1), season_length=SEASON).fit(df[nth < 20])
    again.fit(df[nth < 28])
    again.update(df[nth == 28])
    for one in (model, again):
        found = one.update(df[nth == 29]).predict(3)
        expected = one.predict(3, df=df[nth < 30])
        values = found.columns.drop(["unique_id", "ds"])
        np.testing.assert_allclose(found[values], expected[values], rtol=1e-8)
    again.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    rows = df[nth == 30]
    np.testing.assert_array_equal(
        loaded.update(rows).predict(3)[values], again.update(rows).predict(3)[values]
    )
