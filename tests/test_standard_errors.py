"""Standard errors against statsmodels, by rows of a table, and by how often intervals cover."""

import numpy as np
import pytest
import torch

from seqlatent import zoo
from seqlatent.emissions import LinearGaussian as Emission
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import em, fit, lbfgs, standard_errors
from seqlatent.transitions import (
    AR,
    Cycle,
    DampedTrend,
    LinearGaussian,
    LocalLevel,
    LocalLinearTrend,
    Sum,
)

F64 = torch.float64


def structural(*parts, scale=0.5):
    transition = Sum(parts)
    emission = Emission(transition.latent_dim, loading=transition.loading, bias=False, scale=scale)
    return LatentModel(transition, emission, Kalman()).double()


def simulated(batch=1, steps=120, *, trend=False, seed=5):
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(3, batch, steps, 1, generator=g, dtype=F64)
    y = (0.6 * draw[0] + trend * (0.3 * draw[2]).cumsum(1)).cumsum(1) + draw[1]
    return y


def at_maximum(model, data):
    fit(model, data, evidence, optimizer=lbfgs(tolerance=1e-14), steps=60, device="cpu")
    return model


@pytest.mark.parametrize("trend", [False, True])
def test_they_are_those_of_statsmodels(trend):
    sm = pytest.importorskip("statsmodels.api")
    y = simulated(trend=trend)
    y[0, 20:25] = torch.nan
    if trend:
        part = LocalLinearTrend(0.5, 0.3, initial_scale=1e3, initial_slope_scale=1e3)
    else:
        part = LocalLevel(0.5, initial_scale=1e3)
    data = Sequences.of(y)
    model = at_maximum(structural(part), data)
    size = 1 + trend
    reference = sm.tsa.UnobservedComponents(
        y[0, :, 0].numpy(), level="lltrend" if trend else "llevel"
    )
    reference.ssm.initialize_known(np.zeros(size), 1e6 * np.eye(size))
    reference.loglikelihood_burn = 0
    own = [(2 * p).exp().item() for p in model.parameters()]
    kinds = {"observed": "approx", "opg": "opg", "sandwich": "robust_approx"}
    for kind, name in kinds.items():
        found = standard_errors(model, data, kind=kind)
        with np.errstate(all="ignore"):
            expected = reference.smooth(np.array([own[-1], *own[:-1]]), cov_type=name)
        bse = np.roll(expected.bse, -1)
        np.testing.assert_allclose(found.natural.error.numpy(), bse, rtol=1e-3)
        cov = np.roll(expected.cov_params_default, (-1, -1), (0, 1))
        np.testing.assert_allclose(found.natural.cov.numpy(), cov, rtol=2e-3, atol=1e-6)
        assert found.gain.item() < 1e-6
        np.testing.assert_allclose(found.natural.value.numpy(), own)


def test_the_information_is_the_hessian_of_the_evidence():
    data = Sequences.of(simulated(6, 40))
    model = structural(LocalLevel(0.6), scale=0.9)
    found = standard_errors(model, data)
    (level,), noise = model.transition.parameters(), model.emission.noise.log_scale

    def value(x):
        with torch.no_grad():
            level.copy_(x[:1])
            noise.copy_(x[1:])
            return evidence(model, data).sum()

    x = torch.cat([level, noise]).detach().clone()
    step = 1e-3
    eye = step * torch.eye(2, dtype=F64)
    hessian = torch.stack(
        [
            torch.stack(
                [
                    value(x + a + b) - value(x + a - b) - value(x - a + b) + value(x - a - b)
                    for b in eye
                ]
            )
            for a in eye
        ]
    ) / (4 * step**2)
    inverse = torch.linalg.inv(-hessian)
    torch.testing.assert_close(found.unconstrained.cov, inverse, rtol=1e-4, atol=1e-6)


def test_the_delta_method_of_every_scale():
    model = structural(DampedTrend(0.3, 0.1), Cycle(9.0), AR(2))
    found = standard_errors(model, Sequences.of(simulated(4, 40)))
    own = found.natural.names
    assert own == (
        "transition.components.0.level_variance",
        "transition.components.0.slope_variance",
        "transition.components.0.damping",
        *[n for n in own if ".components.1." in n],
        "transition.components.2.coefficients[0]",
        "transition.components.2.coefficients[1]",
        "transition.components.2.variance",
        "emission.noise.variance",
    )
    cycle = {n.rpartition(".")[2] for n in own if ".components.1." in n}
    assert cycle == {"period", "damping", "variance"}
    assert found.natural["transition.components.1.period"][0].item() == pytest.approx(9.0, rel=1e-5)
    assert found.natural["transition.components.0.damping"][0].item() == pytest.approx(0.9)
    value, error = found.natural["transition.components.0.level_variance"]
    raw = found.unconstrained.names.index("transition.components.0.log_level_scale")
    assert error.item() == pytest.approx(2 * value.item() * found.unconstrained.error[raw].item())
    low, high = found.interval(0.9)
    known = found.natural.error.isfinite()
    assert bool((low < found.natural.value)[known].all())
    assert bool((high > found.natural.value)[known].all())
    assert bool(found.natural.error.isnan().sum() == 0)


