"""Every gradient that is written by hand: right at random shapes, and twice right or refused."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch
from torch.autograd import gradgradcheck
from torch.func import functional_call

import seqlatent
from seqlatent import hmm
from seqlatent.chain.paths import sample_path
from seqlatent.derivatives import first_order, once
from seqlatent.distributions import kl_per_dim
from seqlatent.distributions.bounded import log_student_cdf
from seqlatent.distributions.normals import diagonal_normal
from seqlatent.inference.amortised.combiner import CarriedSampler, CombinerSampler
from seqlatent.inference.amortised.tilted import TiltedSampler
from seqlatent.linalg import factor
from seqlatent.networks.gated import gated_path
from seqlatent.objectives import evidence
from seqlatent.recurrence import affine_recurrence, linear_recurrence_loop, linear_recurrence_scan
from seqlatent.sequences import Context, Sequences
from seqlatent.transitions import Gated
from seqlatent.transitions.steps import CarriedSteps, GatedSteps
from seqlatent.zoo import count_structural

SEEDS = range(3)


class Draws:
    """Random sizes and leaves, of any axis of length one or not there where it may broadcast."""

    def __init__(self, seed):
        self.rng = torch.Generator().manual_seed(seed)

    def size(self, low=1, high=3):
        return int(torch.randint(low, high + 1, (), generator=self.rng))

    def coin(self):
        return bool(self.size(0, 1))

    def leaf(self, *shape, low=None):
        x = torch.randn(shape, generator=self.rng, dtype=torch.float64)
        return (x if low is None else low + x.abs()).requires_grad_()

    def shared(self, *shape, keep=1, low=None):
        """A leaf that broadcasts along some of the axes, but for the last ``keep``."""
        lead = [1 if self.coin() else n for n in shape[: len(shape) - keep]]
        cut = self.size(0, len(lead))
        return self.leaf(*lead[cut:], *shape[len(shape) - keep :], low=low)


def recurrence(draws, way):
    S, B, T, K = draws.size(), draws.size(), draws.size(1, 4), draws.size()
    a, b = draws.shared(S, B, T, K), draws.leaf(S, B, T, K)
    start = [draws.shared(S, B, K)] if draws.coin() else []
    reverse = draws.coin()
    return lambda *inputs: way(*inputs, reverse=reverse), [a, b, *start]


def matrices(draws):
    S, B, T, K = draws.size(), draws.size(), draws.size(1, 4), draws.size(1, 2)
    F, b = draws.shared(S, B, T, K, K, keep=2), draws.leaf(S, B, T, K)
    start = [draws.shared(S, B, K)] if draws.coin() else []
    reverse = draws.coin()
    return lambda *inputs: affine_recurrence(*inputs, reverse=reverse), [F, b, *start]


def divergence(draws):
    shape = draws.size(), draws.size(), draws.size()
    whole = [draws.leaf(*shape), draws.leaf(*shape, low=0.5)]
    some = [draws.shared(*shape), draws.shared(*shape, low=0.5)]

    def run(*inputs):
        q, p = diagonal_normal(*inputs[:2]), diagonal_normal(*inputs[2:])
        return kl_per_dim(q, p)

    return run, whole + some if draws.coin() else some + whole


def student_tail(draws):
    shape = draws.size(), draws.size()
    return log_student_cdf, [draws.leaf(*shape, low=2.0), draws.leaf(*shape)]


def square_root(draws):
    B, K = draws.size(), draws.size()
    weight = draws.leaf(B, K, K).detach()

    def run(x):
        P = x @ x.mT + 0.5 * torch.eye(K, dtype=x.dtype)
        # a factor is known up to a rotation: only what G G^T says is a function
        G = factor(P)
        return weight * (G @ G.mT)

    return run, [draws.leaf(B, K, K)]


def hidden_markov(draws, scan, values):
    S, B, T, M = draws.size(), draws.size(), draws.size(1, 4), draws.size()
    steps = [1, T][draws.coin()]
    first, ll = draws.shared(S, B, M), draws.leaf(S, B, T, M)
    move = draws.shared(S, B, steps, M, M, keep=3) if draws.coin() else draws.leaf(M, M)

    def run(first, move, ll):
        inputs = first.log_softmax(-1), move.log_softmax(-1), ll
        if not values:
            return hmm.log_evidence(*inputs)
        found = (hmm.filter_scan if scan else hmm.filter)(*inputs)
        return tuple(x.exp() for x in found[:2]) + tuple(found[2:])

    return run, [first, move, ll]


def units(draws):
    B, T, K, H = (draws.size() for _ in range(4))
    layer = torch.nn.GRU(K, H, batch_first=True).double()
    names = [name for name, _ in layer.named_parameters()]
    own = [draws.leaf(*p.shape) for p in layer.parameters()]

    class Layer(torch.nn.Module):
        def __init__(self, parameters):
            super().__init__()
            self.own = dict(zip(names, parameters, strict=True))

        def named_parameters(self):
            return self.own.items()

        def forward(self, *inputs):  # without a gradient the loop is torch's own
            return functional_call(layer, self.own, inputs)

    def run(x, start, *parameters):
        return gated_path(Layer(parameters), x, start)

    return run, [draws.leaf(B, T, K), draws.leaf(1, B, H), *own]


def gated_steps(draws, T, N, K):
    H = draws.size()
    known = draws.leaf(H) if draws.coin() else draws.leaf(T, N, H)
    return [known, draws.leaf(H, K), draws.leaf(3 * K, H), draws.leaf(3 * K), draws.leaf(K)]


def walk(draws, kind):
    T, N, K, H = draws.size(), draws.size(), draws.size(), draws.size()
    eps, width = draws.leaf(T, N, K).detach(), K
    if kind == "tilted":
        inputs = [draws.leaf(T, N, K), draws.leaf(T, N, K, low=0.2), *gated_steps(draws, T, N, K)]
    else:
        read = M = draws.size()
        moves = []
        if kind == "carried":
            known = draws.leaf(3 * M) if draws.coin() else draws.leaf(T, N, 3 * M)
            moves = [known, draws.leaf(4 * M, K + M), draws.leaf(4 * M), draws.leaf(3 * M, M)]
            width = K + M
        else:
            read = K
        own = [draws.leaf(T, N, 2 * K), draws.leaf(H, read), draws.leaf(H), draws.leaf(2 * K, H)]
        inputs = [*moves, *own]

    def run(first, *inputs):
        if kind == "tilted":
            made = TiltedSampler(GatedSteps(*inputs[2:], 1e-3), *inputs[:2])
        elif kind == "combined":
            made = CombinerSampler(*inputs, 1e-3)
        else:
            made = CarriedSampler(CarriedSteps(*inputs[:4]), CombinerSampler(*inputs[4:], 1e-3))
        return made.path(first, eps)

    return run, [draws.leaf(N, width), *inputs]


class Sampled(torch.nn.Module):
    """A path of a kernel, under the same noise each time."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, context):
        return sample_path(self.kernel, context, (), torch.Generator().manual_seed(1))


