"""Dynamic factors: vector autoregressions, loadings, and both against statsmodels."""

import numpy as np
import pytest
import torch
from reference import LinearGaussian as Reference
from reference import dense_posterior

from seqlatent import zoo
from seqlatent.emissions import FactorLoadings
from seqlatent.model import moments, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.training import fit, lbfgs
from seqlatent.transitions import AR, Joint, LocalLevel, NoLatent, VectorAR

exact = {"rtol": 1e-10, "atol": 1e-10}


def drawn(model, seed=3, size=0.3):
    """Returns a float64 model whose parameters are away from special values."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


class TestVectorAR(TransitionContract):
    def build(self):
        return drawn(VectorAR(2, 2))

    def small(self):
        return drawn(VectorAR(2))


class TestVectorARWithScales(TransitionContract):
    def build(self):
        return drawn(VectorAR(2, 3, scale=0.5, learn_scale=True))


class TestDiagonalVectorAR(TransitionContract):
    def build(self):
        return drawn(VectorAR(2, 2, diagonal=True, scale=0.5, learn_scale=True))

    def small(self):
        return drawn(VectorAR(2, diagonal=True))


class TestJoint(TransitionContract):
    def build(self):
        return drawn(Joint([VectorAR(1, 2), VectorAR(2, diagonal=True, learn_scale=True)]))

    def small(self):
        return drawn(Joint([VectorAR(1), LocalLevel(0.3)]))


# Vector autoregressions --------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("size", "order"), [(1, 1), (2, 1), (3, 2), (2, 4)])
def test_the_first_state_is_stationary(size, order, diagonal):
    p = drawn(VectorAR(size, order, diagonal=diagonal, scale=0.7, learn_scale=True), size=0.5)
    F, _, G = p.matrices(context(1, 2))
    assert torch.linalg.eigvals(F.detach()).abs().max() < 1
    _, G0 = p.initial_moments(context(1, 2)[0])
    P = G0 @ G0.mT
    torch.testing.assert_close(F @ P @ F.mT + G @ G.mT, P, **exact)


@pytest.mark.parametrize(("size", "order"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_it_starts_from_its_coefficients(size, order):
    phi = drawn(VectorAR(size, order), size=0.5).coefficients.detach()
    again = VectorAR(size, order, coefficients=phi, scale=2.0).coefficients
    torch.testing.assert_close(again.double(), phi, rtol=1e-5, atol=1e-5)


def test_it_starts_from_coefficients_of_its_coordinates():
    phi = torch.tensor([[0.5, -0.4], [0.2, 0.3]])
    p = VectorAR(2, 2, diagonal=True, coefficients=phi)
    torch.testing.assert_close(p.coefficients, phi)


def test_one_coordinate_is_an_autoregression():
    coefficients = (0.5, -0.3, 0.2)
    one = AR(3, 0.4, coefficients=coefficients).double()
    c = context(1, 2)
    for diagonal in (False, True):
        phi = torch.tensor(coefficients).reshape(3, 1) if diagonal else None
        phi = torch.tensor(coefficients).reshape(3, 1, 1) if phi is None else phi
        p = VectorAR(1, 3, diagonal=diagonal, scale=0.4, coefficients=phi).double()
        for found, expected in zip(p.matrices(c), one.matrices(c), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        G0, expected = p.initial_moments(c[0])[1], one.initial_moments(c[0])[1]
        torch.testing.assert_close(G0 @ G0.mT, expected @ expected.mT, rtol=1e-5, atol=1e-5)


# statsmodels -------------------------------------------------------------------------------------


def data(steps=50, obs_dim=4, missing=0.2, batch=1):
    generator = torch.Generator().manual_seed(1)
    like = {"dtype": torch.float64, "generator": generator}
    common = torch.randn(batch, steps, 1, **like).cumsum(1) / 3
    y = common + torch.randn(batch, steps, obs_dim, **like)
    y[torch.rand(batch, steps, obs_dim, generator=generator) < missing] = torch.nan
    return y


@pytest.mark.parametrize("idiosyncratic", ["white", "ar"])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_it_agrees_with_statsmodels(order, correlated, idiosyncratic):
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.dynamic_factor import DynamicFactor

    y, k = data(), 2
    model = drawn(
        zoo.dynamic_factors(4, k, order, correlated=correlated, idiosyncratic=idiosyncratic)
    )
    reference = DynamicFactor(
        y[0].numpy(), k_factors=k, factor_order=order, error_order=int(idiosyncratic == "ar")
    )
    reference.ssm.tolerance = 0
    factors, *errors = model.transition.parts
    phi = factors.coefficients.detach()
    phi = phi if correlated else phi.diag_embed()
    transition = torch.cat(list(phi), -1).flatten().tolist()  # each factor's row, lag by lag
    loadings = model.emission.loadings.flatten().tolist()
    if errors:
        variances = (2 * errors[0].log_scale).exp().tolist()
        rest = errors[0].coefficients.flatten().tolist()
    else:
        variances, rest = (2 * model.emission.log_scale).exp().tolist(), []
    theta = np.array([*loadings, *variances, *transition, *rest])
    theirs = reference.smooth(theta, transformed=True)
    sequences = Sequences.of(y)
    with torch.no_grad():
        found = model.filter(sequences).log_evidence[0]
        mean, variance = moments(model, model.belief(sequences, end=True), 5)
        states = model.smooth(sequences).mean[0, :, :k]
    np.testing.assert_allclose(found.numpy(), theirs.llf_obs, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(states.numpy(), theirs.smoothed_state[:k].T, rtol=1e-6, atol=1e-6)
    forecast = theirs.get_forecast(5)
    np.testing.assert_allclose(mean[0], forecast.predicted_mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(variance[0], forecast.se_mean**2, rtol=1e-6)


# Laws --------------------------------------------------------------------------------------------


MODELS = {
    "white": lambda: zoo.dynamic_factors(3, 2, bias=True),
    "autoregressive": lambda: zoo.dynamic_factors(3, 1, 2, idiosyncratic="ar", bias=True),
    "correlated": lambda: zoo.dynamic_factors(3, 2, 2, correlated=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_evidence_is_that_of_the_joint_distribution(name):
    model = drawn(MODELS[name]())
    sequences = Sequences.of(data(9, 3, 0.3, batch=2))
    c = model.context(sequences)
    F, b, G = model.transition.matrices(c)
    m0, G0 = model.transition.initial_moments(c[0])
    system = Reference(F, b, G @ G.mT, m0, G0 @ G0.mT, *model.emission.matrices(c))
    with torch.no_grad():
        found = evidence(model, sequences)
        each = zip(sequences.normalised, sequences.observed, strict=True)
        expected = [dense_posterior(system, *x).log_evidence for x in each]
    torch.testing.assert_close(found, torch.stack(expected), **exact)


@pytest.mark.parametrize("name", MODELS)
def test_the_evidence_has_a_gradient(name):
    model = drawn(MODELS[name]())
    sequences = Sequences.of(data(6, 3, 0.2))
    names = [name for name, _ in model.named_parameters()]

    class Evidence(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return evidence(self.model, sequences)

    def value(*parameters):
        found = {f"model.{n}": p for n, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Evidence(), found, ())

    start = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(value, start)


@pytest.mark.parametrize(
    ("correlated", "idiosyncratic"), [(False, "white"), (True, "white"), (False, "ar")]
)
@pytest.mark.slow
def test_it_finds_the_factors_of_a_panel(correlated, idiosyncratic):
    generator = torch.Generator().manual_seed(4)
    steps, size, k = 120, 8, 2
    like = {"generator": generator, "dtype": torch.float64}
    f = torch.zeros(steps, k, dtype=torch.float64)
    error = torch.zeros(steps, size, dtype=torch.float64)
    decay = torch.tensor([0.9, 0.5], dtype=torch.float64)
    for t in range(1, steps):
        f[t] = decay * f[t - 1] + torch.randn(k, **like)
        rest = 0.5 * error[t - 1] if idiosyncratic == "ar" else 0.0
        error[t] = rest + 0.3 * torch.randn(size, **like)
    y = f @ torch.randn(k, size, **like) + error
    y[torch.rand(steps, size, generator=generator) < 0.2] = torch.nan
    centre, scale = y.nanmean(0), (y - y.nanmean(0)).square().nanmean(0).sqrt()
    sequences = Sequences.of(y[None], shift=centre[None], scale=scale[None])
    model = zoo.dynamic_factors(size, k, correlated=correlated, idiosyncratic=idiosyncratic)
    model = model.double()
    model.emission.reset_parameters(torch.Generator().manual_seed(0))
    fit(model, sequences, evidence, optimizer=lbfgs(), steps=4)
    with torch.no_grad():
        found = model.smooth(sequences).mean[0, :, :k]
    assert canonical(found, f).min() > 0.95


def canonical(x, y):
    """Returns the canonical correlations of two sets of series."""
    q = [torch.linalg.qr(z - z.mean(0))[0] for z in (x, y)]
    return torch.linalg.svdvals(q[0].mT @ q[1])


def test_triangular_loadings_say_which_rotation_is_meant():
    p = FactorLoadings(2, 4, triangular=True)
    assert p.loadings[0, 1] == 0
    assert (p.loadings.diagonal() > 0).all()
    assert p.loadings.shape == (4, 2)


def test_loadings_are_drawn_from_a_private_generator():
    p = FactorLoadings(2, 4, bias=True)
    state = torch.get_rng_state()
    p.reset_parameters(torch.Generator().manual_seed(1))
    first = p.loadings.detach().clone()
    p.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(first, p.loadings)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: zoo.dynamic_factors(3, 4), "expected at most 3, one for each"),
        (lambda: zoo.dynamic_factors(3, 0), "must be an integer of at least 1, found 0"),
        (lambda: zoo.dynamic_factors(3, 1, idiosyncratic="pink"), 'must be "white" or "ar"'),
        (lambda: FactorLoadings(1, 3, scale=0.0), "must be a positive standard deviation"),
        (lambda: VectorAR(2, 0), "order must be an integer of at least 1, found 0"),
        (lambda: VectorAR(2, scale=0.0), "needs a noise"),
        (lambda: VectorAR(2, coefficients=torch.eye(2)), r"must have shape \(1, 2, 2\)"),
        (lambda: VectorAR(2, coefficients=torch.eye(2)[None]), "are not stationary"),
        (
            lambda: VectorAR(1, diagonal=True, coefficients=torch.ones(1, 1)),
            "are not stationary",
        ),
        (lambda: Joint([]), "needs at least one transition"),
    ],
)
def test_bad_values_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_only_linear_transitions_stand_side_by_side():
    with pytest.raises(TypeError, match="found NoLatent at position 0"):
        Joint([NoLatent()])


def test_a_panel_shares_its_factors():
    with pytest.raises(TypeError, match="whose parameters all series share"):
        per_series(zoo.dynamic_factors(3, 1), 2)