def test_each_row_has_the_errors_of_its_series_alone():
    y = simulated(3, 60)
    y[1, 40:] = torch.nan
    model = per_series(structural(LocalLevel(0.5)), 3)
    data = Sequences.of(y, codes=torch.tensor([[2], [0], [1]]))
    em(model, data, steps=100)
    for kind in ("observed", "opg", "sandwich"):
        found = standard_errors(model, data, kind=kind)
        assert found.natural.value.shape == (3, 2)
        assert found.rows.tolist() == [0, 1, 2]
        for b in range(3):
            alone = structural(LocalLevel(0.5))
            row = int(data.codes[b, 0])
            state = {k: v[row] for k, v in model.state_dict().items()}
            alone.load_state_dict(state)
            expected = standard_errors(alone, Sequences.of(y[b : b + 1]), kind=kind)
            torch.testing.assert_close(
                found.natural.cov[row], expected.natural.cov, rtol=1e-4, atol=1e-8
            )
    assert str(found).count("row ") == 3


def test_series_that_share_their_parameters_add_information():
    data = Sequences.of(simulated(8, 60))
    model = at_maximum(structural(LocalLevel(0.5)), data)
    twice = Sequences.of(torch.cat([data.y, data.y]))
    one, two = (standard_errors(model, x).natural.cov for x in (data, twice))
    torch.testing.assert_close(two, one / 2, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_a_variance_that_is_zero_is_on_its_bound():
    g = torch.Generator().manual_seed(1)
    data = Sequences.of(torch.randn(5, 60, 1, generator=g, dtype=F64))
    model = at_maximum(structural(LocalLevel(0.2)), data)
    found = standard_errors(model, data)
    assert found.natural.at_bound.tolist() == [True, False]
    assert found.natural.error[0].item() == torch.inf
    assert not found.natural.undetermined.any()
    assert not found.natural.cov.isnan().any()
    assert "on its bound" in str(found)
    # the other has the error that it has where the level is constant
    constant = at_maximum(structural(LocalLevel(None)), data)
    expected = standard_errors(constant, data).natural.error[0]
    assert found.natural.error[1].item() == pytest.approx(expected.item(), rel=1e-3)
    low, high = found.interval()
    assert (low[0].item(), high[0].item()) == (0.0, torch.inf)


@pytest.mark.slow
def test_what_the_data_do_not_say_is_undetermined():
    """The coordinates of a free state may be turned, but not the noise of the observations."""
    torch.manual_seed(0)
    model = LatentModel(LinearGaussian(1), Emission(1, 2, correlated=True), Kalman()).double()
    data = Sequences.of(model.rollout(Sequences.of(torch.zeros(6, 40, 2, dtype=F64))).y[0])
    em(model, data, steps=60)
    found = standard_errors(model, data)
    names = dict(zip(found.natural.names, found.natural.undetermined.tolist(), strict=True))
    assert names["emission.H[0, 0]"]
    assert not names["transition.F"]
    assert not names["emission.noise[0, 0]"]
    assert found.natural["emission.noise[0, 0]"][1].isfinite()
    assert not found.natural.cov.isnan().any()
    assert "not determined by the data" in str(found)
    covariance = model.emission.noise().detach()
    assert found.natural["emission.noise[1, 0]"][0].item() == pytest.approx(covariance[1, 0].item())


def test_a_model_that_is_not_fitted_says_so():
    data = Sequences.of(100 * simulated(2, 40))
    assert "not at a maximum" in str(standard_errors(structural(LocalLevel(0.01)), data))


def test_the_model_stays_as_it_is():
    data = Sequences.of(simulated(2, 60)).to(dtype=torch.float32)
    model = structural(LocalLevel(0.5)).float()
    em(model, data, steps=20)
    before = [p.detach().clone() for p in model.parameters()]
    found = standard_errors(model, data, kind="sandwich")
    assert found.natural.error.dtype == torch.float32
    assert bool(found.natural.error.isfinite().all())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    low, high = found.interval()
    assert bool((low < high).all())


def test_bad_input_is_refused():
    data = Sequences.of(torch.zeros(2, 5, 1))
    with pytest.raises(ValueError, match="found 'hessian'"):
        standard_errors(zoo.structural(), data, kind="hessian")
    with pytest.raises(TypeError, match="standard_errors needs a LatentModel"):
        standard_errors(zoo.deep_markov(hidden_dim=4), data)
    model = structural(LocalLevel(0.5))
    found = standard_errors(model, Sequences.of(simulated(2, 20)))
    with pytest.raises(ValueError, match="level must lie in"):
        found.interval(95)
    with pytest.raises(KeyError, match="is none of the parameters"):
        found.natural["sigma"]


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    y = simulated(200, 150, seed=11)
    model = per_series(structural(LocalLevel(0.5, initial_scale=1e3)), 200)
    data = Sequences.of(y, codes=torch.arange(200)[:, None])
    em(model, data, steps=100)
    truth = torch.tensor([0.36, 1.0], dtype=F64)
    for kind in ("observed", "opg", "sandwich"):
        low, high = standard_errors(model, data, kind=kind).interval(0.95)
        covered = ((low < truth) & (truth < high)).double().mean(0)
        # four standard errors of a proportion, and what 150 steps are short of many
        assert bool((covered > 0.95 - 4 * 0.0154 - 0.01).all()), (kind, covered)
        assert bool((covered < 1.0).all()), (kind, covered)
