"""Recurrences against a loop that autograd records, and the laws they obey."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from seqlatent.recurrence import (
    _same_kind,
    affine_recurrence,
    linear_recurrence,
    linear_recurrence_loop,
    linear_recurrence_scan,
)

WAYS = [linear_recurrence, linear_recurrence_loop, linear_recurrence_scan]
EXACT = {"rtol": 1e-12, "atol": 1e-12}

DIAGONAL = {  # shapes of a, b, initial
    "plain": ((2, 5, 3), (2, 5, 3), (2, 3)),
    "constant": ((3,), (5, 3), None),
    "no sample axis": ((2, 4, 3), (3, 2, 4, 3), (3, 2, 3)),
    "constant per series": ((2, 1, 3), (3, 2, 4, 3), None),
    "inputs constant in time": ((4, 3), (2, 1, 3), (3,)),
    "one step": ((1, 3), (1, 3), (3,)),
    "initial has more axes": ((4, 2), (4, 2), (3, 2)),
    "odd length": ((7, 2), (2, 7, 2), (2,)),
}
MATRIX = {  # shapes of F, b, initial
    "plain": ((2, 4, 3, 3), (2, 4, 3), (2, 3)),
    "constant": ((3, 3), (4, 3), None),
    "shared by series": ((4, 2, 2), (3, 4, 2), (3, 2)),
    "constant per series": ((2, 1, 2, 2), (3, 2, 4, 2), (2, 2)),
    "inputs constant": ((4, 2, 2), (2,), (3, 2)),
    "interleaved": ((2, 1, 2, 4, 2, 2), (3, 2, 4, 2), None),
    "one step": ((2, 2), (1, 2), (2,)),
}


def recorded(step, a, b, initial, reverse):
    """h_t = step(a_t, h_{t-1}) + b_t, one step at a time; a and b are lists over time."""
    h = initial
    path = []
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        h = step(a[t], h) + b[t]
        path.append(h)
    return torch.stack(path[::-1] if reverse else path, dim=-2)


def diagonal(a, b, initial=None, *, reverse=False):
    steps = max(a.shape[-2] if a.dim() > 1 else 1, b.shape[-2])
    a, b = torch.broadcast_tensors(a, b) if a.dim() > 1 else (a.expand(b.shape), b)
    initial = b[..., 0, :] * 0 if initial is None else initial
    a, b = ([x.select(-2, t) for t in range(steps)] for x in (a, b))
    return recorded(torch.mul, a, b, initial, reverse)


def matrix(F, b, initial=None, *, reverse=False):
    lead = torch.broadcast_shapes(F.shape[:-2], b.shape[:-1])
    F, b = F.expand(*lead, *F.shape[-2:]), b.expand(*lead, b.shape[-1])
    initial = b[..., 0, :] * 0 if initial is None else initial
    F = [F.select(-3, t) for t in range(lead[-1])]
    b = [b.select(-2, t) for t in range(lead[-1])]
    return recorded(lambda A, h: (A @ h.unsqueeze(-1)).squeeze(-1), F, b, initial, reverse)


def draw(*shapes, dtype=torch.float64):
    return tuple(torch.randn(s, dtype=dtype).requires_grad_() for s in shapes if s is not None)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("case", DIAGONAL)
@pytest.mark.parametrize("way", WAYS)
def test_diagonal_equals_the_recorded_loop(way, case, reverse):
    inputs = draw(*DIAGONAL[case])
    h, wanted = way(*inputs, reverse=reverse), diagonal(*inputs, reverse=reverse)
    torch.testing.assert_close(h, wanted, **EXACT)
    weight = torch.randn_like(h)
    found, expected = (torch.autograd.grad((weight * x).sum(), inputs) for x in (h, wanted))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("case", MATRIX)
def test_matrices_equal_the_recorded_loop(case, reverse):
    inputs = draw(*MATRIX[case])
    h, wanted = affine_recurrence(*inputs, reverse=reverse), matrix(*inputs, reverse=reverse)
    torch.testing.assert_close(h, wanted, **EXACT)
    weight = torch.randn_like(h)
    found, expected = (torch.autograd.grad((weight * x).sum(), inputs) for x in (h, wanted))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("way", "shapes"),
    [
        (linear_recurrence_loop, ((2, 3, 2), (2, 3, 2), (2, 2))),
        (linear_recurrence_scan, ((3, 2), (2, 3, 2), None)),
        (affine_recurrence, ((3, 2, 2), (2, 3, 2), (2, 2))),
        (affine_recurrence, ((2, 2), (3, 2), None)),
    ],
)
def test_first_and_second_derivatives(way, shapes, reverse, dtype):
    inputs = draw(*shapes, dtype=dtype)

    def run(*inputs):
        return way(*inputs, reverse=reverse)

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 40),
    modulus=st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    reverse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_scan_and_loop_agree_at_any_modulus(steps, modulus, reverse, seed):
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, steps, 2, generator=rng, dtype=torch.float64)
    a = modulus * a.sign() * (a.abs() > 0.3)  # some coefficients are exactly 0
    initial = torch.randn(3, 2, generator=rng, dtype=torch.float64)
    loop, scan = (
        way(a, b, initial, reverse=reverse)
        for way in (linear_recurrence_loop, linear_recurrence_scan)
    )
    scale = loop.abs().max()
    torch.testing.assert_close(loop / scale, scan / scale, **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_two_pieces_equal_the_whole(way):
    a, b, initial = draw((2, 9, 3), (2, 9, 3), (2, 3))
    head = way(a[:, :4], b[:, :4], initial)
    tail = way(a[:, 4:], b[:, 4:], head[:, -1])
    torch.testing.assert_close(torch.cat([head, tail], 1), way(a, b, initial), **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_reverse_is_the_flipped_recurrence(way):
    a, b = draw((2, 5, 3), (2, 5, 3))
    flipped = way(a.flip(-2), b.flip(-2)).flip(-2)
    torch.testing.assert_close(way(a, b, reverse=True), flipped, **EXACT)


def test_diagonal_matrices_equal_the_diagonal():
    a, b, initial = draw((2, 5, 3), (2, 5, 3), (2, 3))
    found = affine_recurrence(torch.diag_embed(a), b, initial)
    torch.testing.assert_close(found, linear_recurrence(a, b, initial), **EXACT)


@pytest.mark.parametrize("initial", [None, torch.ones(4, 3)])
def test_no_steps_give_an_empty_path(initial):
    a, b = draw((4, 0, 3), (4, 0, 3), dtype=torch.float32)
    for way in WAYS:
        assert way(a, b, initial).shape == (4, 0, 3)
        way(a, b, initial).sum().backward()
    assert affine_recurrence(torch.eye(3), b, initial).shape == (4, 0, 3)


def test_no_latents_give_an_empty_path():
    for way in WAYS:
        assert way(torch.zeros(2, 4, 0), torch.zeros(2, 4, 0)).shape == (2, 4, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_dtype_follows_the_inputs(dtype):
    a, b, F = (torch.zeros(s, dtype=dtype) for s in ((3, 2), (3, 2), (2, 2)))
    assert all(way(a, b).dtype == dtype for way in WAYS)
    assert affine_recurrence(F, b).dtype == dtype


def test_only_needed_gradients_are_given():
    a, b = torch.full((3,), 0.5), torch.ones(2, 4, 3, requires_grad=True)
    linear_recurrence(a, b).sum().backward()
    assert a.grad is None
    torch.testing.assert_close(b.grad[0, :, 0], torch.tensor([1.875, 1.75, 1.5, 1.0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_accelerator_agrees():
    inputs = draw((2, 50, 3), (2, 50, 3), (2, 3))
    wanted = linear_recurrence(*inputs)
    found = linear_recurrence(*(x.cuda() for x in inputs)).cpu()
    torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize(
    ("a", "b", "initial", "message"),
    [
        (torch.ones(3), torch.ones(3), None, "time axis"),
        (torch.ones(2, 4, 3), torch.ones(2, 5, 3), None, "do not broadcast"),
        (torch.ones(4, 3), torch.ones(2, 4, 3), torch.ones(5, 3), "do not broadcast"),
        (torch.ones(4, 3), torch.ones(4, 3), torch.tensor(1.0), "initial of shape"),
    ],
)
def test_shapes_that_do_not_fit(a, b, initial, message):
    for way in WAYS:
        with pytest.raises(ValueError, match=message):
            way(a, b, initial)


@pytest.mark.parametrize(
    ("F", "b", "initial", "message"),
    [
        (torch.eye(3), torch.ones(3), None, "time axis"),
        (torch.ones(3), torch.ones(4, 3), None, "time axis"),
        (torch.ones(2, 3), torch.ones(4, 3), None, "square"),
        (torch.eye(3), torch.ones(4, 2), None, "square"),
        (torch.eye(3), torch.ones(4, 3), torch.tensor(0.0), "square"),
        (torch.ones(5, 3, 3), torch.ones(4, 3), None, "do not broadcast"),
        (torch.eye(3), torch.ones(2, 4, 3), torch.ones(5, 3), "do not broadcast"),
    ],
)
def test_matrices_that_do_not_fit(F, b, initial, message):
    with pytest.raises(ValueError, match=message):
        affine_recurrence(F, b, initial)


@pytest.mark.parametrize("way", [*WAYS, affine_recurrence])
def test_other_kinds_of_tensors(way):
    x = torch.eye(3)
    with pytest.raises(TypeError, match=r"one floating or complex dtype .*float64"):
        way(x, x.double())
    with pytest.raises(TypeError, match=r"one floating or complex dtype .*int64"):
        way(x.long(), x.long())


@pytest.mark.parametrize("value", [[1.0], None])
def test_no_tensor_at_all(value):
    # Through the public functions the type checker of the tests would be first to complain.
    with pytest.raises(TypeError, match=rf"Tensor for b, found {type(value).__name__}"):
        _same_kind("linear_recurrence", {"a": torch.ones(1), "b": value, "initial": None})
