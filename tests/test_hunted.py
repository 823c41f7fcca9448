"""Cases that once went wrong: each is the smallest that showed it."""

import pytest
import torch
from reference import random_covariance, random_data, random_system

from seqlatent import kalman


def both(model, y, observed, **options):
    expected = kalman.filter(*model, y, observed, **options).log_evidence.sum(-1)
    return kalman.log_likelihood(*model, y, observed, **options), expected


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
    pair = [torch.autograd.grad(x, model.R)[0] for x in (found, expected)]
    torch.testing.assert_close(pair[0], pair[1], rtol=1e-4, atol=1e-4 * pair[1].abs().max().item())
