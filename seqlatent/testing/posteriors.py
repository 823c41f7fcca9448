"""What every posterior of an amortised inference owes."""

from collections.abc import Callable
from typing import Any

import torch

from seqlatent.chain import MarkovChain
from seqlatent.emissions import Normal
from seqlatent.inference import Amortised, FilteringEncoder, SmoothingEncoder
from seqlatent.inference.amortised.encoders import Encoder
from seqlatent.inference.amortised.posterior import Posterior
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU
from seqlatent.objectives import elbo, iwae
from seqlatent.sequences import Sequences
from seqlatent.testing import contract
from seqlatent.testing.contract import Contract, close, require, seeded, shaped
from seqlatent.transitions import OrnsteinUhlenbeck, Transition

__all__ = ["PosteriorContract", "check_posterior"]

STEPS = 6


class PosteriorContract(Contract):
    """Laws of every posterior.

    ``build`` makes the posterior from the width of an encoder's features and the latent dimensions;
    ``transition`` makes the model's own, Ornstein-Uhlenbeck in two dimensions unless told.
    """

    def build(self, feature_dim: int, latent_dim: int) -> Posterior:  # type: ignore[override]
        """Returns the posterior under test."""
        raise NotImplementedError

    def transition(self) -> Transition:
        """Returns the transition of the model."""
        return OrnsteinUhlenbeck(2)

    def model(self, causal: bool = True) -> LatentModel:
        """The posterior in a model, with an encoder of the past or of all of a series."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            p, width = self.transition(), Encoder.input_dim(1)
            nets = [MinGRU(width, 4) for _ in range(1 if causal else 2)]
            encoder = FilteringEncoder(*nets) if causal else SmoothingEncoder(*nets)
            posterior = self.build(encoder.out_dim, p.latent_dim)
            inference = Amortised(encoder, posterior, particles=5)
            return LatentModel(p, Normal(p.latent_dim, 1), inference).double()

    def sequences(self) -> Sequences:
        """Three series: one with a hole, one that ends early, one of which nothing is seen."""
        y = torch.randn(3, STEPS, 1, dtype=torch.float64, generator=seeded(1))
        y[0, 2], y[1, 3:], y[2] = torch.nan, torch.nan, torch.nan
        return Sequences.of(y)

    def test_paths_follow_the_densities_that_are_scored(self) -> None:
        for causal in (True, False):
            model, s = self.model(causal), self.sequences()
            q = model.posterior(s)
            require(isinstance(q, MarkovChain), "kernel must make a Markov chain")
            assert isinstance(q, MarkovChain)
            z = q.rsample((3,), seeded())
            shaped(z, (3, 3, STEPS, model.transition.latent_dim), "paths")
            c, kernel = q.context, q.kernel
            expected = [kernel.initial(c[0]).log_prob(z[..., 0, :])]
            steps = range(1, STEPS)
            expected += [kernel(z[..., t - 1, :], c[t]).log_prob(z[..., t, :]) for t in steps]
            text = "densities of a path are not those of its steps"
            close(q.log_prob(z), torch.stack(expected, -1), text)
            prior = MarkovChain(model.transition, c).conditionals(z)
            for a, b in zip(q.conditionals(z), q.conditionals(z, prior), strict=True):
                close(a.mean, b.mean, "correct(prior) has another mean than the kernel")

    def test_where_nothing_is_observed_the_posterior_is_the_prior(self) -> None:
        model, s = self.model(False), self.sequences()
        s = s.hide(torch.ones_like(s.observed))
        q, p = model.posterior(s), model.prior(s)
        z = q.rsample((3,), seeded())
        text = "it is not the prior where nothing is seen; c.informed says where something is"
        close(z, p.rsample((3,), seeded()), text)
        close(q.log_prob(z), p.log_prob(z), text)

    def test_appended_unobserved_steps_change_nothing(self) -> None:
        model, s = self.model(False), self.sequences()
        q, longer = model.posterior(s), model.posterior(s.extend(3))
        z, z2 = q.rsample((3,), seeded()), longer.rsample((3,), seeded())
        text = "steps that are appended, of which nothing is seen, change it"
        close(z2[..., :STEPS, :], z, text)
        close(longer.log_prob(z2)[..., :STEPS], q.log_prob(z), text)
        for objective in (elbo, iwae):
            a, b = (objective(model, x, samples=3, generator=seeded()) for x in (s, s.extend(3)))
            close(a, b, text, rtol=1e-9)

    def test_series_do_not_see_each_other(self) -> None:
        model, s = self.model(False), self.sequences()
        order = torch.tensor([2, 0, 1])
        q = model.posterior(s)
        z = q.rsample((3,), seeded())
        found = model.posterior(s.select(order)).log_prob(z[:, order])
        text = "the density of a series depends on the others"
        close(found, q.log_prob(z)[:, order], text)
        for b in range(3):
            alone = model.posterior(s.select(slice(b, b + 1))).log_prob(z[:, b : b + 1])
            close(alone, q.log_prob(z)[:, b : b + 1], text)

    def test_a_filtering_posterior_ignores_the_future(self) -> None:
        model, s = self.model(True), self.sequences()
        y = s.y.clone()
        y[:, 3:] = 1e9 * s.observed[:, 3:]
        other = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
        z, z2 = (model.posterior(x).rsample((3,), seeded()) for x in (s, other))
        text = "with an encoder of the past it reads what comes later"
        close(z2[..., :3, :], z[..., :3, :], text)

    def test_every_parameter_gets_a_finite_gradient(self) -> None:
        model, s = self.model(), self.sequences()
        elbo(model, s, samples=2, generator=seeded()).sum().backward()
        contract.finite_gradients(model)

    def test_a_private_generator_decides_the_path(self) -> None:
        model, s = self.model(), self.sequences()
        contract.repeatable(lambda: model.posterior(s).rsample((2,), seeded()), "paths")

    def test_the_type_follows_the_inputs(self) -> None:
        model, s = self.model().float(), self.sequences().to(dtype=torch.float32)
        found = model.posterior(s).rsample().dtype
        require(found == torch.float32, f"paths of a posterior in torch.float32 are {found}")


def check_posterior(
    build: Callable[[int, int], Posterior],
    *,
    transition: Callable[[], Transition] | None = None,
) -> list[str]:
    """Tries the laws of every posterior on one of your own.

    Args:
        build: From the width of an encoder's features and the latent dimensions to the posterior.
        transition: Returns the transition of the model; Ornstein-Uhlenbeck in two dimensions by
            default.

    Returns:
        The laws that hold.

    Raises:
        AssertionError: At the first that does not, with a sentence.
    """
    laws: Any = PosteriorContract()
    laws.build = build
    laws.transition = laws.transition if transition is None else transition
    return laws.run()
