"""The recursion of a hidden Markov model, hidden from autograd.

A loop in probabilities where that is exact, else a loop in logarithms, or an associative scan.

Time is the first axis of everything here, all leading axes are one, ``N``.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.derivatives import first_order
from seqlatent.hmm.prefixes import affine_prefixes, prefixes
from seqlatent.recurrence import affine_recurrence


class Model(NamedTuple):
    """Logarithms of a model whose axes are aligned; a length of one is where nothing differs.

    Transitions are those between steps, one fewer than there are steps.
    """

    lead: tuple[int, ...]
    first: Float[Tensor, "N S"]
    M: Float[Tensor, "_ _n S S"]
    ll: Float[Tensor, "T N S"]

    def back(self, x: Tensor, event: int) -> Tensor:
        """Brings ``(T, N, ...)`` with so many axes of events back to ``(*lead, T, ...)``."""
        x = x.reshape(len(x), *self.lead, *x.shape[2:])
        return x.movedim(0, x.dim() - 1 - event)


def model(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> Model:
    """Checks and aligns the tensors of a model.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or plus infinity, or no state is possible.
    """
    _check_shapes(log_initial, log_transition, log_likelihood)
    for name, x in (
        ("log_initial", log_initial),
        ("log_transition", log_transition),
        ("log_likelihood", log_likelihood),
    ):
        if not bool((x.detach() < torch.inf).all()):
            raise ValueError(
                f"{name} must hold numbers below infinity, or -inf for what is impossible, found "
                f"{x.detach()[~(x.detach() < torch.inf)][0].item()}. Where nothing was observed a "
                "log likelihood is 0; a density that is infinite has a scale of zero."
            )
    for name, x in (("log_initial", log_initial), ("log_transition", log_transition)):
        if not bool((x.detach().amax(-1) > -torch.inf).all()):
            raise ValueError(
                f"{name} must leave at least one state possible, found a row of -inf. Its rows are "
                "logarithms of probabilities: log_transition[i, j] = log p(next = j | last = i)."
            )
    M = log_transition if log_transition.dim() > 2 else log_transition[None]
    size, steps = log_likelihood.shape[-1], log_likelihood.shape[-2]
    lead = torch.broadcast_shapes(
        log_initial.shape[:-1], M.shape[:-3], log_likelihood.shape[:-2], ()
    )
    count = lead.numel()
    for axis in range(M.dim() - 2):
        if M.stride(axis) == 0 and M.shape[axis] > 1:
            M = M.narrow(axis, 0, 1)
    if M.shape[:-3].numel() == 1:
        M = M.reshape(-1, 1, size, size)
    else:
        M = M.expand(*lead, *M.shape[-3:]).movedim(-3, 0).reshape(-1, count, size, size)
    ll = log_likelihood.expand(*lead, steps, size).movedim(-2, 0).reshape(steps, count, size)
    first = log_initial.expand(*lead, size).reshape(count, size)
    return Model(tuple(lead), first, M if len(M) == 1 else M[1:], ll)


def _check_shapes(log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (log_initial, log_transition, log_likelihood)]
    wanted = (
        "a hidden Markov model needs log_initial (*L, S), log_transition (S, S) or (*L, T, S, S) "
        f"and log_likelihood (*L, T, S), found {shapes[0]}, {shapes[1]} and {shapes[2]}"
    )
    if not shapes[0] or len(shapes[1]) < 2 or len(shapes[2]) < 2:
        raise ValueError(f"{wanted}; add the axes that lack.")
    size, steps = shapes[2][-1], shapes[2][-2]
    if {shapes[0][-1], *shapes[1][-2:]} != {size} or size == 0:
        raise ValueError(f"{wanted}; the number of states S must be the same in all three.")
    if steps == 0 or (len(shapes[1]) > 2 and shapes[1][-3] not in (1, steps)):
        raise ValueError(
            f"{wanted}; a transition matrix for each step leads into it, and that of the first is "
            "not used, so there are T of them, and T is at least 1."
        )
    try:
        torch.broadcast_shapes(shapes[0][:-1], shapes[1][:-3], shapes[2][:-2])
    except RuntimeError:
        raise ValueError(f"{wanted}; their leading axes do not broadcast.") from None


def messages(
    first: Float[Tensor, "N S"],
    M: Float[Tensor, "_ _n S S"],
    ll: Float[Tensor, "T N S"],
    *,
    scan: bool = False,
) -> tuple[Float[Tensor, "T N"], Float[Tensor, "T N S"]]:
    r"""Evidence of each step, and what each state has before the step's own likelihood.

    .. math::
        r_1 = \text{first}, \quad
        e_t = \log \sum_j \exp(r_t(j) + \ell_t(j)), \quad
        r_{t+1}(j) = \log \sum_i \exp(r_t(i) + \ell_t(i) - e_t + M_t(i, j))

    Where no state explains a step, e is -inf and the recursion goes on without that step.
    """
    e, r = _Messages.apply(first, M, ll, scan, True)  # type: ignore[misc]
    return e, r


def evidence(
    first: Float[Tensor, "N S"], M: Float[Tensor, "_ _n S S"], ll: Float[Tensor, "T N S"]
) -> Float[Tensor, "T N"]:
    """The evidence of each step alone: in probabilities it takes no logarithm of a state."""
    return _Messages.apply(first, M, ll, False, False)[0]  # type: ignore[index]


@torch.no_grad()
def unexplained(m: Model) -> Tensor:
    """Which steps ``(T, N)`` no state explains to which the steps before may have led."""
    if bool((m.ll > -torch.inf).all()):
        return torch.zeros_like(m.ll[..., 0], dtype=torch.bool)
    return evidence(m.first, m.M, m.ll) == -torch.inf


class _Messages(torch.autograd.Function):
    r"""The recursion, whose adjoint is a smoother.

    For gradients :math:`\gamma` of e and g of r,

    .. math::
        h_t(i) = p_t(i) \Big(\sum_j \frac{A_t(i, j)}{\pi_{t+1}(j)} (g + h)_{t+1}(j)
            + \gamma_t - \gamma_{t+1} - \sum_j g_{t+1}(j)\Big)

    is the gradient of the log likelihoods, with the filtered p, the predicted :math:`\pi = \exp r`.
    Where gamma is one and g zero it is the posterior marginal (Fisher's identity).
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, M: Tensor, ll: Tensor, scan: bool, whole: bool
    ) -> tuple[Tensor, Tensor]:
        dead = ll.amax(-1) == -torch.inf
        clean = torch.where(dead[..., None], 0.0, ll) if bool(dead.any()) else ll
        ctx.scan, ctx.linear = scan, not scan and _mixing(M)
        if ctx.linear:
            p, e, pi, lost = _linear(first, M.exp(), clean)
            ctx.save_for_backward(M, p, pi, dead | lost)
            r = pi.log() if whole else pi
            if whole:
                r[0] = first
        else:
            f, e, r, lost = _scanned(first, M, clean) if scan else _logarithmic(first, M, clean)
            ctx.save_for_backward(M, f, r, dead | lost)
        ctx.set_materialize_grads(False)
        return e.masked_fill_(dead | lost, -torch.inf), r

    @staticmethod
    @first_order("take differences of gradients")
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        M, p, pi, dead = ctx.saved_tensors
        of_e, of_r = grads
        gamma = torch.zeros_like(p[..., 0]) if of_e is None else of_e.masked_fill(dead, 0.0)
        k = gamma.clone()
        k[:-1] -= gamma[1:]
        if of_r is not None:
            k[:-1] -= of_r[1:].sum(-1)
        if ctx.linear:
            h, grad_M = _linear_adjoint(M, p, pi, k[..., None], of_r)
        else:
            h, grad_M = _logarithmic_adjoint(M, p, pi, k[..., None], of_r, ctx.scan)
        first = h[0] if of_r is None else h[0] + of_r[0]
        return first, grad_M, h.masked_fill(dead[..., None], 0.0), None, None


