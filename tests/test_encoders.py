"""Encoders: what each direction reads, and that padding and neighbours change nothing."""

import pytest
import torch
from batches import close, gaps, normal, series
from small_models import BACKBONES, ENCODERS, encoder

from seqlatent.inference import Encoder, FilteringEncoder, SmoothingEncoder
from seqlatent.inference.amortised.encoders import _mirror
from seqlatent.networks import MinGRU
from seqlatent.sequences import Context, Sequences


def ragged(seed=0):
    """Three series of 6, 4 and no observed steps; with holes."""
    s = series(3, 6, obs_dim=2, covariate_dim=1, missing=0.4, seed=seed, t=gaps(3, 6))
    observed = s.observed.clone()
    observed[0, 5, 0] = True
    observed[1, 3, 1] = True
    observed[1, 4:] = False
    observed[2] = False
    return Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)


def context(s, seed=3):
    return Context.of(s, normal(s.batch, s.steps, 2, seed=seed))


def build(kind, backbone=None):
    net = encoder(kind, 2, covariate_dim=1, memory_dim=2)
    if backbone is None:
        return net
    width = Encoder.input_dim(2, covariate_dim=1, memory_dim=2)
    make = BACKBONES[backbone]
    if kind == "filtering":
        return FilteringEncoder(make(width, 5)).double()
    return SmoothingEncoder(
        make(width, 5), make(width, 4) if kind == "smoothing" else None
    ).double()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ENCODERS)
def test_features_have_the_width_they_announce(kind, backbone):
    net, s = build(kind, backbone), ragged()
    assert net(s, context(s)).shape == (3, 6, net.out_dim)
    assert net.causal == (kind == "filtering")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_causal_encoder_ignores_the_future(backbone):
    net, s = build("filtering", backbone), ragged()
    c = context(s)
    e = net(s, c)
    y, observed, m = s.y.clone(), s.observed.clone(), c.m.clone()
    y[:, 3:], observed[:, 3:], m[:, 3:] = 1e9, True, 1e9
    poisoned = Sequences(y, observed, s.t, s.u, s.codes, s.shift, s.scale)
    e2 = net(poisoned, c.replace(m=m))
    assert torch.equal(e2[:, :3], e[:, :3])
    assert not torch.equal(e2[:, 3], e[:, 3])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backward_encoder_ignores_the_past(backbone):
    net, s = build("backward", backbone), ragged()
    e = net(s, context(s))
    y = s.y.clone()
    y[:, :2] = 1e9
    poisoned = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    e2 = net(poisoned, context(s))
    seen = net.informed(s)[:, 2:].expand_as(e[:, 2:])  # a tail has no meaning, and no effect
    close(e2[:, 2:][seen], e[:, 2:][seen])


def test_a_two_sided_encoder_reads_everything():
    net, s = build("smoothing"), ragged()
    c, weight = context(s), normal(net.out_dim)
    y = s.y.clone().requires_grad_()
    live = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    for t in (0, 2, 5):
        (grad,) = torch.autograd.grad((net(live, c)[0, t] @ weight), y)
        assert bool((grad[0] != 0)[s.observed[0]].all())
        assert torch.equal(grad[1:], torch.zeros_like(grad[1:]))
        assert torch.equal(grad[~s.observed], torch.zeros_like(grad[~s.observed]))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_padded_tail_changes_no_feature_before_it(kind):
    net, s = build(kind), ragged()
    c = context(s)
    longer = s.extend(4)
    m = torch.cat([c.m, torch.full_like(c.m[:, :4], 1e3)], 1)
    e = net(longer, Context.of(longer, m))
    close(e[:2, :4], net(s, c)[:2, :4])
    close(e[0, :6], net(s, c)[0])
    assert not bool(net.informed(longer)[:, 6:].any())


@pytest.mark.parametrize("kind", ENCODERS)
def test_ragged_batches_equal_each_series_alone(kind):
    net, s = build(kind), ragged()
    c = context(s)
    e = net(s, c)
    for b, length in ((0, 6), (1, 4)):
        alone = s.select(slice(b, b + 1)).window(0, length)
        own = Context.of(alone, c.m[b : b + 1, :length])
        close(net(alone, own), e[b : b + 1, :length])
        assert torch.equal(net.informed(alone), net.informed(s)[b : b + 1, :length])


@pytest.mark.parametrize("kind", ENCODERS)
def test_permuting_series_permutes_features(kind):
    net, s = build(kind), ragged()
    c, order = context(s), torch.tensor([2, 0, 1])
    permuted = Context.of(s.select(order), c.m[order])
    close(net(s.select(order), permuted), net(s, c)[order])


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_stands_in_missing_cells_is_not_read(kind):
    net, s = build(kind), ragged()
    y = torch.where(s.observed, s.y, 1e9)
    poisoned = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    assert torch.equal(net(poisoned, context(s)), net(s, context(s)))


def test_a_causal_encoder_is_informed_where_it_sees_something():
    s = ragged()
    found = build("filtering").informed(s)
    assert torch.equal(found[..., 0], s.observed.any(-1))


def test_a_two_sided_encoder_is_informed_until_the_last_observation():
    found = build("smoothing").informed(ragged())[..., 0]
    assert found.tolist() == [[True] * 6, [True] * 4 + [False] * 2, [False] * 6]


def test_a_causal_encoder_continues_from_its_state():
    net, s = build("filtering"), ragged()
    c = context(s)
    e, states = net.run(s, c, None)
    head, state = net.run(s.window(0, 2), c[:2], None)
    tail = s.window(2, 6)
    # a window starts with a gap of one; the context knows the true one
    rest, after = net.run(tail, c[2:], tuple(x[:, -1] for x in state))
    close(torch.cat([head, rest], 1), e)
    for a, b in zip(after, states, strict=True):
        close(a[:, -1], b[:, -1])


def test_mirror_is_its_own_inverse():
    order = _mirror(torch.tensor([3, 0, -1]), 5)
    assert order.tolist() == [[3, 2, 1, 0, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert torch.equal(order.gather(1, order), torch.arange(5).expand(3, 5))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_parameter_gets_a_gradient(kind):
    net, s = build(kind), ragged()
    net(s, context(s)).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name


def test_a_backbone_of_another_width_is_refused():
    s = ragged()
    message = (
        r"must read 8 features here, .* reads 5; .*input_dim\(2, covariate_dim=1, memory_dim=2"
    )
    net = MinGRU(5, 3).double()
    for wrong in (FilteringEncoder(net), SmoothingEncoder(net)):
        with pytest.raises(ValueError, match=message):
            wrong(s, context(s))
