"""Latent use, inference gap and calibration, on posteriors whose faults are known."""

import json

import pytest
import torch

from seqlatent.chain import Chain
from seqlatent.diagnostics import (
    Ranks,
    inference_gap,
    latent_use,
    simulation_based_calibration,
)
from seqlatent.emissions import LinearGaussian, Normal
from seqlatent.inference import (
    Amortised,
    Combiner,
    FilteringEncoder,
    Kalman,
    Particles,
    Prior,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU, reinitialise
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit
from seqlatent.transitions import (
    CarriedRecurrence,
    LocalLevel,
    NoLatent,
    OrnsteinUhlenbeck,
)
from seqlatent.transitions import LinearGaussian as LinearTransition

ONE, ZERO = torch.ones(1, 1).double(), torch.zeros(1).double()


def walks(batch=8, steps=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape, like = (batch, steps, 1), {"generator": g, "dtype": torch.float64}
    y = torch.randn(batch, 1, 1, **like) + (0.5 * torch.randn(shape, **like)).cumsum(1)
    return Sequences.of(y + 0.5 * torch.randn(shape, **like))


def level(inference=None, emission=None):
    """A local level that starts within a unit of zero; exact unless told otherwise."""
    transition = LocalLevel(0.5, initial_scale=1.0)
    if emission is None:
        emission = LinearGaussian(1, loading=transition.loading, bias=False, scale=0.5)
    return LatentModel(transition, emission, inference or Kalman()).double()


def encoder(seed=1):
    inference = Amortised(FilteringEncoder(MinGRU(3, 4, layers=1)), Tilted(4, 1), particles=5)
    reinitialise(inference, torch.Generator().manual_seed(seed))
    return inference


def silent():
    """An encoder that has nothing to say: its posterior is the prior."""
    inference = encoder()
    inference.posterior.offset = -60.0
    for p in inference.posterior.parameters():
        torch.nn.init.zeros_(p)
    return inference


# Latent use


def test_a_posterior_that_is_the_prior_is_collapsed(generator):
    use = latent_use(level(silent()), walks(), generator=generator)
    assert use.collapsed
    assert not use.useful
    assert use.kl_per_step < 1e-12
    assert use.kl_share < 1e-12
    assert use.activity.item() < 1e-12
    assert use.active.tolist() == [False]
    assert use.lost_with_prior == pytest.approx(0.0, abs=1e-9)


def test_the_exact_posterior_of_informative_data_is_useful(generator):
    data, model = walks(), level()
    use = latent_use(model, data, generator=generator)
    assert not use.collapsed
    assert use.useful
    assert 0 < use.kl_share < 1
    assert use.lost_when_shuffled > 0.5
    assert use.lost_with_prior > 0.5
    # score - divergence is the evidence, whatever the path
    total = use.kl_per_step * data.batch * data.steps / data.observed.sum()
    mean = evidence(model, data).sum() / data.observed.sum()
    assert use.score - total.item() == pytest.approx(mean.item(), abs=1e-7)


def test_activity_of_a_static_latent_is_the_explained_share_of_its_variance(generator):
    y = 1.2 * torch.randn(200, 1, 1, generator=generator).double()
    # a unit prior and noise of a half: four fifths of what is seen is believed
    explained = (0.8 * y).var(correction=0)
    use = latent_use(level(), Sequences.of(y), generator=generator)
    assert use.activity.item() == pytest.approx((explained / (explained + 0.2)).item(), rel=1e-6)


def test_a_wide_start_hides_no_activity(generator):
    transition = LocalLevel(0.5, initial_scale=100.0)
    emission = LinearGaussian(1, loading=transition.loading, bias=False, scale=0.5)
    model = LatentModel(transition, emission, Kalman()).double()
    use = latent_use(model, walks(), generator=generator)
    assert use.active.all()
    assert use.useful


def test_what_a_state_only_carries_is_no_latent(generator):
    transition = CarriedRecurrence(2, 5)
    emission = Normal(transition.latent_dim, 1)
    posterior = Combiner(4, 2, hidden_dim=4, carry_dim=5)
    inference = Amortised(FilteringEncoder(MinGRU(3, 4, layers=1)), posterior)
    model = LatentModel(transition, emission, inference).double()
    use = latent_use(model, walks(), generator=generator)
    assert use.activity.shape == (2,)
    assert use.kl.shape == (20, 2)


def test_the_noise_of_few_samples_is_no_activity(generator):
    use = latent_use(level(silent()), walks(40), samples=2, generator=generator)
    assert not use.active.any()


def test_a_latent_that_is_alive_but_not_read_is_not_useful(generator):
    deaf = LinearGaussian.of(0 * ONE, ZERO, ONE)
    model = level(encoder(), deaf)
    model.inference.posterior.offset = 2.0
    use = latent_use(model, walks(), generator=generator)
    assert use.kl_per_step > 0.05
    assert use.lost_when_shuffled == pytest.approx(0.0, abs=1e-12)
    assert not use.useful


def test_divergence_is_told_by_step_and_dimension_where_the_laws_factorise(generator):
    independent = OrnsteinUhlenbeck(2)
    inference = Amortised(FilteringEncoder(MinGRU(3, 4, layers=1)), Tilted(4, 2))
    model = LatentModel(independent, LinearGaussian(2), inference).double()
    use = latent_use(model, walks(), generator=generator)
    assert use.kl.shape == (20, 2)
    assert (use.kl >= 0).all()
    assert use.kl_per_step == pytest.approx(use.kl.sum(1).mean().item())
    assert use.activity.shape == (2,)
    assert latent_use(level(), walks(), generator=generator).kl.shape == (20, 1)


def test_an_unobserved_tail_changes_nothing():
    data, model = walks(), level(encoder())
    short, long = (
        latent_use(model, x, generator=torch.Generator().manual_seed(1))
        for x in (data, data.extend(5))
    )
    # the tail takes noise of its own, so that the samples of the two differ
    torch.testing.assert_close(short.kl, long.kl[:20], atol=0.05, rtol=0.2)
    assert not long.kl[20:].any()
    assert short.kl_per_step == pytest.approx(long.kl_per_step, rel=0.1)


def test_a_single_series_is_shuffled_in_time(generator):
    y = torch.linspace(-9, 9, 40).double()[None, :, None]
    use = latent_use(level(), Sequences.of(y), generator=generator)
    assert use.lost_when_shuffled > 5


def test_the_same_generator_gives_the_same_report_and_none_is_the_global_one():
    data, model = walks(3, 5), level(encoder())
    one, two = (latent_use(model, data, generator=torch.Generator().manual_seed(1)) for _ in "ab")
    assert one.to_dict() == two.to_dict()
    torch.manual_seed(3)
    three = latent_use(model, data)
    torch.manual_seed(3)
    assert latent_use(model, data).to_dict() == three.to_dict()


def test_latent_use_reads_well(generator):
    use = latent_use(level(), walks(), generator=generator)
    assert repr(use).startswith("LatentUse(kl_per_step=")
    assert "active=1/1" in repr(use)
    assert json.loads(json.dumps(use.to_dict()))["useful"] is True


def test_latent_use_refuses_what_it_cannot_look_at():
    with pytest.raises(ValueError, match=r"samples must be at least 2.*found 1"):
        latent_use(level(), walks(), samples=1)
    none = LatentModel(NoLatent(), Normal(0, 1), Prior()).double()
    with pytest.raises(ValueError, match=r"latent_dim is 0"):
        latent_use(none, walks())
    with pytest.raises(ValueError, match="every cell missing"):
        latent_use(level(), walks().hide(torch.ones(8, 20, 1).bool()))
    with pytest.raises(ValueError, match="second series or step"):
        latent_use(level(), walks(1, 1))
    with pytest.raises(TypeError, match="has no density"):
        latent_use(level(Particles(10)), walks())


# Inference gap


def test_exact_inference_leaves_no_gap(generator):
    data = walks().hide(torch.rand(8, 20, 1, generator=generator) < 0.3)
    gap = inference_gap(level(), data, generator=generator)
    assert gap.exact
    torch.testing.assert_close(gap.gap, torch.zeros(8).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(gap.iwae, gap.evidence)
    torch.testing.assert_close(gap.evidence, evidence(level(), data))
    assert gap.gap_error.max() < 1e-9
    torch.testing.assert_close(gap.steps, data.observed.sum((1, 2)))


def test_an_encoder_has_a_gap_that_training_narrows(generator):
    data, model = walks(), level(encoder())
    model.transition.requires_grad_(False)
    model.emission.requires_grad_(False)
    before = inference_gap(model, data, generator=generator)
    fit(model, data, steps=60, schedule=None)
    after = inference_gap(model, data, generator=generator)
    assert before.exact
    torch.testing.assert_close(before.evidence, evidence(level(), data))
    for gap in (before, after):
        slack = 4 * gap.gap_error
        assert (gap.gap > -slack).all()
        assert (gap.iwae >= gap.elbo - slack).all()
        assert (gap.iwae <= gap.evidence + 4 * gap.iwae_error).all()
    assert before.mean > after.mean + 2 * before.mean_error
    torch.testing.assert_close(after.per_step, after.gap / 20)


def test_particles_estimate_what_no_formula_gives(generator):
    data, exact = walks(), level()
    same = Normal(1, 1, hidden=())
    model = level(encoder(), same)
    model.inference.posterior.offset = -3.0
    linear = same.net.layers[-1]
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [0.0]]))
        linear.bias.copy_(torch.tensor([0.0, torch.tensor(0.5 - 1e-4).expm1().log().item()]))
    gap = inference_gap(model, data, particles=300, generator=generator)
    assert not gap.exact
    expected = evidence(exact, data)
    assert ((gap.evidence - expected).abs() < 5 * gap.evidence_error + 0.02).all()
    assert (gap.evidence_error > 0).all()
    assert gap.mean > 0


