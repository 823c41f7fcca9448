"""Filter, smoother and posterior chain of a hidden Markov model."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.hmm.recursion import Model, evidence, messages, model, unexplained

__all__ = [
    "Filtered",
    "Kernels",
    "Smoothed",
    "filter",
    "filter_scan",
    "log_evidence",
    "posterior_kernels",
    "smoother",
    "smoother_scan",
]


class Filtered(NamedTuple):
    """Log probabilities of each state given the observations up to its step, and before it.

    ``log_evidence`` is log p(y_t | y_<t) per step. It is -inf where no state explains a step; the
    filter then goes on as if the step were missing.
    """

    log_prob: Float[Tensor, "*L T S"]
    log_predicted: Float[Tensor, "*L T S"]
    log_evidence: Float[Tensor, "*L T"]


class Smoothed(NamedTuple):
    """Log probabilities of each state, and of each pair of neighbours, given everything.

    ``log_pair[t, i, j]`` is log p(s_t = i, s_{t+1} = j | y): one fewer than there are steps.
    """

    log_prob: Float[Tensor, "*L T S"]
    log_pair: Float[Tensor, "*L U S S"]
    log_evidence: Float[Tensor, "*L T"]


class Kernels(NamedTuple):
    """Logarithms of a Markov chain's first distribution and of its T - 1 transition matrices."""

    log_initial: Float[Tensor, "*L S"]
    log_transition: Float[Tensor, "*L U S S"]