def recorded_path(draws):
    B, T = draws.size(), draws.size(2, 4)
    transition = Gated(2, hidden_dim=3).double()
    names = [name for name, _ in transition.named_parameters()]
    context = Context.regular(B, T, dtype=torch.float64)

    def run(*parameters):
        state = {f"kernel.{name}": p for name, p in zip(names, parameters, strict=True)}
        return functional_call(Sampled(transition), state, (context,))

    return run, [draws.leaf(*p.shape) for p in transition.parameters()]


# Which function a case is about, and how to draw one: a function of leaves.
CASES = {
    "recurrence._Recurrence": [
        lambda draws: recurrence(draws, linear_recurrence_loop),
        lambda draws: recurrence(draws, linear_recurrence_scan),
        matrices,
    ],
    "recurrence._Adjoint": [],  # the first derivative of the one above
    "distributions.bounded._LogStudentCdf": [student_tail],
    "distributions.divergences._NormalDivergence": [divergence],
    "linalg._Factor": [square_root],
    "hmm.recursion._Messages": [
        lambda draws: hidden_markov(draws, False, False),
        lambda draws: hidden_markov(draws, False, True),
        lambda draws: hidden_markov(draws, True, True),
    ],
    "networks.gated._Gated": [units],
    "fused._Path": [
        lambda draws: walk(draws, "tilted"),
        lambda draws: walk(draws, "combined"),
        lambda draws: walk(draws, "carried"),
    ],
    "chain.paths._Adjoint": [recorded_path],
    "derivatives._Once": [],  # an identity
}
DRAWN = [
    (name, i, seed) for name, cases in CASES.items() for i in range(len(cases)) for seed in SEEDS
]


