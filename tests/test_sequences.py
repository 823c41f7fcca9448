"""The batch object: what it refuses, what it derives, how it is cut and put together."""

import copy
import math

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.sequences import Context, Sequences
from seqlatent.sequences.validation import (
    checked_cells,
    checked_codes,
    checked_per_series,
    checked_times,
    require_float,
    require_horizon,
)

NAN, INF = math.nan, math.inf


def y(*values):
    return torch.tensor(values, dtype=F64).reshape(1, -1, 1)


# --- building ------------------------------------------------------------------------------------


def test_nan_becomes_a_missing_cell_of_value_zero():
    s = Sequences.of(y(1.0, NAN, 3.0))
    assert s.observed.flatten().tolist() == [True, False, True]
    assert s.y.flatten().tolist() == [1.0, 0.0, 3.0]


def test_values_that_are_not_observed_become_zero():
    observed = torch.tensor([True, False, False]).reshape(1, 3, 1)
    s = Sequences.of(y(1.0, 2.0, NAN), observed=observed)
    assert s.y.flatten().tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(s.observed, observed)


def test_defaults_are_widths_of_zero_unit_gaps_and_unit_scales():
    s = Sequences.of(torch.zeros(2, 3, 4, dtype=F64))
    assert (s.batch, s.steps, s.obs_dim, s.covariate_dim) == (2, 3, 4, 0)
    assert s.u.shape == (2, 3, 0)
    assert s.codes.shape == (2, 0)
    assert s.codes.dtype == torch.long
    assert torch.equal(s.t, torch.arange(3.0, dtype=F64).expand(2, 3))
    assert torch.equal(s.shift, torch.zeros(2, 4, dtype=F64))
    assert torch.equal(s.scale, torch.ones(2, 4, dtype=F64))
    assert s.regular
    assert s.complete


def test_fields_take_the_dtype_of_y():
    s = Sequences.of(
        torch.zeros(1, 2, 1, dtype=F64),
        t=torch.tensor([3, 5]),
        u=torch.zeros(1, 2, 1),
        shift=torch.zeros(1, 1),
        scale=torch.ones(1, 1),
        codes=torch.tensor([[2]], dtype=torch.int32),
    )
    assert {x.dtype for x in (s.y, s.t, s.u, s.shift, s.scale)} == {F64}
    assert s.codes.dtype == torch.long


def test_large_integer_times_keep_their_order_in_the_dtype_of_y():
    start = 1_700_000_000
    s = Sequences.of(torch.zeros(1, 3, 1, dtype=F64), t=start + torch.arange(3))
    assert s.dt.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gaps_do_not_depend_on_where_times_are_counted_from(dtype):
    t = torch.tensor([0.0, 1.0, 2.25, 2.25 + 2**-20], dtype=F64)
    s = Sequences.of(torch.zeros(1, 4, 1, dtype=dtype), t=t)
    far = Sequences.of(torch.zeros(1, 4, 1, dtype=dtype), t=1.7e9 + t)
    assert far.t.dtype == F64
    assert far.dt.dtype == dtype
    assert torch.equal(far.dt, s.dt)
    assert torch.equal(far.extend(2).dt, s.extend(2).dt)


def test_times_that_float64_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match=r"float64 rounds them .*later origin"):
        Sequences.of(torch.zeros(1, 3, 1), t=2**60 + torch.arange(3))