def _mixing(M: Tensor) -> bool:
    """Whether every transition is likely enough for probabilities to lose nothing by underflow.

    Then each predicted probability is at least the least transition, whatever the likelihoods are,
    and what underflows is below its rounding.
    """
    limits = torch.finfo(M.dtype)
    low, high = (float(x) for x in M.aminmax())
    return low > math.log(limits.tiny / limits.eps) + 5 and high < 40


def _start(first: Tensor, ll: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Filtered logarithms, evidence and whether nothing explains it, of the first step."""
    peak = ll.amax(-1, keepdim=True).clamp_min(torch.finfo(ll.dtype).min)
    x = first + (ll - peak)  # beside a large one a logarithm would have no digit left
    e = x.logsumexp(-1)
    lost = e == -torch.inf
    if bool(lost.any()):
        x = torch.where(lost[..., None], first, x)
        e, peak = x.logsumexp(-1), peak.masked_fill(lost[..., None], 0.0)
    return x - e[..., None], e + peak[..., 0], lost


def _linear(first: Tensor, A: Tensor, ll: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Filtered and predicted probabilities, and the evidence; each step is four operations."""
    peak = ll.amax(-1, keepdim=True)
    likelihood = (ll - peak).exp_().unbind()
    p, pi, total = torch.empty_like(ll), torch.empty_like(ll), torch.ones_like(peak)
    lost = torch.zeros_like(peak[..., 0], dtype=torch.bool)
    start, e, lost[0] = _start(first, ll[0])
    torch.exp(start, out=p[0])
    torch.exp(first, out=pi[0])
    p_steps, pi_steps, totals = p.unbind(), pi.unbind(), total.unbind()
    A_steps = A.unbind() * (len(ll) - 1 if len(A) == 1 else 1)
    shared = A.shape[1] == 1
    rows = [x if shared else x[:, None] for x in p_steps]
    columns = [x if shared else x[:, None] for x in pi_steps]
    for t in range(1, len(ll)):
        now = p_steps[t]
        torch.matmul(rows[t - 1], A_steps[t - 1][0] if shared else A_steps[t - 1], out=columns[t])
        torch.mul(pi_steps[t], likelihood[t], out=now)
        torch.sum(now, -1, keepdim=True, out=totals[t])
        now.div_(totals[t])
    evidence = (total.log_() + peak).squeeze(-1)
    evidence[0] = e
    return p, evidence, pi, lost


def _linear_adjoint(
    M: Tensor, p: Tensor, pi: Tensor, k: Tensor, of_r: Tensor | None
) -> tuple[Tensor, Tensor]:
    A = M.exp()
    shared, steps = A.shape[1] == 1, len(p)
    h, v = torch.empty_like(p), torch.zeros_like(p)
    inverse, h_steps, v_steps, p_steps, k_steps = (
        x.unbind() for x in (pi.reciprocal(), h, v, p, k)
    )
    back = (A.mT[:, 0] if shared else A.mT).unbind() * (steps - 1 if len(A) == 1 else 1)
    torch.mul(p[-1], k[-1], out=h_steps[-1])
    for t in range(steps - 2, -1, -1):
        total = h_steps[t + 1] if of_r is None else h_steps[t + 1] + of_r[t + 1]
        torch.mul(total, inverse[t + 1], out=v_steps[t + 1])
        if shared:
            torch.addmm(k_steps[t], v_steps[t + 1], back[t], out=h_steps[t])
        else:
            torch.baddbmm(
                k_steps[t][:, None], v_steps[t + 1][:, None], back[t], out=h_steps[t][:, None]
            )
        h_steps[t].mul_(p_steps[t])
    before, v = p[:-1], v[1:]
    if shared and len(A) == 1:
        outer = (before.flatten(0, 1).mT @ v.flatten(0, 1))[None, None]
    elif shared:
        outer = (before.mT @ v)[:, None]
    elif len(A) == 1:
        outer = torch.einsum("tni,tnj->nij", before, v)[None]
    else:
        outer = before[..., None] * v[..., None, :]
    return h, outer * A


def _logarithmic(first: Tensor, M: Tensor, ll: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    f, r = torch.empty_like(ll), torch.empty_like(ll)
    e = torch.empty_like(ll[..., 0])
    lost = torch.zeros_like(e, dtype=torch.bool)
    r[0] = first
    f[0], e[0], lost[0] = _start(first, ll[0])
    M_steps = M.unbind() * (len(ll) - 1 if len(M) == 1 else 1)
    for t in range(1, len(ll)):
        torch.logsumexp(f[t - 1][:, :, None] + M_steps[t - 1], -2, out=r[t])
        f[t], e[t], lost[t] = _start(r[t], ll[t])
    return f, e, r, lost


def _scanned(first: Tensor, M: Tensor, ll: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    start, e, lost = _start(first, ll[0])
    if len(ll) == 1:
        return start[None], e[None], first[None].clone(), lost[None]
    paths = prefixes(M + ll[1:, :, None, :])
    f = (start[:, :, None] + paths).logsumexp(-2).log_softmax(-1)
    if not bool((f.amax(-1) > -torch.inf).all()):  # NaN where no path is possible
        return _logarithmic(first, M, ll)
    f = torch.cat([start[None], f])
    r = torch.cat([first[None], (f[:-1, :, :, None] + M).logsumexp(-2)])
    e = torch.cat([e[None], (r[1:] + ll[1:]).logsumexp(-1)])
    lost = torch.cat([lost[None], torch.zeros_like(e[1:], dtype=torch.bool)])
    return f, e, r, lost


def _logarithmic_adjoint(
    M: Tensor, f: Tensor, r: Tensor, k: Tensor, of_r: Tensor | None, scan: bool
) -> tuple[Tensor, Tensor]:
    p = f.exp()
    # The distribution of the state before, given the state after; nothing leads to an impossible
    # one.
    possible = r[1:].clamp_min(torch.finfo(r.dtype).min)[..., None, :]
    W = (f[:-1, :, :, None] + M - possible).exp_()
    b = p * k
    if of_r is not None:
        b[:-1] += (W @ of_r[1:, :, :, None])[..., 0]
    if scan and len(p) > 1:
        _, h = affine_prefixes(torch.cat([W, torch.zeros_like(W[:1])]).flip(0), b.flip(0))
        h = h.flip(0)
    else:
        last = torch.zeros_like(W[:1]) if len(W) else W.new_zeros(1, *W.shape[1:])
        coefficients = torch.cat([W, last]).movedim(0, 1)
        h = affine_recurrence(coefficients, b.movedim(0, 1), reverse=True).movedim(1, 0)
    total = h[1:] if of_r is None else h[1:] + of_r[1:]
    grad = W * total[..., None, :]
    for axis in (0, 1):
        if M.shape[axis] == 1:
            grad = grad.sum(axis, keepdim=True)
    return h, grad
