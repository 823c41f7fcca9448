"""A switching linear Gaussian system: its tensors, verified once, and together with data."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SwitchingSystem"]

# Tensors with their numbers of axes after leading ones and time.
Named = dict[str, tuple[Tensor, int]]


@dataclass(frozen=True, eq=False)
class SwitchingSystem:
    r"""A linear Gaussian state space model in each of S regimes, which follow a Markov chain.

    .. math::
        z_t = F_{s_t} z_{t-1} + b_{s_t} + N(0, Q_{s_t}), \quad
        y_t = H_{s_t} z_t + d_{s_t} + N(0, R_{s_t}), \quad
        p(s_t = j \mid s_{t-1} = i) = M_{ij}

    Shapes are verified once, when it is made.

    Args:
        log_initial: Logarithms of the distribution of the first regime.
        log_transition: ``[i, j]`` is log p(s_t = j | s_{t-1} = i).
        F: Transition of the state into step t; unused at the first step, but finite.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise.

    Shape:
        log_initial ``(*L, S)``, log_transition ``(*L, T, S, S)``, F, Q ``(*L, T, S, K, K)``, b
        ``(*L, T, S, K)``, m0 ``(*L, S, K)``, P0 ``(*L, S, K, K)``, H ``(*L, T, S, D, K)``, d
        ``(*L, T, S, D)``, R ``(*L, T, S, D, D)``, after broadcasting; what is constant in time may
        leave out T, with all axes before it.

    Raises:
        ValueError: If the numbers of regimes or dimensions differ, or axes do not broadcast.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> seqlatent.switching.SwitchingSystem(*model).F.shape
        torch.Size([2, 1, 1])
    """

    # What is given is verified below, in words that say more than a check of types.
    log_initial: Tensor
    log_transition: Tensor
    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor

    def __post_init__(self) -> None:
        _check(self._named())
        axes(self._named())

    def observing(self, y: Tensor, observed: Tensor) -> Named:
        """The tensors, with an axis of time, and what was observed of them.

        Raises:
            ValueError: If the numbers of dimensions differ.
        """
        named = self._named() | {"y": (y, 1), "observed": (observed, 1)}
        _check(named)
        return named

    def _named(self) -> Named:
        return {
            "log_initial": (self.log_initial.unsqueeze(-2), 1),
            "log_transition": (self.log_transition, 2),
            "F": (self.F, 3),
            "b": (self.b, 2),
            "Q": (self.Q, 3),
            "m0": (self.m0.unsqueeze(-3), 2),
            "P0": (self.P0.unsqueeze(-4), 3),
            "H": (self.H, 3),
            "d": (self.d, 2),
            "R": (self.R, 3),
        }


def axes(named: Named) -> tuple[tuple[int, ...], int]:
    """The leading axes of all tensors, broadcast, and the number of steps."""
    try:
        shape = torch.broadcast_shapes(*(x.shape[: x.dim() - event] for x, event in named.values()))
    except RuntimeError:
        found = ", ".join(f"{name} {tuple(x.shape)}" for name, (x, _) in named.items())
        raise ValueError(
            "a switching model needs leading axes and steps that broadcast, found (with an axis of "
            f"time at log_initial, m0 and P0) {found}. What is constant in time leaves out T; "
            "regimes are the axis S before the matrix: F (*L, T, S, K, K)."
        ) from None
    *lead, steps = shape
    return tuple(lead), steps


def _check(named: Named) -> None:
    (S,) = {named["F"][0].shape[-3:-2]} if named["F"][0].dim() > 2 else {(0,)}
    S, K, D = (*S, named["F"][0].shape[-1], named["H"][0].shape[-2])
    wanted = {
        "log_initial": (S,),
        "log_transition": (S, S),
        "F": (S, K, K),
        "b": (S, K),
        "Q": (S, K, K),
        "m0": (S, K),
        "P0": (S, K, K),
        "H": (S, D, K),
        "d": (S, D),
        "R": (S, D, D),
        "y": (D,),
        "observed": (D,),
    }
    for name, (x, event) in named.items():
        if x.dim() < event or tuple(x.shape[x.dim() - event :]) != wanted[name]:
            raise ValueError(
                f"a switching model of S = {S} regimes, K = {K} states and D = {D} observed "
                f"dimensions needs {name} to end in {wanted[name]}, found {tuple(x.shape)}. Stack "
                "the matrices of the regimes: torch.stack([F_0, F_1], -3)."
            )