def test_gap_reads_well(generator):
    gap = inference_gap(level(), walks(), generator=generator)
    assert repr(gap).startswith("Gap(series=8, per step: elbo=-")
    report = json.loads(json.dumps(gap.to_dict()))
    assert len(report["per_step"]) == 8


def test_inference_gap_refuses_what_has_no_bound():
    with pytest.raises(TypeError, match="a particle posterior has no density"):
        inference_gap(level(Particles(10)), walks())
    with pytest.raises(ValueError, match="samples must be an integer of at least 2, found 1"):
        inference_gap(level(), walks(), samples=1)
    hidden = torch.zeros(8, 20, 1).bool()
    hidden[3] = True
    with pytest.raises(ValueError, match="series 3 has no observed cell"):
        inference_gap(level(), walks().hide(hidden))


# Calibration


class Distorted(Kalman):
    """The exact posterior, stretched about its mean and moved."""

    def __init__(self, stretch=1.0, shift=0.0):
        super().__init__()
        self.stretch, self.shift = stretch, shift

    def forward(self, model, sequences, c=None):
        exact, mean = super().forward(model, sequences, c), self.smooth(model, sequences, c=c).mean
        inference = self

        class Wrong(Chain):
            context = exact.context
            log_prob = exact.log_prob
            conditionals = exact.conditionals

            def rsample(self, shape=(), generator=None):
                z = exact.rsample(shape, generator)
                return mean + inference.stretch * (z - mean) + inference.shift

        return Wrong()