BAD = {
    "one axis": ({"y": torch.zeros(3)}, r"\(B, T, D\).*found \(3,\); use y\[None, :, None\]"),
    "two axes": ({"y": torch.zeros(3, 2)}, r"must have shape \(B, T, D\).*found \(3, 2\)\."),
    "no series": ({"y": torch.zeros(0, 2, 1)}, r"at least one series.*\(0, 2, 1\)"),
    "no dimension": ({"y": torch.zeros(1, 2, 0)}, r"one dimension.*\(1, 2, 0\)"),
    "no step": ({"y": torch.zeros(1, 0, 1)}, r"one step and one dim.*\(1, 0, 1\)"),
    "infinite": ({"y": y(0.0, -INF)}, r"found -inf at series 0, step 1, dimension 0.*NaN"),
    "observed shape": (
        {"y": y(0.0, 1.0), "observed": torch.ones(1, 2, 2, dtype=torch.bool)},
        r"observed must have shape \(B, T, D\) = \(1, 2, 1\), found \(1, 2, 2\)",
    ),
    "observed NaN": (
        {"y": y(0.0, NAN), "observed": torch.ones(1, 2, 1, dtype=torch.bool)},
        r"y is NaN at series 0, step 1, dimension 0",
    ),
    "u shape": ({"y": y(0.0, 1.0), "u": torch.zeros(1, 3, 2)}, r"u must .* = \(1, 2, any\)"),
    "u NaN": (
        {"y": y(0.0, 1.0), "u": torch.tensor([[[0.0], [NAN]]])},
        r"u must be finite, found nan at series 0, step 1, column 0",
    ),
    "t shape": ({"y": y(0.0, 1.0), "t": torch.zeros(3)}, r"t must have shape \(B, T\) or \(T,\)"),
    "t NaN": ({"y": y(0.0, 1.0), "t": torch.tensor([0.0, NAN])}, r"t must be finite, found nan"),
    "t back": (
        {"y": y(0.0, 1.0, 2.0), "t": torch.tensor([0.0, 2.0, 2.0])},
        r"series 0 goes from 2 at step 1 to 2 at step 2; sort the rows",
    ),
    "codes shape": ({"y": y(0.0), "codes": torch.tensor([1])}, r"codes .* = \(1, any\)"),
    "codes negative": ({"y": y(0.0), "codes": torch.tensor([[-1]])}, r"0 or larger, found -1"),
    "shift shape": ({"y": y(0.0), "shift": torch.zeros(1)}, r"shift .*\(B, D\) = \(1, 1\)"),
    "shift NaN": ({"y": y(0.0), "shift": torch.tensor([[NAN]])}, r"shift must be finite"),
    "scale zero": (
        {"y": y(0.0), "scale": torch.zeros(1, 1)},
        r"scale must be positive, found 0 at series 0, dimension 0; use 1",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_wrong_values_are_refused_with_a_remedy(arguments, message):
    arguments = dict(arguments)
    with pytest.raises(ValueError, match=message):
        Sequences.of(arguments.pop("y"), **arguments)


def test_wrong_types_are_refused_with_a_remedy():
    one = torch.zeros(1, 2, 1)
    with pytest.raises(TypeError, match=r"y must be a floating tensor, found torch.int64; use y"):
        Sequences.of(one.long())
    with pytest.raises(TypeError, match=r"u must be a floating tensor"):
        Sequences.of(one, u=one.long())
    with pytest.raises(TypeError, match=r"observed must be a bool tensor, found torch.float32"):
        Sequences.of(one, observed=one)
    for codes in (torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)):
        with pytest.raises(TypeError, match=r"codes must be an integer tensor"):
            Sequences.of(one, codes=codes)


def test_what_is_no_tensor_is_refused_with_a_remedy():
    # Called directly: in these tests the run-time type checks would speak first.
    with pytest.raises(TypeError, match=r"y must be a torch.Tensor, found list; use torch.as_"):
        require_float("y", [1.0])
    with pytest.raises(TypeError, match=r"t must be a torch.Tensor, found list"):
        checked_times([0.0], 1, 1, torch.device("cpu"))
    with pytest.raises(TypeError, match=r"scale must be a torch.Tensor, found float"):
        checked_per_series("scale", 1.0, 1, 1, torch.zeros(1, 1))
    with pytest.raises(TypeError, match=r"codes must be an integer tensor, found list"):
        checked_codes([[1]], 1)
    with pytest.raises(TypeError, match=r"observed must be a bool tensor, found list"):
        getattr(checked_cells, "__wrapped__", checked_cells)(torch.zeros(1, 1, 1), [True])
    for wrong in (2.0, True, "2"):
        with pytest.raises(TypeError, match=r"horizon must be an int"):
            require_horizon(wrong)


# --- what it derives -----------------------------------------------------------------------------


def test_dt_is_the_gap_before_a_step_and_one_at_first():
    t = torch.tensor([[0.0, 1.0, 4.0], [2.0, 2.5, 3.0]], dtype=F64)
    s = Sequences.of(torch.zeros(2, 3, 1, dtype=F64), t=t)
    assert s.dt.tolist() == [[1.0, 1.0, 3.0], [1.0, 0.5, 0.5]]
    assert not s.regular
    assert Sequences.of(torch.zeros(1, 3, 1), t=torch.tensor([5.0, 6.0, 7.0])).regular


def test_last_is_the_last_step_with_any_observed_cell():
    values = torch.full((4, 3, 2), NAN, dtype=F64)
    values[0, 2, 1] = values[1, 0, 0] = values[2, 1] = 1.0
    assert Sequences.of(values).last.tolist() == [2, 0, 1, -1]


def test_normalised_is_standardised_where_observed_and_zero_elsewhere():
    s = Sequences.of(
        torch.tensor([[[3.0], [NAN]], [[5.0], [7.0]]], dtype=F64),
        shift=torch.tensor([[1.0], [5.0]], dtype=F64),
        scale=torch.tensor([[4.0], [2.0]], dtype=F64),
    )
    assert s.normalised.flatten().tolist() == [0.5, 0.0, 0.0, 1.0]


def test_what_was_derived_without_gradients_does_not_spoil_training():
    s = series()
    with torch.inference_mode():
        assert s.normalised.is_inference()
        assert s.dt.is_inference()
    weight = torch.ones((), dtype=F64, requires_grad=True)
    (weight * s.normalised * s.dt[..., None]).sum().backward()
    assert weight.grad is not None


def test_gradients_of_the_values_can_be_taken_twice():
    s = series(missing=0.0)
    y = s.y.clone().requires_grad_()
    s = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    for _ in range(2):
        (grad,) = torch.autograd.grad(s.normalised.sum(), y)
        assert torch.equal(grad, torch.ones_like(y))


def test_repr_tells_sizes_and_share_observed():
    s = Sequences.of(y(1.0, NAN, 3.0, 4.0))
    assert repr(s) == (
        "Sequences(batch=1, steps=4, obs_dim=1, covariate_dim=0, observed=75.0%, regular=True)"
    )


def test_copies_are_independent():
    s = series()
    twin = copy.deepcopy(s)
    twin.y.zero_()
    assert not torch.equal(s.y, twin.y)
    assert torch.equal(s.t, twin.t)


# --- cutting and joining -------------------------------------------------------------------------


def test_extend_appends_unobserved_steps():
    s = series(steps=4, covariate_dim=2, t=torch.tensor([0.0, 1.0, 3.0, 3.5], dtype=F64))
    longer = s.extend(3)
    assert longer.steps == 7
    assert not longer.observed[:, 4:].any()
    assert torch.equal(longer.y[:, 4:], torch.zeros(2, 3, 1, dtype=F64))
    assert torch.equal(longer.u[:, 4:], torch.zeros(2, 3, 2, dtype=F64))
    assert longer.t[0].tolist() == [0.0, 1.0, 3.0, 3.5, 4.5, 5.5, 6.5]
    assert torch.equal(longer.last, s.last)
    assert torch.equal(longer.dt[:, :4], s.dt)


def test_extend_takes_covariates_and_times():
    s = series(steps=2, covariate_dim=1)
    u = normal(2, 2, 1, seed=9)
    t = torch.tensor([5.0, 7.0], dtype=F64)
    longer = s.extend(2, u=u, t=t)
    assert torch.equal(longer.u[:, 2:], u)
    assert longer.t[1].tolist() == [0.0, 1.0, 5.0, 7.0]


def test_extend_refuses_what_does_not_fit():
    s = series(steps=2, covariate_dim=1)
    with pytest.raises(ValueError, match=r"horizon must be at least 1 step, found 0"):
        s.extend(0)
    with pytest.raises(ValueError, match=r"u must have shape \(B, H, U\) = \(2, 3, 1\)"):
        s.extend(3, u=torch.zeros(2, 2, 1, dtype=F64))
    with pytest.raises(ValueError, match=r"u must be finite, found nan"):
        s.extend(1, u=torch.full((2, 1, 1), NAN, dtype=F64))
    with pytest.raises(ValueError, match=r"series 0 ends at t=1 and is extended from t=1"):
        s.extend(2, t=torch.tensor([1.0, 2.0], dtype=F64))
    with pytest.raises(ValueError, match=r"t must have shape"):
        s.extend(2, t=torch.tensor([2.0], dtype=F64))


def test_collate_pads_with_an_unobserved_tail():
    short, long = series(1, 3, seed=1, missing=0.0), series(2, 5, seed=2, missing=0.0)
    s = Sequences.collate([short, long])
    assert (s.batch, s.steps) == (3, 5)
    assert s.observed[0].flatten().tolist() == [True, True, True, False, False]
    assert torch.equal(s.y[0, :3], short.y[0])
    assert torch.equal(s.y[1:], long.y)
    assert s.last.tolist() == [2, 4, 4]
    assert s.regular


def test_collate_refuses_what_differs_in_width():
    with pytest.raises(ValueError, match=r"at least one Sequences"):
        Sequences.collate([])
    with pytest.raises(ValueError, match=r"agree in obs_dim: item 0 has 1, item 1 has 2"):
        Sequences.collate([series(), series(obs_dim=2)])
    with pytest.raises(ValueError, match=r"agree in covariate_dim: item 0 has 0, item 1 has 3"):
        Sequences.collate([series(), series(covariate_dim=3)])
    with pytest.raises(ValueError, match=r"static codes: item 0 has 0, item 1 has 1"):
        Sequences.collate([series(), series(codes=torch.ones(2, 1, dtype=torch.long))])


def test_select_picks_series():
    s = series(3, 4, covariate_dim=1, codes=torch.arange(3)[:, None], t=gaps(3, 4))
    s.dt, s.last  # noqa: B018 (what was derived for three series must not be kept for fewer)
    for index in (torch.tensor([2, 0]), slice(1, 3), torch.tensor([True, False, True])):
        part = s.select(index)
        for name in ("y", "observed", "t", "u", "codes", "shift", "scale", "dt", "last"):
            assert torch.equal(getattr(part, name), getattr(s, name)[index]), name


def test_window_cuts_steps_and_starts_with_a_unit_gap():
    s = series(2, 6, t=gaps(2, 6), covariate_dim=1)
    s.dt, s.normalised  # noqa: B018
    part = s.window(2, 5)
    assert torch.equal(part.y, s.y[:, 2:5])
    assert torch.equal(part.u, s.u[:, 2:5])
    assert torch.equal(part.dt[:, 1:], s.dt[:, 3:5])
    assert torch.equal(part.dt[:, 0], torch.ones(2, dtype=F64))
    for wrong in ((-1, 2), (3, 3), (4, 7)):
        with pytest.raises(ValueError, match=r"0 <= start < stop <= 6, found"):
            s.window(*wrong)


def test_hide_marks_cells_as_missing():
    s = series(missing=0.0)
    s.last, s.complete, s.normalised  # noqa: B018
    hidden = torch.zeros_like(s.observed)
    hidden[:, 3:] = True
    part = s.hide(hidden)
    assert part.last.tolist() == [2, 2]
    assert not part.complete
    assert torch.equal(part.y[:, 3:], torch.zeros_like(part.y[:, 3:]))
    assert torch.equal(part.y[:, :3], s.y[:, :3])


def test_to_casts_floating_fields_only():
    s = series(codes=torch.ones(2, 1, dtype=torch.long)).to(dtype=torch.float32)
    assert {x.dtype for x in (s.y, s.u, s.shift, s.scale, s.dt)} == {torch.float32}
    assert s.t.dtype == F64
    assert s.codes.dtype == torch.long
    assert s.observed.dtype == torch.bool


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_collate_then_cut_gives_each_part_back(lengths):
    parts = [series(1, n, seed=n + 10 * i, obs_dim=2) for i, n in enumerate(lengths)]
    whole = Sequences.collate(parts)
    for i, part in enumerate(parts):
        again = whole.select(slice(i, i + 1)).window(0, part.steps)
        assert torch.equal(again.y, part.y)
        assert torch.equal(again.observed, part.observed)
        assert torch.equal(again.t, part.t)


# --- context -------------------------------------------------------------------------------------


def context():
    s = series(3, 4, obs_dim=2, covariate_dim=2, codes=torch.arange(3)[:, None], t=gaps(3, 4))
    return s, Context.of(s, normal(3, 4, 5, seed=7))


def test_context_holds_every_step():
    s, c = context()
    assert c.shape == (3, 4)
    assert torch.equal(c.u, s.u)
    assert torch.equal(c.dt, s.dt[..., None])
    assert torch.equal(c.codes[:, 2], s.codes)
    assert torch.equal(c.shift[:, 1], s.shift)
    assert torch.equal(c.scale[:, 3], s.scale)
    assert c.e.shape == (3, 4, 0)
    assert bool(c.informed.all())


def test_context_indexes_steps_and_ranges():
    _, c = context()
    step, after = c[2], c[1:]
    assert step.shape == (3,)
    assert after.shape == (3, 3)
    assert torch.equal(step.m, c.m[:, 2])
    assert torch.equal(after.dt, c.dt[:, 1:])
    assert torch.equal(c[-1].u, c.u[:, -1])


def test_unbind_gives_the_same_steps():
    _, c = context()
    steps = c.unbind()
    assert len(steps) == 4
    for t, step in enumerate(steps):
        for name in ("u", "dt", "codes", "shift", "scale", "m", "e", "informed"):
            assert torch.equal(getattr(step, name), getattr(c[t], name))


def test_replace_and_detach_leave_the_original_alone():
    _, c = context()
    m = normal(3, 4, 1).requires_grad_()
    other = c.replace(m=m)
    assert c.m.shape[-1] == 5
    assert other.m is m
    assert other.detach().m.requires_grad is False
    assert other.u is c.u


def test_features_expand_over_samples_and_skip_empty_parts():
    _, c = context()
    z = normal(7, 3, 4, 2)
    x = c.features(z)
    assert x.shape == (7, 3, 4, 2 + 5 + 2)
    close(x[3], torch.cat([z[3], c.m, c.u], -1))
    empty = c.replace(m=c.m[..., :0], u=c.u[..., :0])
    assert empty.features(z) is not None
    close(empty.features(z), z)
    assert empty.features(z[..., :0]).shape == (7, 3, 4, 0)
    # with no state at all the samples are still there
    assert c.features(z[..., :0]).shape[-1] == 7


def test_regular_context_holds_what_it_is_given():
    c = Context.regular(3, 5, m=torch.zeros(3, 5, 2), obs_dim=2)
    assert (c.m.shape, c.scale.shape, c[0].shift.shape) == ((3, 5, 2), (3, 5, 2), (3, 2))
    assert Context.regular(3, dtype=F64).dt.dtype == F64
    assert Context.regular(3).dt.shape == (3, 1)
    with pytest.raises(ValueError, match=r"has the fields u, dt.*; found x"):
        Context.regular(3, x=torch.zeros(3, 1))


def test_regular_context_follows_the_default_dtype_of_the_moment():
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    try:
        assert Context.regular(2).dt.dtype == F64
    finally:
        torch.set_default_dtype(before)


def test_seeded_noise_of_these_tests_is_private():
    before = torch.get_rng_state()
    torch.rand(3, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_a_context_without_memory_is_built_once_for_a_batch_and_its_first_step_is_the_first():
    s = Sequences.of(torch.randn(2, 4, 1), u=torch.randn(2, 4, 3))
    c = Context.of(s, s.y[..., :0])
    assert Context.of(s, s.y[..., :0]) is c
    assert Context.of(s, s.y) is not c
    for name in ("u", "dt", "codes", "shift", "scale", "m", "e", "informed"):
        torch.testing.assert_close(getattr(c.first, name), getattr(c[0], name))
    assert c.first is c.first
    assert c.even
    uneven = Sequences.of(torch.randn(2, 4, 1), t=torch.tensor([0.0, 1.0, 3.0, 4.0]))
    assert not Context.of(uneven, uneven.y[..., :0]).even
    assert not c.replace(dt=2 * c.dt).even


def test_a_context_that_is_part_of_a_graph_is_built_anew():
    y, t = torch.randn(2, 4, 1), torch.arange(4.0, dtype=torch.float64).requires_grad_()
    live = Sequences.of(y, t=t)
    assert Context.of(live, y[..., :0]) is not Context.of(live, y[..., :0])
    u = torch.randn(2, 4, 3, requires_grad=True)
    c = Context.of(Sequences.of(y, u=u), y[..., :0])
    with torch.no_grad():
        assert c.first.u.shape == (2, 3)
    (found,) = torch.autograd.grad(c.first.u.sum(), u)
    assert found.sum() == 6


def test_log_units_are_the_logarithms_of_the_scales_of_observed_cells():
    y = torch.tensor([[[1.0, 2.0], [torch.nan, 3.0]], [[torch.nan, torch.nan], [4.0, torch.nan]]])
    s = Sequences.of(y, scale=torch.tensor([[2.0, 3.0], [4.0, 5.0]]))
    expected = torch.tensor([2.0 * 3 * 3, 4.0]).log()
    torch.testing.assert_close(s.log_units, expected)
