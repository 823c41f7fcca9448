"""Paths of states: the most probable one, and draws from a chain or from the posterior."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor

from seqlatent.hmm.forward_backward import Kernels, posterior_kernels
from seqlatent.hmm.recursion import model, unexplained

__all__ = ["Viterbi", "sample_chain", "sample_paths", "viterbi"]


class Viterbi(NamedTuple):
    """The most probable path of each series, and log p(path, y)."""

    path: Int[Tensor, "*L T"]
    log_joint: Float[Tensor, "*L"]


@torch.no_grad()
def viterbi(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Viterbi:
    r"""The most probable path of states.

    .. math:: \arg\max_{s_{1:T}} p(s_{1:T}, y_{1:T})

    One path for every series; of several that are as probable, one. Where no state explains a step
    none is possible: then ``log_joint`` is -inf, and the path that of the other steps. Without
    gradients.

    Args:
        log_initial: As in :func:`filter`.
        log_transition: As in :func:`filter`.
        log_likelihood: As in :func:`filter`.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]).log()
        >>> viterbi(start, stay.log(), likelihood).path
        tensor([0, 0, 0])

    References:
        Error Bounds for Convolutional Codes and an Asymptotically Optimum Decoding Algorithm
        (Viterbi, 1967).
    """
    m = model(log_initial, log_transition, log_likelihood)
    lost = unexplained(m)
    ll = torch.where(lost[..., None], 0.0, m.ll)
    best = m.first + ll[0]
    M = m.M.unbind() * (len(ll) - 1 if len(m.M) == 1 else 1)
    parents = []
    for t in range(1, len(ll)):
        value, parent = (best[:, :, None] + M[t - 1]).max(-2)
        best = value + ll[t]
        parents.append(parent)
    joint, state = best.max(-1, keepdim=True)
    path = [state]
    for parent in reversed(parents):
        state = parent.gather(-1, state)
        path.append(state)
    path.reverse()
    joint = joint[..., 0].masked_fill(lost.any(0), -torch.inf)
    return Viterbi(m.back(torch.stack(path)[..., 0], 0), joint.reshape(m.lead))


@torch.no_grad()
def sample_chain(
    kernels: Kernels, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
) -> Tensor:
    """Draws paths of states from a Markov chain, all samples and series at once.

    Args:
        kernels: The chain.
        shape: Leading sample shape.
        generator: Source of randomness.

    Shape:
        ``(*shape, *L, T)``, indices of states.

    Example:
        >>> stay = Kernels(torch.tensor([0.0, -torch.inf]), torch.eye(2).log().expand(3, 2, 2))
        >>> sample_chain(stay, (2,))
        tensor([[0, 0, 0, 0],
                [0, 0, 0, 0]])
    """
    first, rest = kernels
    *lead, steps, size, _ = rest.shape
    batch, count = Size(lead).numel(), Size(shape).numel()
    device = first.device if generator is None else generator.device
    u = torch.rand(
        steps + 1, count, batch, dtype=first.dtype, device=device, generator=generator
    ).to(first.device)
    first = _cumulative(first.expand(*lead, size).reshape(batch, size))
    rows = _cumulative(rest.movedim(-3, 0).reshape(steps, batch, size, size))
    series = torch.arange(batch, device=first.device)
    path = [_chosen(u[0], first)]
    for step, row in zip(u[1:].unbind(), rows.unbind(), strict=True):
        path.append(_chosen(step, row[series, path[-1]]))
    return torch.stack(path, -1).reshape(*shape, *lead, steps + 1)


def _cumulative(log_prob: Tensor) -> Tensor:
    cdf = log_prob.exp().cumsum(-1)
    return cdf / cdf[..., -1:]  # ends at one exactly, so that no draw falls behind


def _chosen(u: Tensor, cdf: Tensor) -> Tensor:
    return (u[..., None] >= cdf).sum(-1)


def sample_paths(
    log_initial: Tensor,
    log_transition: Tensor,
    log_likelihood: Tensor,
    shape: tuple[int, ...] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws paths of states from the exact posterior given all observations.

    Args:
        log_initial: As in :func:`filter`.
        log_transition: As in :func:`filter`.
        log_likelihood: As in :func:`filter`.
        shape: Leading sample shape.
        generator: Source of randomness.

    Shape:
        ``(*shape, *L, T)``, indices of states.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> seen = torch.tensor([[0.0, -torch.inf], [0.0, 0.0], [-torch.inf, 0.0]])
        >>> sample_paths(start, stay.log(), seen, (5,))[:, [0, 2]].unique(dim=0)
        tensor([[0, 1]])
    """
    with torch.no_grad():
        kernels = posterior_kernels(log_initial, log_transition, log_likelihood)
    return sample_chain(kernels, shape, generator)
