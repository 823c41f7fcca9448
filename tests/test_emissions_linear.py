"""The linear Gaussian emission: its matrices, its distribution, and its part in a filter."""

import copy
import math
import pickle

import pytest
import torch

from seqlatent.distributions import sample
from seqlatent.emissions.linear import LinearGaussian
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.networks import reinitialise
from seqlatent.sequences import Context, Sequences
from seqlatent.testing import context
from seqlatent.transitions import AR, Loading, LocalLevel, Regression, Seasonal, Sum
from seqlatent.transitions import LinearGaussian as Transition

exact = {"rtol": 1e-10, "atol": 1e-12}


def shake(module):
    """Moves all parameters a little away from their special initial values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def scaled(c, obs_dim, batch=3):
    """Returns a context whose series have shifts and scales of their own."""
    generator = torch.Generator().manual_seed(6)
    steps = c.dt.shape[-2]
    shift = torch.randn(batch, 1, obs_dim, dtype=torch.float64, generator=generator)
    return c.replace(
        shift=shift.expand(-1, steps, -1), scale=(1 + shift.square()).expand(-1, steps, -1)
    )


BUILDS = {
    "scalar": (lambda: LinearGaussian(2), 1),
    "diagonal": (lambda: LinearGaussian(2, 3), 3),
    "correlated": (lambda: LinearGaussian(2, 3, correlated=True), 3),
    "contextual": (lambda: LinearGaussian(2, 2, context_dim=3), 2),
    "contextual and correlated": (lambda: LinearGaussian(2, 2, context_dim=3, correlated=True), 2),
    "loaded": (lambda: LinearGaussian(2, loading=Loading((1.0, 0.0), (-1, 0))), 1),
    "without bias": (lambda: LinearGaussian(2, 2, bias=False), 2),
}


@pytest.fixture(params=BUILDS)
def case(request):
    build, obs_dim = BUILDS[request.param]
    c = scaled(context(3, 4, memory_dim=1, covariate_dim=2), obs_dim)
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    return shake(build()), c, z


def test_one_step_equals_all_steps(case):
    p, c, z = case
    distribution = p(z, c)
    assert distribution.batch_shape == (3, 4)
    assert distribution.event_shape == (p.obs_dim,)
    y = sample(distribution)
    for t in range(4):
        one = p(z[:, t], c[t])
        assert one.batch_shape == (3,)
        torch.testing.assert_close(one.log_prob(y[:, t]), distribution.log_prob(y)[:, t], **exact)


def test_sample_axes_lead(case):
    p, c, z = case
    z = torch.stack([z, 2 * z])
    distribution = p(z, c)
    assert distribution.batch_shape == (2, 3, 4)
    y = sample(p(z[0], c))
    for i in range(2):
        torch.testing.assert_close(distribution.log_prob(y)[i], p(z[i], c).log_prob(y), **exact)


def moments(p, c, z):
    """Returns mean and covariance in units of the data, from the matrices in standardised units."""
    H, d, R = p.matrices(c)
    scale = c.scale[..., None]
    return c.shift + c.scale * ((H @ z[..., None])[..., 0] + d), scale * R * scale.mT


def test_it_is_the_distribution_of_its_matrices(case):
    p, c, z = case
    distribution = p(z, c)
    mean, R = moments(p, c, z)
    torch.testing.assert_close(distribution.mean, mean, **exact)
    torch.testing.assert_close(
        distribution.variance, R.diagonal(dim1=-2, dim2=-1).expand_as(mean), **exact
    )
    reference = torch.distributions.MultivariateNormal(mean, R.expand(3, 4, p.obs_dim, p.obs_dim))
    y = sample(distribution)
    torch.testing.assert_close(distribution.log_prob(y), reference.log_prob(y), **exact)


def test_shift_and_scale_are_an_affine_map_of_the_observation(case):
    p, c, z = case
    plain = c.replace(shift=torch.zeros_like(c.shift), scale=torch.ones_like(c.scale))
    y = sample(p(z, plain))
    moved = p(z, c).log_prob(c.shift + c.scale * y)
    torch.testing.assert_close(moved, p(z, plain).log_prob(y) - c.scale.log().sum(-1), **exact)


def test_unobserved_cells_are_integrated_out(case):
    p, c, z = case
    y = sample(p(z, c))
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[0, 0] = False
    observed[1, 1, 0] = False
    found = p.log_prob(y, observed, z, c)
    assert found[0, 0] == 0
    mean, R = moments(p, c, z)
    if p.obs_dim > 1:
        distribution = torch.distributions.MultivariateNormal(mean[1, 1, 1:], R[1, 1, 1:, 1:])
        torch.testing.assert_close(found[1, 1], distribution.log_prob(y[1, 1, 1:]), **exact)


def test_every_parameter_gets_a_finite_gradient(case):
    p, c, z = case
    p(z, c).log_prob(torch.zeros(3, 4, p.obs_dim, dtype=torch.float64)).sum().backward()
    for name, parameter in p.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_copies_are_equal_and_the_state_dict_holds_all(case):
    p, c, z = case
    y = sample(p(z, c))
    again = reinitialised(copy.deepcopy(p))
    again.load_state_dict(p.state_dict())
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p)), again):
        torch.testing.assert_close(q(z, c).log_prob(y), p(z, c).log_prob(y), **exact)


def reinitialised(module):
    reinitialise(module, torch.Generator().manual_seed(1))
    return module


def test_parameters_are_drawn_by_a_private_generator(case):
    p, _, _ = case
    first, second = (reinitialised(copy.deepcopy(p)).parameters() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_follows_the_inputs(dtype):
    p = LinearGaussian(2, 2, correlated=True, context_dim=1).to(dtype)
    c = Context.regular(3, 4, obs_dim=2, dtype=dtype, u=torch.randn(3, 4, 1, dtype=dtype))
    assert sample(p(torch.zeros(3, 4, 2, dtype=dtype), c)).dtype == dtype
    assert all(x.dtype == dtype for x in p.matrices(c))


def test_the_repr_is_readable():
    text = repr(LinearGaussian(2, 2, correlated=True, context_dim=3))
    assert text.startswith("LinearGaussian(")
    assert "2, 2, context_dim=3" in text
    assert "scale=(0.5, 0.5), correlated=True" in text


def test_matrices_have_no_axes_along_which_they_do_not_differ():
    p = LinearGaussian(4, 2)
    equal = Context.regular(3, 5, obs_dim=2)
    H, d, R = p.matrices(equal)
    assert (H.shape, d.shape, R.shape) == ((2, 4), (2,), (2, 2))
    own = scaled(context(3, 5), 2)
    H, d, R = p.double().matrices(own)  # shift and scale are no part of them
    assert (H.shape, d.shape, R.shape) == ((2, 4), (2,), (2, 2))
    loaded = LinearGaussian(1, loading=Loading((0.0,), (0,)))
    assert loaded.matrices(Context.regular(3, 5, u=torch.ones(3, 5, 1)))[0].shape == (3, 5, 1, 1)


def test_the_context_is_silent_at_the_start():
    p, q = LinearGaussian(2, context_dim=2).double(), LinearGaussian(2).double()
    q.load_state_dict({k: x for k, x in p.state_dict().items() if k != "head"})
    c = context(3, 4, covariate_dim=2)
    for found, expected in zip(p.matrices(c), q.matrices(c), strict=True):
        torch.testing.assert_close(found, expected.expand_as(found), **exact)


# In a filter -------------------------------------------------------------------------------------


def system(obs_dim=2):
    generator = torch.Generator().manual_seed(0)
    like = {"dtype": torch.float64, "generator": generator}
    H, d = torch.randn(obs_dim, 2, **like), torch.randn(obs_dim, **like)
    L = torch.randn(obs_dim, obs_dim, **like)
    return {"H": H, "d": d, "R": L @ L.mT}


def walk():
    eye, zeros = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return Transition.of(0.9 * eye, zeros, 0.5 * eye, zeros, eye)


@pytest.mark.parametrize("learn", [False, True])
def test_the_matrices_are_those_that_were_given(learn):
    known = system()
    p = LinearGaussian.of(**known, learn=learn)
    for found, name in zip(
        p.matrices(
            context(1, 1).replace(
                shift=torch.zeros(1, 1, 2).double(), scale=torch.ones(1, 1, 2).double()
            )
        ),
        ("H", "d", "R"),
        strict=True,
    ):
        torch.testing.assert_close(found.detach(), known[name], **exact)
    assert bool(list(p.parameters())) == learn
    assert not p.independent
    reinitialise(p, torch.Generator())
    torch.testing.assert_close(p.H.detach(), known["H"], **exact)


def test_the_distribution_of_known_matrices_knows_whether_its_noise_is_independent():
    known = system()
    known["R"] = known["R"].diag().diag()
    assert LinearGaussian.of(**known).independent
    learned = LinearGaussian.of(**known, learn=True)
    assert learned.independent
    torch.testing.assert_close(learned.noise().detach(), known["R"], **exact)


def test_scaling_the_series_shifts_the_evidence_by_the_logarithm():
    model = LatentModel(walk(), LinearGaussian.of(**system()), Kalman())
    y = torch.randn(3, 20, 2, dtype=torch.float64)
    y[0, 3:6] = torch.nan
    y[1, :, 1] = torch.nan
    shift, scale = torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5
    plain = Sequences.of(y)
    moved = Sequences.of(shift[:, None] + scale[:, None] * y, shift=shift, scale=scale)
    expected = model.filter(plain).log_evidence - (plain.observed * scale[:, None].log()).sum(-1)
    torch.testing.assert_close(model.filter(moved).log_evidence, expected, **exact)
    for name in ("mean", "variance"):
        torch.testing.assert_close(
            getattr(model.smooth(moved).marginals, name),
            getattr(model.smooth(plain).marginals, name),
            rtol=1e-9,
            atol=1e-10,
        )


def test_a_filter_takes_no_noise():
    p = AR(1, 0.5, coefficients=(0.8,)).double()
    emission = LinearGaussian(1, loading=p.loading, bias=False, scale=None).double()
    assert not list(emission.parameters())
    y = torch.randn(2, 10, 1, dtype=torch.float64)
    model = LatentModel(p, emission, Kalman())
    with torch.no_grad():
        found = model.filter(Sequences.of(y)).log_evidence
        expected = p(y[:, :-1], context(2, 9)).log_prob(y[:, 1:])
    torch.testing.assert_close(found[:, 1:], expected, **exact)


def test_a_regression_with_known_noise_is_bayesian_least_squares():
    p = Regression([0, 1], initial_scale=2.0).double()
    emission = LinearGaussian(2, loading=p.loading, bias=False, scale=0.5).double()
    u = torch.randn(1, 30, 2, dtype=torch.float64)
    y = u @ torch.tensor([[1.0], [-2.0]]).double() + 0.5 * torch.randn(1, 30, 1).double()
    with torch.no_grad():
        states = LatentModel(p, emission, Kalman()).filter(Sequences.of(y, u=u))
    precision = u[0].mT @ u[0] / 0.25 + torch.eye(2).double() / 4
    mean = torch.linalg.solve(precision, u[0].mT @ y[0, :, 0] / 0.25)
    torch.testing.assert_close(states.marginals.mean[0, -1], mean, rtol=1e-9, atol=1e-9)


def test_the_evidence_has_finite_gradients_in_all_parameters():
    transition = Sum([LocalLevel(), Seasonal(4), AR(2)])
    emission = LinearGaussian(transition.latent_dim, loading=transition.loading, context_dim=1)
    model = LatentModel(transition, emission, Kalman())
    y = torch.randn(2, 30, 1)
    y[0, 5:9] = torch.nan
    u = torch.randn(2, 30, 1)
    model.filter(Sequences.of(y, u=u)).log_evidence.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: LinearGaussian(0), ValueError, "latent_dim must be an integer of at least 1"),
        (lambda: LinearGaussian(1, 0), ValueError, "obs_dim must be an integer of at least 1"),
        (lambda: LinearGaussian(1, context_dim=-1), ValueError, "context_dim must be an integer"),
        (lambda: LinearGaussian(1, scale=-1.0), ValueError, "scale must be a positive standard"),
        (lambda: LinearGaussian(1, scale=math.nan), ValueError, "scale must be a positive"),
        (
            lambda: LinearGaussian(2, loading=Loading.of(1.0)),
            ValueError,
            "the loading weighs 1 states, latent_dim is 2",
        ),
        (
            lambda: LinearGaussian(1, 2, loading=Loading.of(1.0)),
            ValueError,
            "a loading gives the row of one observed dimension, found obs_dim=2",
        ),
        (
            lambda: LinearGaussian.of(torch.zeros(2), torch.zeros(2), torch.eye(2)),
            ValueError,
            r"H must have shape \(D, K\).*found \(2,\)",
        ),
        (
            lambda: LinearGaussian.of(torch.ones(2, 1).long(), torch.zeros(2), torch.eye(2)),
            TypeError,
            "H must be a floating tensor, found torch.int64",
        ),
        (
            lambda: LinearGaussian.of(torch.ones(2, 1), torch.zeros(1), torch.eye(2)),
            ValueError,
            r"d must have shape \(2,\) to fit the rows of H, found \(1,\)",
        ),
        (
            lambda: LinearGaussian.of(torch.ones(2, 1), torch.zeros(2), torch.ones(2, 2).tril()),
            ValueError,
            "R must be symmetric",
        ),
        (
            lambda: LinearGaussian.of(torch.ones(2, 1), torch.zeros(2), -torch.eye(2)),
            ValueError,
            "observation covariance R was expected to be positive",
        ),
        (
            lambda: LinearGaussian.of(
                torch.ones(2, 1), torch.zeros(2), torch.zeros(2, 2), learn=True
            ),
            ValueError,
            "R must be positive definite to be learned",
        ),
        (
            lambda: LinearGaussian.of(torch.full((1, 1), torch.inf), torch.zeros(1), torch.eye(1)),
            ValueError,
            "H must be finite, found inf",
        ),
    ],
)
def test_wrong_arguments_are_named(build, error, match):
    with pytest.raises(error, match=match):
        build()
