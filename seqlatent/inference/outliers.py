"""Outliers, the law of values that are recorded wrong."""

from typing import Any

import torch
from torch import Tensor, nn

from seqlatent import kalman
from seqlatent.sizes import whole

__all__ = ["Outliers"]

_SIZES = (4.0, 16.0, 64.0, 256.0, 1024.0)


class Outliers(nn.Module):
    r"""Values that are now and then recorded wrong, by an error of unknown size.

    .. math:: \varepsilon_t \sim (1 - \pi)\, N(0, R)
        + \pi \sum_j w_j N(0, R + \kappa_j^2 v), \qquad w_j \propto 2^{-j}

    with sizes :math:`\kappa` of 4, 16, 64, 256 and 1,024 least standard deviations :math:`\sqrt v`
    of an innovation. Whatever :class:`Kalman` finds with it is exact given the weight of each
    value, and weights come from the rows before. Forecasts are of values that are recorded right;
    the evidence is that of the mixture.

    Args:
        share: Probability :math:`\pi` of an outlier; with 0 there are none, and everything is as
            without. It is a buffer, saved with a model and never learned by its gradient.
        patience: How many values in a row may be outliers; what lies apart for longer is a level
            that broke.

    Raises:
        ValueError: If the share is no number from 0 up to a half.

    Example:
        >>> from seqlatent import Sequences
        >>> from seqlatent.inference import Kalman, Outliers
        >>> level = seqlatent.zoo.structural()
        >>> model = seqlatent.LatentModel(level.transition, level.emission, Kalman(Outliers()))
        >>> y = torch.zeros(1, 20, 1)
        >>> y[0, 10] = 100.0
        >>> bool(model.filter(Sequences.of(y)).mean.abs().max() < 0.1)
        True

    References:
        Robustification of Kalman Filter Models (Meinhold & Singpurwalla, 1989).
        Approximate Inference in State-Space Models with Heavy-Tailed Noise (Agamennoni, Nieto &
        Nebot, 2012).
    """

    share: Tensor

    def __init__(self, share: float = 0.02, patience: int = 3) -> None:
        super().__init__()
        self.patience = whole("patience", patience, 1)
        self.register_buffer("share", torch.zeros((), dtype=torch.float64))
        self.assume(share)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # folders of before there were outliers
        state_dict.setdefault(f"{prefix}share", torch.zeros_like(self.share))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def assume(self, share: float) -> None:
        """Sets the probability of an outlier."""
        if not 0 <= share < 0.5:
            raise ValueError(
                f"share must be a probability of an outlier, from 0 up to 0.5, found {share!r}."
            )
        self.share.fill_(share)

    def forward(
        self,
        system: kalman.LinearGaussianSystem,
        y: Tensor,
        observed: Tensor,
        run: Tensor | None = None,
    ) -> kalman.Doubted:
        """What a filter makes of values: see :func:`seqlatent.kalman.doubt`."""
        return kalman.doubt(system, y, observed, self._law(y), self.patience, run)

    def probability(
        self, system: kalman.LinearGaussianSystem, y: Tensor, observed: Tensor
    ) -> Tensor:
        """Probability of each value given all others: see :func:`seqlatent.kalman.outlying`."""
        return kalman.outlying(system, y, observed, self._law(y), self.patience)

    def _law(self, y: Tensor) -> kalman.Contamination:
        """In the precision of values."""
        sizes = self.share.new_tensor(_SIZES)
        odds = 0.5 ** torch.arange(len(_SIZES), device=sizes.device).to(sizes)
        law = kalman.Contamination(self.share, sizes, odds / odds.sum())
        return kalman.Contamination(*(x.to(y) for x in law))

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.share > 0)

    def extra_repr(self) -> str:
        return f"{float(self.share):.3g}, patience={self.patience}"