def functions():
    """Every hand-written derivative in the package, by the dotted name that it has there."""
    for module in pkgutil.walk_packages(seqlatent.__path__, "seqlatent."):
        if module.name.rpartition(".")[2] not in ("__main__", "conftest"):
            importlib.import_module(module.name)
    waiting, found = [torch.autograd.Function], {}
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("seqlatent."):
                found[f"{kind.__module__.removeprefix('seqlatent.')}.{kind.__qualname__}"] = kind
    return found


FUNCTIONS = functions()


def test_every_function_has_a_case():
    # those of the Kalman filter are compared with finite differences where it is tested
    own = {name for name in FUNCTIONS if not name.startswith("kalman.")}
    assert own == set(CASES)


def test_none_is_refused_only_where_the_incoming_gradient_depends_on_something():
    for path in Path(seqlatent.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            alias.name for x in ast.walk(tree) if isinstance(x, ast.ImportFrom) for alias in x.names
        }
        assert "once_differentiable" not in names, (
            f"{path.name} expected seqlatent.derivatives.first_order: torch's once_differentiable "
            "lets second derivatives pass, and leaves terms out, where a sum is differentiated"
        )


@pytest.mark.parametrize(("name", "case", "seed"), DRAWN)
def test_first_derivatives_are_those_of_finite_differences(name, case, seed):
    run, inputs = CASES[name][case](Draws(seed))
    rng = torch.Generator().manual_seed(seed)

    def total(*inputs):
        rng.manual_seed(seed)
        outputs = run(*inputs)
        return sum(
            (torch.randn(x.shape, generator=rng, dtype=x.dtype) * x).sum()
            for x in (outputs if isinstance(outputs, tuple) else (outputs,))
        )

    found = torch.autograd.grad(total(*inputs), inputs, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for x, slope in zip(inputs, found, strict=True):
            expected = torch.empty_like(x)
            for i in range(x.numel()):
                own, step = x.view(-1), x.view(-1)[i].clone()
                own[i] = step + 1e-6
                above = total(*inputs)
                own[i] = step - 1e-6
                expected.view(-1)[i] = (above - total(*inputs)) / 2e-6
                own[i] = step
            torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "case", "seed"), DRAWN)
def test_second_derivatives_are_right_or_refused(name, case, seed):
    run, inputs = CASES[name][case](Draws(seed))
    if not hasattr(FUNCTIONS[name].backward, "first_order"):
        assert gradgradcheck(run, inputs)
        return
    outputs = run(*inputs)
    # the gradient of a sum is constant, which is no reason to pass
    total = sum(x.sum() for x in (outputs if isinstance(outputs, tuple) else (outputs,)))
    with pytest.raises(RuntimeError, match=r"has first derivatives alone, .* second ones; "):
        torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)


def test_a_refusal_says_what_to_do_instead():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @first_order("multiply")
        def backward(ctx, grad):
            return 2 * grad * ctx.saved_tensors[0]

    x = torch.tensor(1.0, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(Square.apply(x.exp()), x)[0], 2 * (2 * x).exp())
    with pytest.raises(RuntimeError, match=r"Square has first .* second ones; multiply\."):
        torch.autograd.grad(Square.apply(x.exp()), x, create_graph=True)
    y = once(x, "this", "do that").exp()
    torch.testing.assert_close(torch.autograd.grad(y, x, retain_graph=True)[0], x.exp())
    with pytest.raises(RuntimeError, match=r"this has first .*; do that\."):
        torch.autograd.grad(y, x, create_graph=True)


def test_a_mode_that_was_iterated_to_has_no_second_derivatives():
    model = count_structural().double()
    data = Sequences.of(torch.tensor([[1.0, 2.0, 4.0, 3.0]], dtype=torch.float64)[..., None])
    leaves = [*model.parameters()]
    with pytest.raises(RuntimeError, match="the mode that Laplace finds has first derivatives"):
        torch.autograd.grad(
            evidence(model, data).sum(), leaves, create_graph=True, allow_unused=True
        )
