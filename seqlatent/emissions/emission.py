"""Emission, the distribution of an observation given the latent state."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, constraints

from seqlatent.distributions import diagonal_normal, masked_log_prob, open_unit_interval
from seqlatent.sequences import Context

__all__ = ["Emission", "LinearEmission", "support_in_words"]


_WORDS = {
    constraints.nonnegative_integer: "counts (integers of at least 0)",
    constraints.boolean: "0 or 1",
    constraints.positive: "positive values",
    constraints.nonnegative: "values of at least 0",
    constraints.unit_interval: "values from 0 to 1",
    open_unit_interval: "values between 0 and 1, without the two",
}


def support_in_words(support: constraints.Constraint) -> str:
    """What values of a support are called in an error."""
    if isinstance(support, constraints.integer_interval):
        return f"class indices (integers from {support.lower_bound} to {support.upper_bound})"
    return _WORDS.get(support, str(support))


class Emission(nn.Module, ABC):
    r"""Distribution of an observation :math:`p(y_t \mid z_t, c_t)`, in the units of the data.

    ``forward`` does one step ``(*S, B, K)`` or all steps ``(*S, B, T, K)`` in one call and returns
    a distribution with event ``(D,)``. Real-valued families apply ``c.shift`` and ``c.scale`` as an
    affine map, counts and positive families apply the scale to their rate; a bounded family says by
    ``shifted`` that it reads both, and that values come with their own zero.

    Attributes:
        obs_dim: Observed dimensions ``D``.
        support: Where an observed value may lie, cell by cell.
    """

    obs_dim: int
    support: constraints.Constraint = constraints.real

    @property
    def shifted(self) -> tuple[bool, ...]:
        """Whether the family of each target reads ``c.shift``, as real-valued ones do."""
        return (self.support is constraints.real,) * self.obs_dim

    @property
    def supports(self) -> tuple[constraints.Constraint, ...]:
        """Where values of each target may lie."""
        return (self.support,) * self.obs_dim

    @property
    def differentiable(self) -> bool:
        """Whether draws have a gradient in the parameters; those of counts have none."""
        return not self.support.is_discrete

    @abstractmethod
    def forward(self, z: Tensor, c: Context) -> Distribution:
        """Distribution of the observation of each step."""

    def log_prob(self, y: Tensor, observed: Tensor, z: Tensor, c: Context) -> Tensor:
        """Log density of each step ``(*S, B, T)``; missing cells are integrated out."""
        return masked_log_prob(self(z, c), y, observed)

    def check(self, y: Tensor, observed: Tensor) -> None:
        """Verifies that every observed value lies in the family's support.

        Raises:
            ValueError: Naming the value, series, step and dimension, and what was expected.
        """
        if y.shape[-1] != self.obs_dim:
            raise ValueError(
                f"the emission has {self.obs_dim} observed dimensions, the sequences have "
                f"{y.shape[-1]}."
            )
        if self.support is constraints.real:
            return
        wrong = observed & ~self.support.check(y)
        if bool(wrong.any()):
            b, t, d = (int(i) for i in wrong.nonzero()[0])
            expected = support_in_words(self.supports[d])
            raise ValueError(
                f"{type(self).__name__} expects {expected}, found {y[b, t, d].item():g} at series "
                f"{b}, step {t}, dimension {d}; transform the values, mark the cell as missing, or "
                "choose another emission."
            )


class LinearEmission(Emission):
    r"""Emission that is linear and Gaussian given its context.

    .. math:: (y_t - \mathrm{shift}) / \mathrm{scale} = H_t z_t + d_t + N(0, R_t)

    A subclass supplies ``matrices`` in standardised units and says if its noise is independent.
    The shift and scale of each series are applied here: series that differ in nothing else share
    their matrices, and with them the covariances of a Kalman filter.

    Attributes:
        independent: Whether every ``R`` is diagonal.
    """

    independent: bool

    @abstractmethod
    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """``H (..., D, K)``, ``d (..., D)``, ``R (..., D, D)``, broadcastable against the batch."""

    def forward(self, z: Tensor, c: Context) -> Distribution:
        H, d, R = self.matrices(c)
        loc = c.shift + c.scale * ((H @ z[..., None])[..., 0] + d)
        if self.independent:
            scale = c.scale * R.diagonal(dim1=-2, dim2=-1).sqrt()
            return diagonal_normal(loc, scale.expand(loc.shape))
        R = c.scale[..., :, None] * R * c.scale[..., None, :]
        return MultivariateNormal(loc, covariance_matrix=R, validate_args=False)
