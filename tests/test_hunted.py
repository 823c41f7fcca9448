"""Cases that once went wrong: each is the smallest that showed it."""

import math

import pytest
import torch
from reference import random_covariance, random_data, random_system, structural

from seqlatent import kalman, zoo
from seqlatent.kalman import LinearGaussianSystem


def both(model, y, observed, **options):
    expected = kalman.filter(LinearGaussianSystem(*model, **options), y, observed).log_evidence.sum(
        -1
    )
    return kalman.log_likelihood(LinearGaussianSystem(*model, **options), y, observed), expected


def system(latent_dim, obs_dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    model = random_system(latent_dim, obs_dim, generator=g)
    return model._replace(P0=random_covariance(latent_dim, generator=g)), g


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("flat", [[1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 1, 1]])
def test_flat_coordinates_stand_anywhere_beside_correlated_ones(flat, singular):
    model, g = system(4, 2)
    if singular:
        root = torch.randn(4, 1, dtype=torch.float64, generator=g)
        model = model._replace(P0=root @ root.mT)
    y, observed = random_data((), 9, 2, 0.2, g)
    found, expected = both(model, y, observed, diffuse=torch.tensor(flat).bool())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_no_coordinate_at_all_may_be_flat():
    model, g = system(2, 1)
    y, observed = random_data((), 400, 1, 0.0, g)
    none = torch.zeros(2, dtype=torch.bool)
    torch.testing.assert_close(*both(model, y, observed, diffuse=none))


def test_priors_of_each_series_meet_a_last_block_that_is_short():
    model, g = system(1, 1)
    priors = random_covariance(120, 1, generator=g)
    y, observed = random_data((120,), 150, 1, 0.0, g)
    torch.testing.assert_close(*both(model._replace(P0=priors), y, observed))


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_a_small_noise_costs_no_accuracy_where_the_state_is_not_determined(steps):
    model, g = system(5, 2)
    model = model._replace(R=(1e-7 * model.R).requires_grad_())
    y, observed = random_data((), steps, 2, 0.0, g)
    found, expected = both(model, y, observed)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-6)
    pair = [model.R * torch.autograd.grad(x, model.R)[0] for x in (found, expected)]
    torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-6)


def test_a_flat_direction_known_only_through_large_priors_is_known():
    model = structural(12)
    flat = torch.arange(model.F.shape[-1]) < 2
    y, observed = random_data((), 3, 1, 0.0, torch.Generator().manual_seed(0))
    observed[::2] = False
    torch.testing.assert_close(*both(model, y, observed, diffuse=flat), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("states", [0, -2])
def test_switching_names_a_bad_number_of_states(states):
    with pytest.raises(ValueError, match="states must be an integer of at least 1, found"):
        zoo.switching(states=states)


@pytest.mark.parametrize("period", [math.inf, math.nan])
def test_harmonics_of_no_finite_period_are_refused(period):
    with pytest.raises(ValueError, match="a period must be a finite number of steps, found"):
        zoo.unobserved_components(freq_seasonal=[(period, 1)])


def test_one_group_without_holes_beside_others_has_a_gradient():
    model, g = system(2, 1)
    y, observed = random_data((6,), 200, 1, 0.0, g)
    observed[4:, 3] = False
    parts = [x.clone().requires_grad_() for x in model]
    found, expected = both(type(model)(*parts), torch.where(observed, y, 0), observed)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(x.sum(), parts[0])[0] for x in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)
