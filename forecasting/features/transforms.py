"""Transforms of targets before a model sees them, and the way back."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

__all__ = ["TRANSFORMS", "BoxCox", "Identity", "Transform"]


class Transform(ABC):
    """An increasing map of targets; quantiles go back through it unchanged.

    Args:
        least: The least positive value of training.
    """

    def __init__(self, least: float = 1.0) -> None:
        self.least = least

    @abstractmethod
    def forward(self, y: np.ndarray) -> np.ndarray:
        """Targets as the model sees them."""

    @abstractmethod
    def inverse(self, y: np.ndarray) -> np.ndarray:
        """Back to the units of the data."""

    @abstractmethod
    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Mean in the units of the data of what is normal on the model's side."""

    @abstractmethod
    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        """``log |d forward / dy|`` of each cell, for densities."""


class Identity(Transform):
    """Leaves targets as they are."""

    def forward(self, y: np.ndarray) -> np.ndarray:
        return y

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return mean

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return np.zeros_like(y)


class Log(Transform):
    """Logarithm, for positive series that grow and vary in proportion to their level.

    Training data are positive. What comes later may not be, an outage that is a zero: it counts as
    a tenth of the least value of training, which is far off and yet finite.
    """

    def forward(self, y: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(y, self.least / 10))

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(y, 700.0))

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(mean + scale**2 / 2, 700.0))

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(y, self.least / 10))


