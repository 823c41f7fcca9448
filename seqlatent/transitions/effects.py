"""Components whose state has no past: white noise, and what covariates add to a series."""

from collections.abc import Iterable

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Number, positive
from seqlatent.transitions.structural import Loading, Structural, columns_of, constant

__all__ = ["FixedRegression", "Irregular"]


class FixedRegression(Structural):
    r"""What covariates add to a series, with coefficients that are learned numbers.

    .. math:: z_t = \beta^\top u_t, \qquad y_t = \dots + z_t

    The effect is the state, and it has no noise: one state for any number of covariates, and
    matrices that are the same at all steps. :class:`Regression` integrates the coefficients out
    instead, and so is sure of nothing about them that the series does not say.

    Args:
        covariates: Indices of the columns of ``u``.
        coefficients: Initial :math:`\beta`, in units of the standardised series per unit of the
            covariate; 0 by default.

    Shape:
        ``forward``: z ``(*S, B, T, 1)`` -> Distribution, batch ``(*S, B, T)``, event ``(1,)``.

    Example:
        >>> p = FixedRegression([0, 2], coefficients=(1.0, 10.0))
        >>> c = Context.regular(1, u=torch.tensor([[5.0, 6.0, 7.0]]))
        >>> p(torch.zeros(1, 1), c).mean
        tensor([[75.]], grad_fn=<ExpandBackward0>)

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 3.6.
    """

    coefficients: Tensor

    def __init__(
        self, covariates: Iterable[int], *, coefficients: Iterable[Number] | None = None
    ) -> None:
        index = columns_of(covariates)
        beta = (0.0,) * len(index) if coefficients is None else tuple(coefficients)
        if len(beta) != len(index):
            raise ValueError(
                f"{len(index)} covariates have as many coefficients, found {len(beta)}."
            )
        super().__init__(Loading.of(1), initial_scale=(1.0,))
        self.handles_gaps = True
        self.covariates = index
        self.start("coefficients", torch.tensor(beta, dtype=torch.get_default_dtype()))

    def effect(self, c: Context) -> Tensor:
        """What the covariates of each step add ``(..., 1)``."""
        if max(self.covariates) >= c.u.shape[-1]:
            raise ValueError(
                f"the regression reads covariate {max(self.covariates)}, the first being 0, and "
                f"the sequences have {c.u.shape[-1]}; pass them as Sequences.of(..., u=...), or "
                "change the indices of FixedRegression."
            )
        u = c.u[..., list(self.covariates)]
        return (u * self.read("coefficients", c)).sum(-1, keepdim=True)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        zero = constant([0], c)
        return zero[None], self.effect(c), zero[None, :0]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        return self.effect(c), constant([0], c)[None, :0]

    def extra_repr(self) -> str:
        beta = self.coefficients.detach().reshape(-1, len(self.covariates)).mean(0).tolist()
        text = f"{self.covariates}, coefficients=({', '.join(f'{x:.3g}' for x in beta)})"
        return text + ("" if self.series is None else f", series={self.series}")


class Irregular(Structural):
    r"""White noise as a state of its own.

    .. math:: z_t = \sigma \varepsilon_t

    An emission has a noise too, which costs nothing; as a state it can be looked at, and it is all
    there is in a model of nothing but noise, whose emission then has none.

    Args:
        scale: Initial standard deviation :math:`\sigma`.

    Shape:
        ``forward``: z ``(*S, B, T, 1)`` -> Distribution, batch ``(*S, B, T)``, event ``(1,)``.

    Example:
        >>> p = Irregular(0.5)
        >>> p(torch.ones(3, 1), Context.regular(3)).mean[0]
        tensor([0.])

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.
    """

    log_scale: Tensor

    def __init__(self, scale: Number = 0.5) -> None:
        if positive("scale", scale) is None:
            raise ValueError("an irregular component is a noise, found scale 0 or None; leave it.")
        super().__init__(Loading.of(1), initial_scale=(1.0,))
        self.handles_gaps = True
        self.learn_scale("scale", scale)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        zero = constant([0], c)
        return zero[None], zero, self.read("log_scale", c).exp()[..., None]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        return constant([0], c), self.read("log_scale", c).exp()[..., None]