def template():
    """Irregular times, missing cells, a scale."""
    g = torch.Generator().manual_seed(4)
    y = torch.zeros(25, 8, 1).double()
    y[torch.rand(25, 8, 1, generator=g) < 0.3] = torch.nan
    t = (0.2 + torch.rand(25, 8, generator=g)).cumsum(1)
    return Sequences.of(y, t=t, scale=torch.full((25, 1), 3.0).double())


def test_the_exact_posterior_is_calibrated(generator):
    ranks = simulation_based_calibration(level(), template(), generator=generator)
    assert ranks.uniform()
    assert ranks.ranks.shape == (500, 4, 1)
    assert ranks.at == (0, 2, 5, 7)
    assert ranks.ranks.min() >= 0
    assert ranks.ranks.max() <= 99
    torch.testing.assert_close(ranks.spread, torch.ones(4, 1).double(), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "spread"),
    [
        (Distorted(stretch=0.5), "narrow"),
        (Distorted(stretch=2.0), "wide"),
        (Distorted(shift=0.3), "off"),
    ],
)
def test_a_posterior_that_is_wrong_is_found_out(generator, wrong, spread):
    ranks = simulation_based_calibration(level(wrong), template(), generator=generator)
    assert not ranks.uniform(1e-6)
    if spread == "narrow":
        assert (ranks.spread > 1.3).all()
    if spread == "wide":
        assert (ranks.spread < 0.7).all()
    assert "uniform=False" in repr(ranks)