class BoxCox(Transform):
    r"""Power, between the logarithm and leaving positive targets as they are.

    .. math::
        x = \frac{(y + o)^\lambda - 1}{\lambda}, \qquad
        x = \log(y + o) \text{ at } \lambda = 0

    The way back is increasing, so that quantiles go back exactly; below the least that a power can
    be it stays at zero. Exponents are not negative: with such a one a forecast has no mean.

    Args:
        least: The least positive value of training.
        exponent: The exponent :math:`\lambda`, at least 0.
        offset: What is added before :math:`o`, for targets that are zero.

    Raises:
        ValueError: If the exponent or the offset is negative, or ``least`` is not positive.

    Example:
        >>> import numpy as np
        >>> from seqlatent.forecasting.features.transforms import BoxCox
        >>> square_root = BoxCox(exponent=0.5)
        >>> square_root.forward(np.array([4.0, 9.0])), square_root.inverse(np.array([2.0, 4.0]))
        (array([2., 4.]), array([4., 9.]))

    References:
        An Analysis of Transformations (Box & Cox, 1964).
    """

    def __init__(self, least: float = 1.0, *, exponent: float = 0.5, offset: float = 0.0) -> None:
        for name, value in (("exponent", exponent), ("offset", offset)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} must be a number of at least 0, found {value!r}.")
        if not 0 < least < np.inf:
            raise ValueError(f"least must be the least positive value, found {least!r}.")
        super().__init__(float(least))
        # below it a power cannot be told from a logarithm
        self.exponent = float(exponent) if exponent > 1e-6 else 0.0
        self.offset = float(offset)

    @classmethod
    def of(
        cls,
        y: np.ndarray,
        *,
        season_length: int = 1,
        method: "Callable[..., float] | None" = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> "BoxCox":
        """Chooses exponent and offset for one series.

        Zeros are shifted by half of the least positive value.

        Args:
            y: Targets of training ``(T,)``, NaN where missing.
            season_length: Steps in a season.
            method: How the exponent is chosen: :func:`guerrero`, the default, or
                :func:`likelihood`.
            bounds: Least and largest exponent.

        Raises:
            ValueError: If a target is negative, none is positive, or the bounds are out of order.

        Example:
            >>> import numpy as np
            >>> from seqlatent.forecasting.features.transforms import BoxCox
            >>> t = np.arange(96)
            >>> y = np.exp(0.03 * t + 0.3 * np.sin(2 * np.pi * t / 12))
            >>> BoxCox.of(y, season_length=12).exponent < 0.05
            True
        """
        y = np.asarray(y, float).ravel()
        seen = y[np.isfinite(y)]
        if (seen < 0).any():
            raise ValueError(
                f"a power needs targets of at least 0, found {seen.min():g}; leave the series as "
                "it is."
            )
        if not (seen > 0).any():
            raise ValueError(
                "a power needs positive targets, found none; leave the series as it is."
            )
        if not 0 <= bounds[0] < bounds[1]:
            raise ValueError(f"bounds must be two exponents of at least 0, found {bounds!r}.")
        least = float(seen[seen > 0].min())
        offset = 0.0 if (seen > 0).all() else least / 2
        choose = guerrero if method is None else method
        exponent = choose(y + offset, season_length=season_length, bounds=bounds)
        return cls(least, exponent=exponent, offset=offset)

    def _positive(self, y: np.ndarray) -> np.ndarray:
        return np.maximum(np.asarray(y, float) + self.offset, self.least / 10)

    def forward(self, y: np.ndarray) -> np.ndarray:
        return _power(np.log(self._positive(y)), self.exponent)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        y = np.asarray(y, float)
        if self.exponent:
            with np.errstate(divide="ignore"):
                y = np.log1p(np.maximum(self.exponent * y, -1.0)) / self.exponent
        return np.maximum(np.exp(np.minimum(y, 700.0)) - self.offset, 0.0)

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        mean, scale = np.asarray(mean, float), np.asarray(scale, float)
        nodes, weights = np.polynomial.hermite_e.hermegauss(96)
        found = self.inverse(mean[..., None] + scale[..., None] * nodes)
        return found @ (weights / weights.sum())

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return (self.exponent - 1) * np.log(self._positive(y))


def guerrero(
    y: np.ndarray, *, season_length: int = 1, bounds: tuple[float, float] = (0.0, 1.0)
) -> float:
    r"""Exponent after which a series varies as much where it is high as where it is low.

    .. math:: \min_\lambda \operatorname{cv}_i\, \frac{s_i}{m_i^{1 - \lambda}}

    with mean and standard deviation of every season, or of every two steps where there is none, and
    their coefficient of variation cv. A series that does not vary keeps an exponent of one.

    Args:
        y: Positive targets ``(T,)``, NaN where missing.
        season_length: Steps in a season.
        bounds: Least and largest exponent.

    References:
        Time-Series Analysis Supported by Power Transformations (Guerrero, 1993).
    """
    y, length = np.asarray(y, float), max(season_length, 2)
    blocks = y[len(y) % length :].reshape(-1, length)
    blocks = blocks[np.isfinite(blocks).sum(-1) >= 2]
    if len(blocks) < 2:
        return min(1.0, bounds[1])
    mean, scale = np.nanmean(blocks, -1), np.nanstd(blocks, -1, ddof=1)
    if not (scale > 0).any():
        return min(1.0, bounds[1])

    def variation(exponent: float) -> float:
        # in units of a typical mean: a power of what is far from one would overflow
        ratio = scale / (mean / np.median(mean)) ** (1 - exponent)
        return float(ratio.std(ddof=1) / ratio.mean())

    return _minimum(variation, bounds)


def likelihood(
    y: np.ndarray, *, season_length: int = 1, bounds: tuple[float, float] = (0.0, 1.0)
) -> float:
    r"""Exponent under which a series is most probably a line with a season and normal noise.

    .. math::
        \max_\lambda\, -\frac n2 \log \operatorname{RSS}(\lambda) + (\lambda - 1) \sum_t \log y_t

    Args:
        y: Positive targets ``(T,)``, NaN where missing.
        season_length: Steps in a season.
        bounds: Least and largest exponent.

    References:
        An Analysis of Transformations (Box & Cox, 1964).
    """
    y = np.asarray(y, float)
    step = np.arange(len(y))
    seasons = step[:, None] % season_length == np.arange(season_length)
    line = np.column_stack([step / max(len(y), 1), seasons])[np.isfinite(y)]
    y = y[np.isfinite(y)]
    log = np.log(y)
    log = log - log.mean()
    if len(y) <= np.linalg.matrix_rank(line) or np.ptp(log) == 0:
        return min(1.0, bounds[1])
    directions, size, _ = np.linalg.svd(line, full_matrices=False)
    basis = directions[:, size > 1e-9 * size[0]]

    def loss(exponent: float) -> float:
        x = _power(log, exponent)
        rest = x - basis @ (basis.T @ x)
        # with targets in units of their geometric mean the Jacobian is one
        return float(np.log(rest @ rest + np.finfo(float).tiny))

    return _minimum(loss, bounds)


def _power(log: np.ndarray, exponent: float) -> np.ndarray:
    """The power of what has these logarithms."""
    return np.expm1(exponent * log) / exponent if exponent else log


def _minimum(loss: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """Where a function of one number is least: on a grid, and then around its best point."""
    (low, high), best = bounds, bounds[0]
    for _ in range(3):
        grid = np.linspace(low, high, 33)
        i = int(np.argmin([loss(float(x)) for x in grid]))
        low, best, high = grid[max(i - 1, 0)], grid[i], grid[min(i + 1, 32)]
    return float(best)


TRANSFORMS: dict[str, type[Transform]] = {"none": Identity, "log": Log}
