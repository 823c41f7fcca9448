"""An emission for each regime."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.distributions import Selected, regime_of
from seqlatent.emissions.emission import Emission, LinearEmission
from seqlatent.sequences import Context

__all__ = ["ByRegime"]


class ByRegime(Emission):
    r"""The emission of the regime that the state is in.

    .. math:: y_t \mid s_t = i, z_t \sim p_i(\,\cdot \mid z_t, c_t)

    The state begins with the one-hot regime, of :class:`~seqlatent.transitions.Regimes` or
    :class:`~seqlatent.transitions.SwitchingLinear`; each part reads what follows it: nothing, or
    the vector. Emissions of any family over the same values, which may share modules. Regimes that
    start alike stay alike: give the parts different values, or let them be drawn.

    Args:
        parts: One emission per regime.

    Shape:
        ``forward``: z ``(*S, B, T, S + K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``.

    Example:
        >>> from seqlatent.emissions import Normal, StudentT
        >>> p = ByRegime([Normal(0, hidden=()), StudentT(0, hidden=())])
        >>> p(torch.eye(2)[[0, 1, 1]], Context.regular(3)).batch_shape
        torch.Size([3])
    """

    def __init__(self, parts: Sequence[Emission]) -> None:
        super().__init__()
        wrong = [type(part).__name__ for part in parts if not isinstance(part, Emission)]
        if wrong or not parts:
            raise TypeError(
                "ByRegime needs emissions, one for each regime, found "
                f"{', '.join(wrong) or 'none'}."
            )
        for name, found in (
            ("observed dimensions", {part.obs_dim for part in parts}),
            ("support", {str(part.support) for part in parts}),
        ):
            if len(found) > 1:
                raise ValueError(
                    f"all parts must have the same {name}, found {sorted(found, key=str)}; choose "
                    "families of the same values."
                )
        self.obs_dim, self.support = parts[0].obs_dim, parts[0].support
        self.states = len(parts)
        self.parts = nn.ModuleList(parts)

    @property
    def linear(self) -> bool:
        """Whether all parts are linear and Gaussian."""
        return all(isinstance(part, LinearEmission) for part in self.parts)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        inner = z[..., self.states :]
        return Selected(regime_of(z, self.states), [part(inner, c) for part in self.parts])

    def log_probs(self, y: Tensor, observed: Tensor, inner: Tensor, c: Context) -> Tensor:
        """Log density of each step in every regime ``(*S, B, T, S)``.

        Args:
            y: Observations.
            observed: Which of them count.
            inner: The state without its regime ``(*S, B, T, K)``.
            c: What the parts condition on.
        """
        found = [
            part.log_prob(y, observed, inner, c)
            for part in self.parts
            if isinstance(part, Emission)
        ]
        return torch.stack(torch.broadcast_tensors(*found), -1)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """``H (..., S, D, K)``, ``d (..., S, D)``, ``R (..., S, D, D)`` of linear parts."""
        found = [part.matrices(c) for part in self.parts if isinstance(part, LinearEmission)]
        H, d, R = zip(*found, strict=True)
        H, d, R = (torch.broadcast_tensors(*x) for x in (H, d, R))
        return torch.stack(H, -3), torch.stack(d, -2), torch.stack(R, -3)