def filter(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Filtered:
    r"""Filtered distributions of the states of a hidden Markov model.

    .. math::
        p(s_t = j \mid y_{1:t}) \propto p(y_t \mid s_t = j) \sum_i p(s_t = j \mid s_{t-1} = i)\,
        p(s_{t-1} = i \mid y_{<t})

    The loop runs in probabilities, scaled at each step, where no transition is so unlikely that
    anything could be lost by that, however extreme the likelihoods are; otherwise in logarithms.
    Autograd sees none of it: the gradient is one backward loop.

    Args:
        log_initial: Logarithms of the distribution of the first state; -inf is impossible.
        log_transition: ``[i, j]`` is log p(s_t = j | s_{t-1} = i), the same at all steps or of the
            transition into each step; that of the first is not used.
        log_likelihood: log p(y_t | s_t) for every state; zeros where nothing was observed, -inf
            where a state cannot have led to it.

    Shape:
        log_initial ``(*L, S)``, log_transition ``(S, S)`` or ``(*L, T, S, S)``, log_likelihood
        ``(*L, T, S)``, after broadcasting.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or no state is possible.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.8, 0.2], [0.8, 0.2]]).log()
        >>> filter(start, stay.log(), likelihood).log_prob.exp()
        tensor([[0.8000, 0.2000],
                [0.9193, 0.0807]])

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition (Rabiner,
        1989), sections III.A and V.A.
    """
    return _filtered(model(log_initial, log_transition, log_likelihood), scan=False)


def filter_scan(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Filtered:
    r"""Filtered distributions by an associative scan of products of matrices of logarithms.

    Arguments, shapes and results are those of :func:`filter`; the number of rounds is logarithmic
    in time, the work :math:`S` times that of the loop.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.8, 0.2], [0.8, 0.2]]).log()
        >>> filter_scan(start, stay.log(), likelihood).log_prob.exp()
        tensor([[0.8000, 0.2000],
                [0.9193, 0.0807]])

    References:
        Temporal Parallelization of Inference in Hidden Markov Models (Hassan, Särkkä &
        García-Fernández, 2021).
    """
    return _filtered(model(log_initial, log_transition, log_likelihood), scan=True)


def log_evidence(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Tensor:
    r"""Log evidence :math:`\log p(y_{1:T})` of each series, ``(*L,)``.

    Cheaper than :func:`filter`, of which it is the sum over steps. Its gradient is Fisher's
    identity: posterior probabilities of states and of pairs of them.

    Args:
        log_initial: As in :func:`filter`.
        log_transition: As in :func:`filter`.
        log_likelihood: As in :func:`filter`.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> log_evidence(start, stay.log(), torch.zeros(4, 2))
        tensor(0.)
    """
    m = model(log_initial, log_transition, log_likelihood)
    return evidence(m.first, m.M, m.ll).sum(0).reshape(m.lead)


def smoother(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Smoothed:
    r"""Distributions of the states and of pairs of neighbours, given everything.

    .. math::
        p(s_t \mid y_{1:T}) \propto p(s_t \mid y_{1:t})\, \beta_t(s_t), \qquad
        \beta_t(i) = \sum_j p(s_{t+1} = j \mid s_t = i)\, p(y_{t+1} \mid j)\, \beta_{t+1}(j)

    Args:
        log_initial: As in :func:`filter`.
        log_transition: As in :func:`filter`.
        log_likelihood: As in :func:`filter`.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
        >>> smoother(start, stay.log(), likelihood).log_prob.exp()
        tensor([[0.7400, 0.2600],
                [0.8000, 0.2000]])
    """
    return _smoothed(model(log_initial, log_transition, log_likelihood), scan=False)


def smoother_scan(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Smoothed:
    """Smoothed distributions by two associative scans; all else is as in :func:`smoother`.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
        >>> smoother_scan(start, stay.log(), likelihood).log_prob.exp()
        tensor([[0.7400, 0.2600],
                [0.8000, 0.2000]])
    """
    return _smoothed(model(log_initial, log_transition, log_likelihood), scan=True)


def posterior_kernels(
    log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor
) -> Kernels:
    r"""The exact posterior over paths, as a Markov chain that runs forward.

    .. math:: q(s_t = j \mid s_{t-1} = i) \propto
        p(s_t = j \mid s_{t-1} = i)\, p(y_t \mid j)\, \beta_t(j)

    so that log p(y, s) - log q(s) is the log evidence on every path. A step that no state explains
    is as if it were missing, as in :func:`filter`.

    Args:
        log_initial: As in :func:`filter`.
        log_transition: As in :func:`filter`.
        log_likelihood: As in :func:`filter`.

    Shape:
        log_initial ``(*L, S)``, log_transition ``(*L, T - 1, S, S)``.

    Example:
        >>> start, stay = torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> likelihood = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
        >>> posterior_kernels(start, stay.log(), likelihood).log_transition.exp()
        tensor([[[0.9730, 0.0270],
                 [0.3077, 0.6923]]])
    """
    m = model(log_initial, log_transition, log_likelihood)
    ll, future = _explained(m, unexplained(m), scan=False)
    first, rest = _tilted(m.first, ll[0] + future[0]), (ll + future)[1:, :, None, :]
    later = _tilted(m.M.expand(*rest.shape[:2], *m.M.shape[-2:]), rest)
    return Kernels(first.reshape(*m.lead, -1), m.back(later, 2))


def _tilted(prior: Tensor, news: Tensor) -> Tensor:
    """Log probabilities of a prior times a likelihood; the prior where that is impossible."""
    x = prior + news
    lost = x.amax(-1, keepdim=True) == -torch.inf
    return torch.where(lost, prior, x).log_softmax(-1)


def _explained(m: Model, lost: Tensor, *, scan: bool) -> tuple[Tensor, Tensor]:
    """Likelihoods, without those of steps that no state explains, and messages of the future."""
    ll = torch.where(lost[..., None], 0.0, m.ll) if bool(lost.any()) else m.ll
    M = m.M.mT.flip(0)
    _, future = messages(torch.zeros_like(m.first), M, ll.flip(0), scan=scan)
    return ll, future.flip(0)


def _filtered(m: Model, *, scan: bool) -> Filtered:
    e, r = messages(m.first, m.M, m.ll, scan=scan)
    return Filtered(m.back(_updated(e, r, m.ll), 1), m.back(r, 1), m.back(e, 0))


def _updated(e: Tensor, r: Tensor, ll: Tensor) -> Tensor:
    """Filtered logarithms from predicted ones; those where no state explains the step."""
    lost = (e.detach() == -torch.inf)[..., None]
    if bool(lost.any()):
        ll = torch.where(lost, 0.0, ll)
    return (r + (ll - ll.detach().amax(-1, keepdim=True))).log_softmax(-1)


def _smoothed(m: Model, *, scan: bool) -> Smoothed:
    e, r = messages(m.first, m.M, m.ll, scan=scan)
    f = _updated(e, r, m.ll)
    ll, future = _explained(m, e.detach() == -torch.inf, scan=scan)
    after = (ll + future)[1:]
    pair = f[:-1, :, :, None] + m.M + after[:, :, None, :]
    pair = pair.flatten(-2).log_softmax(-1).unflatten(-1, pair.shape[-2:])
    return Smoothed(m.back(_tilted(f, future), 1), m.back(pair, 2), m.back(e, 0))
