"""Wrong input to the public constructors and functions gets an error that teaches."""

import pytest
import torch

from seqlatent import Belief, LatentModel, Sequences, elbo, evidence, fit, fivo, iwae
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.emissions import Normal, Poisson
from seqlatent.inference import (
    Amortised,
    Encoder,
    FilteringEncoder,
    Kalman,
    Parallel,
    Particles,
    Prior,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.networks import GRU, MinGRU
from seqlatent.objectives import annealing
from seqlatent.transitions import (
    Gated,
    LinearGaussian,
    LocalLevel,
    NoLatent,
    OrnsteinUhlenbeck,
    Seasonal,
)
from seqlatent.zoo import deep_markov, latent_ode, srnn, structural, vrnn

y = torch.zeros(2, 5, 1)
series = Sequences.of(y)
eye = torch.eye(2)
zero = torch.zeros(2)


def amortised(causal=False):
    return deep_markov(latent_dim=2, hidden_dim=4, causal=causal)


def encoder():
    return FilteringEncoder(GRU(Encoder.input_dim(1), 4))


CASES = {
    "kalman on a neural model": (
        lambda: LatentModel(Gated(2), Normal(2, 1), Kalman()),
        TypeError,
        "Kalman needs matrices.*transition Gated and the emission Normal.*Particles",
    ),
    "kalman on counts": (
        lambda: LatentModel(LocalLevel(), Poisson(1, 1), Kalman()),
        TypeError,
        "emission Poisson is not linear",
    ),
    "no inference with latents": (
        lambda: LatentModel(Gated(2), Normal(2, 1), Prior()),
        TypeError,
        "Prior infers nothing.*Kalman, Amortised or Particles",
    ),
    "parts in the wrong order": (
        lambda: LatentModel(Normal(2, 1), Gated(2), Kalman()),
        TypeError,
        "transition",
    ),
    "counts that are not counts": (
        lambda: elbo(
            deep_markov(latent_dim=2, hidden_dim=4, emission=Poisson),
            Sequences.of(torch.full((1, 3, 1), 1.5)),
        ),
        ValueError,
        "Poisson expects counts.*found 1.5 at series 0, step 0, dimension 0",
    ),
    "irregular times on a grid transition": (
        lambda: elbo(amortised(), Sequences.of(y, t=torch.tensor([0.0, 1, 2, 4, 5]))),
        ValueError,
        "Gated ignores the gaps.*found 2 at series 0, step 3.*OrnsteinUhlenbeck",
    ),
    "times that go backwards": (
        lambda: Sequences.of(y, t=torch.tensor([0.0, 1, 3, 2, 4])),
        ValueError,
        "series 0 goes from 3 at step 2 to 2 at step 3",
    ),
    "infinite values": (
        lambda: Sequences.of(torch.full((1, 2, 1), torch.inf)),
        ValueError,
        "infinite.*series 0, step 0, dimension 0.*NaN",
    ),
    "a flat series": (
        lambda: Sequences.of(torch.zeros(5)),
        ValueError,
        r"\(B, T, D\).*found \(5,\)",
    ),
    "integers": (
        lambda: Sequences.of(torch.zeros(1, 2, 1, dtype=torch.long)),
        TypeError,
        "floating",
    ),
    "no covariance": (
        lambda: LinearGaussian.of(eye, zero, -eye, zero, eye),
        ValueError,
        "transition covariance Q.*found eigenvalues from -1 to -1",
    ),
    "a matrix of another shape": (
        lambda: LinearGaussian.of(torch.eye(3), zero, eye, zero, eye),
        ValueError,
        "shape",
    ),
    "an emission that is no covariance": (
        lambda: LinearGaussianEmission.of(eye, zero, -eye),
        ValueError,
        "observation covariance R",
    ),
    "horizon": (
        lambda: structural().forecast(structural().belief(series), 0),
        ValueError,
        "horizon must be at least 1 step, found 0",
    ),
    "no paths": (
        lambda: structural().forecast(structural().belief(series), 3, n=0),
        ValueError,
        "n must be a number of paths",
    ),
    "rows of the past": (
        lambda: structural().update(structural().belief(series), series),
        ValueError,
        "rows must come after the belief: series 0 stands at t=4, and its first row has t=0",
    ),
    "another number of series": (
        lambda: structural().update(
            structural().belief(series), Sequences.of(torch.zeros(3, 1, 1))
        ),
        ValueError,
        "the belief has 2 series, the rows have 3",
    ),
    "another width": (
        lambda: evidence(structural(), Sequences.of(torch.zeros(2, 5, 2))),
        ValueError,
        "the emission has 1 observed dimensions, the sequences have 2",
    ),
    "missing covariates": (
        lambda: elbo(srnn(covariate_dim=2, hidden_dim=4, latent_dim=2), series),
        ValueError,
        "reads 2 covariates, the sequences have 0",
    ),
    "unknown categories": (
        lambda: elbo(
            srnn(code_sizes=(3,), hidden_dim=4, latent_dim=2),
            Sequences.of(y, codes=torch.tensor([[0], [3]])),
        ),
        ValueError,
        "static code 0 has 3 categories, found code 3",
    ),
    "evidence of a bound": (lambda: evidence(amortised(), series), TypeError, "use elbo or iwae"),
    "filtering with the future": (
        lambda: amortised().filter(series),
        TypeError,
        "two-sided encoder reads the future.*FilteringEncoder",
    ),
    "fivo of an exact model": (
        lambda: fivo(structural(), series),
        TypeError,
        "fivo needs Amortised",
    ),
    "no samples": (lambda: elbo(amortised(), series, samples=0), ValueError, "samples"),
    "no importance samples": (lambda: iwae(amortised(), series, samples=0), ValueError, "samples"),
    "no particles": (lambda: Particles(0), ValueError, "particles of at least 1, found 0"),
    "a share above one": (
        lambda: Particles(9, threshold=2),
        ValueError,
        "between 0 and 1, found 2",
    ),
    "a proposal that is none": (
        lambda: Particles(9, Kalman()),
        TypeError,
        "Amortised inference, found Kalman",
    ),
    "an encoder that is none": (
        lambda: Amortised(GRU(4, 4), Tilted(4, 2)),
        TypeError,
        "encoder",
    ),
    "a posterior that is none": (
        lambda: Amortised(encoder(), encoder()),
        TypeError,
        "posterior",
    ),
    "a posterior of another width": (
        lambda: elbo(
            LatentModel(Gated(2), Normal(2, 1), Amortised(encoder(), Parallel(4, 3))), series
        ),
        ValueError,
        "3|width|latent",
    ),
    "a backbone of another width": (
        lambda: elbo(
            LatentModel(
                Gated(2), Normal(2, 1), Amortised(SmoothingEncoder(GRU(9, 4)), Tilted(4, 2))
            ),
            series,
        ),
        ValueError,
        "input_dim",
    ),
    "a memory of another width": (
        lambda: CausalMemory(1, MinGRU(3, 4)),
        ValueError,
        "must read 4 features, found one that reads 3.*CausalMemory.input_dim",
    ),
    "a lag of zero": (
        lambda: CausalMemory(1, MinGRU(5, 4), lags=(0,)),
        ValueError,
        "at least 1",
    ),
    "a lag twice": (lambda: CausalMemory(1, MinGRU(5, 4), lags=(1, 1)), ValueError, "not repeat"),
    "a weight of zero": (lambda: Tilted(4, 2, weight=0.0), ValueError, "weight must be positive"),
    "a season of one": (lambda: Seasonal(1), ValueError, "1"),
    "a time scale of zero": (
        lambda: OrnsteinUhlenbeck(1, time_scale=0.0),
        ValueError,
        "time_scale",
    ),
    "a state of no width": (lambda: Gated(0), ValueError, "NoLatent"),
    "an annealing of no steps": (lambda: annealing(0, 1, 0), ValueError, "steps"),
    "a fit of no steps": (
        lambda: fit(structural(), series, evidence, steps=0),
        ValueError,
        "steps",
    ),
    "a fit to nothing": (
        lambda: fit(structural(), [], evidence),
        (TypeError, ValueError),
        "data|empty",
    ),
    "a missing file": (lambda: Belief.load("nowhere"), FileNotFoundError, "Belief.save"),
    "a latent dimension of zero": (
        lambda: vrnn(latent_dim=0),
        ValueError,
        "random_dim to be an integer of at least 1",
    ),
    "an ode of no width": (lambda: latent_ode(latent_dim=0), ValueError, "latent_dim"),
}


# The run-time type checks of the tests refuse a part of the wrong class before we do:
# for those cases only the name of the argument is asked for.
@pytest.mark.parametrize("name", CASES)
def test_error_teaches(name):
    call, kind, message = CASES[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_model_without_latents_needs_no_inference():
    model = LatentModel(NoLatent(), Normal(0, 1), Prior())
    assert evidence(model, series).shape == (2,)
