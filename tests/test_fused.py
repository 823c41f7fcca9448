"""Walks against the loop that autograd records: same values and gradients, whatever is missing."""

from functools import partial

import pytest
import torch
from torch import nn

from seqlatent import zoo
from seqlatent.chain import MarkovChain
from seqlatent.emissions import Normal
from seqlatent.inference import Amortised, Combiner, FilteringEncoder, Tilted
from seqlatent.inference.amortised.encoders import Encoder
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU
from seqlatent.objectives import divergence, elbo
from seqlatent.sequences import Sequences
from seqlatent.transitions import Gated


def gated(posterior, context: bool, gaps: bool) -> LatentModel:
    memory = CausalMemory(2, MinGRU(CausalMemory.input_dim(2), 4, layers=1)) if context else None
    width = 4 if context else 0
    transition = Gated(3, context_dim=width, hidden_dim=5, handles_gaps=gaps)
    encoder = FilteringEncoder(MinGRU(Encoder.input_dim(2, memory_dim=width), 4, layers=1))
    emission = Normal(3, 2, context_dim=width, hidden=(4,))
    return LatentModel(transition, emission, Amortised(encoder, posterior(4, 3)), memory)


MODELS = {
    "tilted": lambda: gated(Tilted, False, False),
    "tilted, memory": lambda: gated(Tilted, True, False),
    "tilted, gaps": lambda: gated(Tilted, False, True),
    "combined": lambda: gated(Combiner, False, False),
    "combined, memory, gaps": lambda: gated(Combiner, True, True),
    "carried": lambda: zoo.vrnn(2, latent_dim=3, hidden_dim=4),
}


def data(missing: bool, gaps: bool = False) -> Sequences:
    rng = torch.Generator().manual_seed(1)
    y = torch.randn(3, 7, 2, generator=rng, dtype=torch.float64)
    if missing:
        y[0, 2:4] = torch.nan
        y[1, 5:] = torch.nan
        y[2, 0, 0] = torch.nan
    t = (1 + torch.rand(3, 7, generator=rng, dtype=torch.float64)).cumsum(1) if gaps else None
    return Sequences.of(y, t=t)


def gradients(model: nn.Module, sequences: Sequences, by_hand: bool, samples: int, monkeypatch):
    with monkeypatch.context() as patch:
        if not by_hand:
            patch.setattr(MarkovChain, "_fused_path", lambda self, shape, generator: None)
        rng = torch.Generator().manual_seed(2)
        q = model.posterior(sequences)
        assert isinstance(q, MarkovChain)
        z = q.rsample((samples,), rng)
        assert (q._drawn is not None) == by_hand
        weights = torch.randn(z.shape, generator=rng, dtype=z.dtype)
        kl = divergence(model, q, z)
        total = (z * weights).sum() + (
            kl * torch.randn(kl.shape, generator=rng, dtype=kl.dtype)
        ).sum()
        grads = torch.autograd.grad(total, [*model.parameters()], allow_unused=True)
    return z, kl, grads


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_walk_is_the_recorded_loop(name, missing, samples, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    if "combined" in name or name == "carried":
        missing = False  # then the prior steps in, and there is no walk
    sequences = data(missing, "gaps" in name)
    found = gradients(model, sequences, True, samples, monkeypatch)
    expected = gradients(model, sequences, False, samples, monkeypatch)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-10, atol=1e-12)
    for (parameter, value), a, b in zip(
        model.named_parameters(), *(x[2] for x in (found, expected)), strict=True
    ):
        unused = torch.zeros_like(value)
        torch.testing.assert_close(
            unused if a is None else a,
            unused if b is None else b,
            rtol=1e-9,
            atol=1e-10,
            msg=partial("{}: {}".format, parameter),
        )


def test_missing_steps_of_a_combiner_are_fused_path_by_autograd():
    model = MODELS["combined"]().double()
    q = model.posterior(data(True))
    q.rsample((), torch.Generator().manual_seed(0))
    assert q._drawn is None


def test_a_second_backward_says_what_to_do():
    model = MODELS["tilted"]().double()
    z = model.posterior(data(False)).rsample((1,))
    z.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be taken once"):
        z.sum().backward()


def test_objectives_in_single_precision():
    model = MODELS["tilted, memory"]()
    elbo(model, data(False).to(dtype=torch.float32), samples=2, kl_balance=0.8).mean().backward()


@pytest.mark.parametrize("initial", [False, True])
def test_the_gated_loop_is_torchs_own(initial):
    from seqlatent.networks import GRU

    backbone = GRU(3, 4, layers=2).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    own = state if initial else None
    weights = torch.randn(2, 5, 4, dtype=torch.float64)
    wanted = [x, *backbone.parameters(), *(state if initial else ())]
    found = torch.autograd.grad((backbone(x, own)[0] * weights).sum(), wanted)
    h = x
    for layer, start in zip(backbone.layers, state, strict=True):
        h, _ = layer(h, start[None] if initial else None)
    expected = torch.autograd.grad((h * weights).sum(), wanted)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_another_models_prior_is_not_mistaken_for_ones_own():
    torch.manual_seed(0)
    model, other = (MODELS["tilted"]().double() for _ in range(2))
    q = model.posterior(data(False))
    z = q.rsample((1,), torch.Generator().manual_seed(0))
    expected = divergence(other, q, z.clone())
    torch.testing.assert_close(divergence(other, q, z), expected, rtol=1e-10, atol=1e-12)


def test_a_subclass_with_its_own_distribution_is_not_fused_path_by_its_parents_steps():
    class Doubled(Gated):
        def forward(self, z, c):
            return super().forward(2 * z, c)

    torch.manual_seed(0)
    model = MODELS["tilted"]().double()
    other = LatentModel(
        Doubled(model.transition.latent_dim, hidden_dim=model.transition.hidden_dim).double(),
        model.emission,
        model.inference,
    )
    q = other.posterior(data(False))
    q.rsample((1,), torch.Generator().manual_seed(0))
    assert q._drawn is None
