"""Components that repeat: a pattern of so many steps, or harmonics of a period."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Number
from seqlatent.transitions.structural import Loading, Structural, constant, gap, noise_columns

__all__ = ["Seasonal", "TrigonometricSeasonal", "distinct_harmonics"]


class Seasonal(Structural):
    r"""A pattern of fixed period whose effects sum to zero, up to noise, over every period.

    .. math:: \gamma_t = -\sum_{j=1}^{s-1} \gamma_{t-j} + \sigma \varepsilon_t, \qquad
        z_t = [\gamma_t, \dots, \gamma_{t-s+2}]

    One state per season, so it fits short periods and patterns of any shape.

    Args:
        period: Steps :math:`s` of a period, at least 2.
        scale: Initial standard deviation :math:`\sigma`; None for a pattern that never changes.
        initial_scale: Standard deviation of the first effects, in units of the standardised series.
        learn_initial: Whether the mean of the first effects is learned, or 0.
        learn_initial_scale: Whether their common standard deviation is learned.

    Shape:
        ``forward``: z ``(*S, B, T, s-1)`` -> Distribution, batch ``(*S, B, T)``, event ``(s-1,)``.

    Example:
        >>> F, b, G = Seasonal(4, scale=0.5).matrices(Context.regular(1))
        >>> F
        tensor([[-1., -1., -1.],
                [ 1.,  0.,  0.],
                [ 0.,  1.,  0.]])

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), equation 3.3.
    """

    def __init__(
        self,
        period: int,
        scale: Number | None = 0.05,
        *,
        initial_scale: Number = 10.0,
        learn_initial: bool = False,
        learn_initial_scale: bool = False,
    ) -> None:
        if isinstance(period, bool) or not isinstance(period, int) or period < 2:
            raise ValueError(
                f"period must be an integer of at least 2 steps, found {period!r}; "
                "TrigonometricSeasonal takes any number."
            )
        super().__init__(
            Loading.of(1, *[0] * (period - 2)),
            initial_scale=(initial_scale,) * (period - 1),
            learn_initial=learn_initial,
            learn_initial_scale=(period - 1) * learn_initial_scale,
        )
        self.period = period
        self.learn_scale("scale", scale)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        size = self.latent_dim
        b = constant([0] * size, c)
        F = torch.ones_like(b[1:]).diag(-1)
        F[0] = -1.0
        return F, b, noise_columns(size, [(0, self.scale_of("scale", c))], c)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"period={self.period}", super().extra_repr()]))


class TrigonometricSeasonal(Structural):
    r"""Harmonics of a period, each of which turns and wanders.

    .. math::
        z^j_t = R(\lambda_j \Delta_t)\, z^j_{t-1} + \sqrt{\Delta_t}\,\sigma \varepsilon^j_t, \qquad
        \lambda_j = 2 \pi j / s, \quad R(\lambda) = \begin{bmatrix} \cos\lambda & \sin\lambda \\
        -\sin\lambda & \cos\lambda \end{bmatrix}

    Two states per harmonic, so it fits long and broken periods, and smooth patterns. The harmonic
    of period two has one state; it is defined on the grid alone, so that irregular times need
    fewer harmonics.

    Args:
        period: Steps :math:`s` of a period, any number of at least 2.
        harmonics: How many, at most half the period, or which of them; all there are by default.
        scale: Initial standard deviation :math:`\sigma` of all harmonics; None for no noise.
        initial_scale: Standard deviation of the first state, in units of the standardised series.
        learn_initial: Whether the mean of the first state is learned, or 0.
        learn_initial_scale: Whether their common standard deviation is learned.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> TrigonometricSeasonal(365.25, 3).latent_dim, TrigonometricSeasonal(4).latent_dim
        (6, 3)
        >>> TrigonometricSeasonal(168, (1, 2, 3)).latent_dim
        6

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.3.4.
    """

    def __init__(
        self,
        period: Number,
        harmonics: int | Iterable[int] | None = None,
        scale: Number | None = 0.05,
        *,
        initial_scale: Number = 10.0,
        learn_initial: bool = False,
        learn_initial_scale: bool = False,
    ) -> None:
        if not 2 <= period < math.inf:
            raise ValueError(f"period must be a number of at least 2 steps, found {period!r}.")
        chosen = _chosen(period, harmonics)
        frequencies = [2 * math.pi * j / period for j in chosen]
        alternates = 2 * chosen[-1] == period
        pairs = len(chosen) - alternates
        super().__init__(
            Loading.of(*[1, 0] * pairs, *[1] * alternates),
            initial_scale=(initial_scale,) * (2 * pairs + alternates),
            learn_initial=learn_initial,
            learn_initial_scale=(2 * pairs + alternates) * learn_initial_scale,
        )
        first = chosen == tuple(range(1, len(chosen) + 1))
        self.period, self.harmonics = period, len(chosen) if first else chosen
        self.frequencies, self.alternates = frequencies[:pairs], alternates
        self.handles_gaps = not alternates
        self.learn_scale("scale", scale)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        size, pairs, scale = self.latent_dim, len(self.frequencies), self.scale_of("scale", c)
        dt = gap(c) if self.handles_gaps else None
        angle = constant(self.frequencies, c) if dt is None else constant(self.frequencies, c) * dt
        F = angle.new_zeros(*angle.shape[:-1], size, size)
        for (i, j), block in zip(((0, 0), (0, 1), (1, 0), (1, 1)), _turns(angle), strict=True):
            at = torch.arange(0, 2 * pairs, 2, device=F.device)
            F[..., at + i, at + j] = block
        if self.alternates:
            F[..., -1, -1] = -1.0
        eye = torch.eye(size, dtype=F.dtype, device=F.device)
        G = eye[:, :0] if scale is None else eye * scale[..., None]
        if dt is not None:
            G = G * dt.sqrt()[..., None]
        return F, torch.zeros_like(eye[0]), G

    def extra_repr(self) -> str:
        shape = f"period={self.period:g}, harmonics={self.harmonics}"
        return ", ".join(filter(None, [shape, super().extra_repr()]))


def _chosen(period: Number, harmonics: int | Iterable[int] | None) -> tuple[int, ...]:
    """The harmonics of a period in order, of which there are at most half the period."""
    if not math.isfinite(period):
        raise ValueError(f"a period must be a finite number of steps, found {period!r}.")
    most = math.floor(period / 2)
    harmonics = most if harmonics is None else harmonics
    chosen = range(1, harmonics + 1) if isinstance(harmonics, int) else sorted(set(harmonics))
    if not chosen or not 1 <= chosen[0] <= chosen[-1] <= most:
        raise ValueError(
            f"a period of {period:g} steps has 1 to {most} harmonics, found {harmonics!r}: "
            "faster ones look like slower ones on the grid."
        )
    return tuple(chosen)


def distinct_harmonics(
    periods: Iterable[tuple[Number, int | None]], *, keep_empty: bool = False
) -> list[tuple[Number, tuple[int, ...]]]:
    r"""Harmonics of several periods, each frequency once: it belongs to the shortest period.

    Every seventh harmonic of a week of hours is one of the day. As states of both it would be in
    the model twice, and nothing could tell the two apart.

    Args:
        periods: Each period with the number of its harmonics, None for all there are.
        keep_empty: Whether a period that has no harmonic of its own is kept, rather than left out.

    Returns:
        Each period, in the order of the arguments, with the harmonics that are its own.

    Example:
        >>> from seqlatent.transitions import distinct_harmonics
        >>> distinct_harmonics([(24, 2), (168, 15)])[1]
        (168, (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15))
    """
    given = [(period, _chosen(period, harmonics)) for period, harmonics in periods]
    taken: list[float] = []
    kept: dict[int, tuple[int, ...]] = {}
    for i in sorted(range(len(given)), key=lambda i: given[i][0]):
        period, chosen = given[i]
        own = [j for j in chosen if all(abs(j / period - f) > 1e-9 for f in taken)]
        taken += [j / period for j in own]
        kept[i] = tuple(own)
    return [(period, kept[i]) for i, (period, _) in enumerate(given) if kept[i] or keep_empty]


def _turns(angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cos, sin = angle.cos(), angle.sin()
    return cos, sin, -sin, cos


def rotation(angle: Tensor) -> Tensor:
    """Rotation matrices ``(..., 2, 2)`` that turn clockwise by angles ``(...)``."""
    cos, sin, back, same = _turns(angle)
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([back, same], -1)], -2)