def test_an_untrained_encoder_is_not_calibrated_and_particles_are(generator):
    shape = {"replications": 2, "draws": 19, "generator": generator}
    model = level(encoder())
    model.inference.posterior.offset = 3.0
    assert not simulation_based_calibration(model, (100, 6), **shape).uniform()
    assert simulation_based_calibration(level(Particles(200)), (100, 6), **shape).uniform()


def test_p_values_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    ranks = Ranks(torch.randint(20, (90, 2, 3)), draws=19, at=(0, 1), bins=5)
    counts = ranks.counts
    assert counts.shape == (5, 2, 3)
    assert (counts.sum(0) == 90).all()
    expected = stats.chisquare(counts.reshape(5, -1).numpy()).pvalue
    torch.testing.assert_close(ranks.p_values.flatten(), torch.from_numpy(expected))


def test_a_state_that_is_known_ranks_at_random(generator):
    F = torch.eye(2).double()
    Q, P0 = (
        torch.diag(torch.tensor([1.0, 0.0])).double(),
        torch.diag(torch.tensor([1.0, 0.0])).double(),
    )
    transition = LinearTransition.of(F, torch.zeros(2).double(), Q, torch.ones(2).double(), P0)
    emission = LinearGaussian.of(torch.ones(1, 2).double(), ZERO, ONE)
    model = LatentModel(transition, emission, Kalman()).double()
    y = Sequences.of(torch.zeros(50, 4, 1).double())
    ranks = simulation_based_calibration(model, y, replications=4, generator=generator)
    assert ranks.uniform()
    assert ranks.ranks[..., 1].unique().numel() > 50


def test_chosen_steps_and_the_report(generator):
    ranks = simulation_based_calibration(
        level(), (50, 6), at=(5, 1), replications=1, draws=9, bins=5, generator=generator
    )
    assert ranks.ranks.shape == (50, 2, 1)
    report = json.loads(json.dumps(ranks.to_dict()))
    assert report["at"] == [5, 1]
    assert report["simulations"] == 50
    assert repr(ranks).startswith("Ranks(simulations=50, draws=9, at=[5, 1]")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"replications": 0}, "replications must be"),
        ({"bins": 1}, "bins must be an integer of at least 2"),
        ({"draws": 50}, "bins must divide draws . 1.* use draws=59"),
        ({"replications": 1}, "needs 50 simulations or more.* use replications=3"),
        ({"at": (6,)}, r"steps between 0 and 5, found \(6,\)"),
        ({"at": ()}, "at must name steps"),
        ({"template": (0, 5)}, r"each at least 1, found \(0, 5\)"),
    ],
)
def test_calibration_refuses_what_cannot_be_tested(changes, match):
    with pytest.raises(ValueError, match=match):
        simulation_based_calibration(level(), **{"template": (20, 6), **changes})


def test_a_level_is_a_probability():
    with pytest.raises(ValueError, match=r"between 0 and 1, found 5\.0"):
        Ranks(torch.zeros(5, 1, 1).long(), draws=9, at=(0,), bins=5).uniform(5.0)


def test_a_memory_of_observations_needs_a_complete_template(generator):
    memory = CausalMemory(1, MinGRU(CausalMemory.input_dim(1), 4, layers=1))
    transition = LocalLevel(0.5, initial_scale=1.0)
    emission = LinearGaussian(1, loading=transition.loading, context_dim=4)
    model = LatentModel(transition, emission, Kalman(), memory).double()
    with pytest.raises(ValueError, match="give a complete template"):
        simulation_based_calibration(model, template())
    reinitialise(memory, generator)
    ranks = simulation_based_calibration(model, (60, 5), replications=2, generator=generator)
    assert ranks.uniform()
