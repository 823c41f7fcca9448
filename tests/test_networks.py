"""The laws of causal backbones, and parameters that come from one generator."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from seqlatent.networks import GRU, LRU, MLP, Feedforward, MinGRU, reinitialise

BACKBONES = [
    pytest.param(lambda *a, **k: MinGRU(*a, **k), id="MinGRU"),
    pytest.param(lambda *a, **k: LRU(*a, **k), id="LRU"),
    pytest.param(lambda *a, **k: GRU(*a, **k), id="GRU"),
]
EXACT = {"rtol": 1e-10, "atol": 1e-12}

every_backbone = pytest.mark.parametrize("build", BACKBONES)


def double(build, *args, **kwargs):
    backbone = build(*args, **kwargs).double()
    reinitialise(backbone, torch.Generator().manual_seed(1))
    return backbone


def inputs(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_state(backbone, *lead):
    like = torch.zeros((), dtype=torch.float64)
    return tuple(inputs(*h.shape, seed=2) for h in backbone.initial(lead, like))


# --- multilayer perceptrons ---------------------------------------------------------------------


@pytest.mark.parametrize("in_dim", [0, 3])
@pytest.mark.parametrize("hidden", [[], [4], [4, 5]])
@pytest.mark.parametrize("out_dim", [0, 2])
def test_mlp_of_any_size(in_dim, hidden, out_dim):
    net = MLP(in_dim, hidden, out_dim)
    reinitialise(net, torch.Generator())
    out = net(torch.ones(2, 5, in_dim))
    assert out.shape == (2, 5, out_dim)
    out.sum().backward()
    assert all(p.isfinite().all() for p in net.parameters())


def test_mlp_without_inputs_is_a_constant():
    out = MLP(0, [4], 2)(torch.zeros(5, 0))
    torch.testing.assert_close(out, out[:1].expand(5, 2))
    assert out.abs().min() > 0


def test_mlp_activation_and_gradient():
    net = MLP(2, [3], 1, activation=nn.Tanh).double()
    assert gradcheck(net, (inputs(4, 2).requires_grad_(),))
    first, activation, last = net.layers
    torch.testing.assert_close(net(inputs(4, 2)), last(first(inputs(4, 2)).tanh()))
    assert isinstance(activation, nn.Tanh)


def test_mlp_starts_as_torch_does():
    weight = MLP(100, [], 100).layers[0].weight
    assert weight.abs().max() <= 0.1
    assert math.isclose(weight.std().item(), 0.1 / math.sqrt(3), rel_tol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, [], 1), r"in_dim to be an integer of at least 0, found -1"),
        ((1, [2, 0], 1), r"hidden\[1\] to be an integer of at least 1, found 0"),
        ((1, [], -2), r"out_dim to be an integer of at least 0, found -2"),
    ],
)
def test_mlp_of_no_size(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(*arguments)


# --- backbones ----------------------------------------------------------------------------------


@every_backbone
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("layers", [1, 2])
def test_forward_equals_repeated_step(build, lead, layers):
    backbone, x = double(build, 3, 5, layers=layers), inputs(*lead, 6, 3)
    start = random_state(backbone, *lead)
    out, states = backbone(x, start)
    assert out.shape == (*lead, 6, backbone.out_dim)
    assert len(states) == layers
    state = start
    for t in range(6):
        step, state = backbone.step(x[..., t, :], state)
        torch.testing.assert_close(step, out[..., t, :], **EXACT)
        torch.testing.assert_close(state, tuple(h[..., t, :] for h in states), **EXACT)


@every_backbone
@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 7))
def test_two_pieces_equal_the_whole(build, cut):
    backbone, x = double(build, 2, 4, layers=2), inputs(3, 7, 2)
    whole, states = backbone(x)
    head, passed = backbone(x[:, :cut])
    start = backbone.initial((3,), x)
    state = tuple(h[:, -1] for h in passed) if cut else start
    tail, rest = backbone(x[:, cut:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **EXACT)
    for before, after, both in zip(passed, rest, states, strict=True):
        torch.testing.assert_close(torch.cat([before, after], 1), both, **EXACT)


@every_backbone
def test_the_initial_state_is_the_default(build):
    backbone, x = double(build, 2, 4), inputs(3, 5, 2)
    for a, b in zip(backbone(x), backbone(x, backbone.initial((3,), x)), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@every_backbone
@pytest.mark.parametrize("poison", [1e9, torch.nan])
def test_the_future_is_never_read(build, poison):
    backbone, x = double(build, 2, 4, layers=2), inputs(3, 9, 2)
    poisoned = x.clone()
    poisoned[:, 5:] = poison
    out, states = backbone(x)
    found, found_states = backbone(poisoned)
    assert torch.equal(found[:, :5], out[:, :5])
    assert all(torch.equal(a[:, :5], b[:, :5]) for a, b in zip(states, found_states, strict=True))
    assert not torch.equal(found[:, 5], out[:, 5])


@every_backbone
def test_the_past_is_read(build):
    backbone, x = double(build, 2, 4, layers=2), inputs(3, 9, 2).requires_grad_()
    (backbone(x)[0][:, -1] * inputs(3, 4, seed=5)).sum().backward()
    assert x.grad.abs().amin() > 0


@every_backbone
def test_permuting_series_permutes_results(build):
    backbone, x = double(build, 2, 4, layers=2), inputs(5, 6, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(backbone(x[order])[0], backbone(x)[0][order], **EXACT)


@every_backbone
def test_samples_of_states_share_one_input(build):
    backbone, x = double(build, 2, 4), inputs(3, 6, 2)
    start = random_state(backbone, 5, 3)
    out, states = backbone(x, start)
    assert out.shape == (*states[0].shape[:-1], 4) == (5, 3, 6, 4)
    torch.testing.assert_close(out, backbone(x.expand(5, 3, 6, 2), start)[0], **EXACT)
    step, _ = backbone.step(x[:, 0], start)
    torch.testing.assert_close(step, out[..., 0, :], **EXACT)


@every_backbone
@pytest.mark.parametrize("lead", [(3,), (2, 3), (0,)])
def test_no_steps_no_series_no_inputs(build, lead):
    backbone = build(0, 4)
    start = backbone.initial(lead, torch.zeros(()))
    for steps in (0, 5):
        out, states = backbone(torch.zeros(*lead, steps, 0), start)
        assert out.shape == (*lead, steps, 4)
        assert all(h.shape[:-1] == (*lead, steps) for h in states)
    step, state = backbone.step(torch.zeros(*lead, 0), start)
    assert step.shape == (*lead, 4)
    assert [h.shape for h in state] == [h.shape for h in start]


@every_backbone
@pytest.mark.parametrize("hidden_dim", [1, 3, 4])
def test_any_width(build, hidden_dim):
    backbone = build(2, hidden_dim)
    out, states = backbone(torch.ones(3, 5, 2))
    start = backbone.initial((3, 5), out)
    assert out.shape == (3, 5, hidden_dim)
    assert [h.shape for h in states] == [h.shape for h in start]


@every_backbone
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_input(build, dtype):
    backbone, x = build(2, 4).to(dtype), torch.ones(3, 5, 2, dtype=dtype)
    out, states = backbone(x)
    assert {out.dtype, *(h.dtype for h in states)} == {dtype}
    assert all(h.dtype == dtype for h in backbone.initial((3,), x))


@every_backbone
def test_single_precision_is_close_to_double(build):
    backbone, x = double(build, 2, 8), inputs(3, 50, 2)
    wanted = backbone(x)[0].float()
    torch.testing.assert_close(backbone.float()(x.float())[0], wanted, rtol=1e-4, atol=1e-5)


@every_backbone
def test_gradients(build):
    backbone = double(build, 2, 3, layers=1)
    names, values = zip(*backbone.named_parameters(), strict=True)

    def run(x, h, *values):
        out, _ = functional_call(backbone, dict(zip(names, values, strict=True)), (x, (h,)))
        return out

    (h,) = random_state(backbone, 2)
    leaves = [v.detach().requires_grad_() for v in (inputs(2, 3, 2), h, *values)]
    assert gradcheck(run, leaves, fast_mode=True)


@every_backbone
def test_every_parameter_gets_a_gradient(build):
    backbone = build(2, 4, layers=2)
    out, _ = backbone(torch.randn(3, 6, 2))
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


@every_backbone
def test_copies_and_saved_weights(build):
    backbone, x = build(2, 4), torch.ones(3, 5, 2)
    wanted = backbone(x)[0]
    assert torch.equal(copy.deepcopy(backbone)(x)[0], wanted)
    file = io.BytesIO()
    torch.save(backbone.state_dict(), file)
    file.seek(0)
    other = build(2, 4)
    assert not torch.equal(other(x)[0], wanted)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x)[0], wanted)


@every_backbone
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2), "in_dim to be an integer of at least 0, found -1"),
        ((1, 0), "hidden_dim to be an integer of at least 1, found 0"),
        ((1, 2, 0), "layers to be an integer of at least 1, found 0"),
    ],
)
def test_backbones_of_no_size(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(*arguments)


def test_feedforward_reads_each_step_by_itself():
    backbone, x = double(Feedforward, 2, 4), inputs(3, 5, 2)
    out, states = backbone(x)
    assert out.shape == (3, 5, backbone.out_dim)
    assert states == backbone.initial((3,), x) == ()
    torch.testing.assert_close(backbone.step(x[:, 2], ())[0], out[:, 2], **EXACT)


def test_gru_is_the_gru_of_torch():
    backbone, x = GRU(2, 4, layers=2), torch.randn(3, 5, 2)
    oracle = nn.GRU(2, 4, num_layers=2, batch_first=True)
    for i, layer in enumerate(backbone.layers):
        for name, value in layer.named_parameters():
            oracle.get_parameter(name.replace("l0", f"l{i}")).data.copy_(value)
    out, states = backbone(x)
    wanted, last = oracle(x)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(torch.stack([h[:, -1] for h in states]), last)


def test_mingru_state_is_a_running_average():
    """Convex weights of the past and the candidate: the state never leaves the range of both."""
    cell = double(MinGRU, 2, 6).stack.blocks[0].cell
    x = 10 * inputs(4, 6)
    a, b = cell.coefficients(x)
    candidate = nn.functional.linear(x, cell.weight, cell.bias)[:, :6]
    assert ((a > 0) & (a < 1)).all()
    torch.testing.assert_close(b, (1 - a) * candidate, **EXACT)


def test_mingru_starts_with_memories_of_2_to_100_steps():
    cell = MinGRU(1, 5).stack.blocks[0].cell
    a, _ = cell.coefficients(torch.zeros(5))
    memory = 1 / (1 - a)
    torch.testing.assert_close(memory[[0, -1]], torch.tensor([2.0, 100.0]), rtol=1e-3, atol=0)


def test_lru_decays():
    cell = LRU(1, 64).stack.blocks[0].cell
    a, _ = cell.coefficients(torch.zeros(64))
    assert a.shape == (32,)
    assert ((a.abs() >= 0.499) & (a.abs() < 1)).all()


def test_lru_keeps_the_variance_of_white_noise():
    cell = double(LRU, 1, 8).stack.blocks[0].cell
    a, b = cell.coefficients(inputs(1, 8))
    plain = torch.view_as_complex(cell.project(inputs(1, 8)).unflatten(-1, (-1, 2)))
    torch.testing.assert_close(
        (b / plain).real.square() / (1 - a.abs() ** 2), torch.ones_like(b.real)
    )


# --- drawing parameters -------------------------------------------------------------------------


class Scaled(nn.Module):
    """A module with a parameter of its own that says how to draw it."""

    def __init__(self):
        super().__init__()
        self.net = MLP(2, [3], 1)
        self.scale = nn.Parameter(torch.ones(3))

    def reset_parameters(self, generator=None):
        with torch.no_grad():
            self.scale.copy_(torch.rand(3, generator=generator))


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1, 1)
        self.inner = nn.ModuleDict({"odd": nn.PReLU()})


def everything():
    return nn.ModuleList(
        [
            MLP(3, [4], 2),
            MLP(0, [4], 2),
            MinGRU(2, 4),
            LRU(2, 4),
            GRU(2, 4, layers=2),
            nn.Linear(3, 2),
            nn.Linear(3, 2, bias=False),
            nn.Embedding(5, 3, padding_idx=1),
            nn.LSTM(2, 3),
            nn.LayerNorm(3),
            nn.RMSNorm(3),
            Scaled(),
        ]
    )


def test_equal_seeds_give_equal_bits():
    a, b, c = everything(), everything(), everything()
    for module, seed in ((a, 7), (b, 7), (c, 8)):
        reinitialise(module, torch.Generator().manual_seed(seed))
    pairs = [dict(m.named_parameters()) for m in (a, b, c)]
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    different = [not torch.equal(pairs[0][name], pairs[2][name]) for name in pairs[0]]
    assert sum(different) > 0.6 * len(different)  # all but the norms and the gates' start


def test_the_global_generator_is_left_alone():
    module, before = everything(), torch.get_rng_state()
    reinitialise(module, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    reinitialise(module)
    assert not torch.equal(torch.get_rng_state(), before)


def test_trained_weights_are_forgotten():
    module = everything()
    for p in module.parameters():
        p.data.fill_(1e6)
    reinitialise(module, torch.Generator().manual_seed(0))
    assert all((p.abs() < 10).all() for p in module.parameters())
    assert not module[7].weight[1].any()  # the padding index
    assert all(p.requires_grad and p.is_leaf for p in module.parameters())


def test_the_distribution_is_that_of_construction():
    linear, gru = nn.Linear(400, 300), nn.GRU(50, 100)
    for module, bound in ((linear, 400**-0.5), (gru, 0.1)):
        before = [p.std().item() for p in module.parameters()]
        reinitialise(module, torch.Generator().manual_seed(0))
        for p, std in zip(module.parameters(), before, strict=True):
            assert p.abs().max() <= bound
            assert math.isclose(p.std().item(), std, rel_tol=0.15)


def test_parameters_that_nobody_knows_how_to_draw():
    module = Silent()
    weight = module.first.weight.clone()
    with pytest.raises(
        TypeError, match=r"reset_parameters\(generator\), found PReLU at 'inner\.odd'"
    ):
        reinitialise(module, torch.Generator())
    assert torch.equal(module.first.weight, weight)
