"""The structural forecaster: exact models of each series, pooled over the panel, a few forms mixed.

Order of calls, on padded values ``y (B, T)`` with NaN where nothing was observed:

1. ``fitted = fit_structural(y, season_length, horizon)`` fits every form and calibrates the widths.
2. ``rows = fitted.prepare(y)`` puts each series at the start of its row, on the clock of ``y``.
3. For each ``member`` of ``fitted.members``: ``sequences = member.sequences(rows)``, on a log scale
   where ``member.log``; ``belief = member.model.belief(sequences)``. The belief is what is saved
   and what ``member.model.update`` moves on.
4. ``mean, variance = moments(member.model, belief, horizon)``: exact, normal, and of the logarithm
   where ``member.log``. Stacked over members they give quantiles by :func:`mixture_quantiles`;
   paths of equally many futures from every member, ``member.model.forecast``, exponentiated where
   ``member.log``, are joint samples of the same law.
5. Where ``fitted.nonnegative`` all values were at least 0: clip quantiles and paths there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, moments, per_series
from seqlatent.sequences import Sequences
from seqlatent.training import EachHistory, draws_each, fit_each
from seqlatent.transitions import (
    Component,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Sum,
    TrigonometricSeasonal,
)

__all__ = [
    "Fitted",
    "Form",
    "Member",
    "candidates",
    "fit_structural",
    "mixture_quantiles",
    "reading",
    "standards",
]

_VAGUE = 20.0
_COEFFICIENT = 5.0  # in usual seasonal differences, per standard deviation of the covariate
_FACTORS = torch.linspace(-0.3, 0.9, 61, dtype=torch.float64)


@dataclass(frozen=True)
class Form:
    """A form of the structural model.

    Args:
        trend: ``"damped"``, ``"drift"`` (a level with a constant slope) or ``"level"``.
        seasons: Periods of its seasonal patterns, and the harmonics of each.
        log: Whether it describes the logarithm of the values.
        covariate_dim: Covariates, each with a constant coefficient of each series.
    """

    trend: str
    seasons: tuple[tuple[int, int], ...] = ()
    log: bool = False
    covariate_dim: int = 0

    @property
    def name(self) -> str:
        """The form in words."""
        seasons = "".join(f"+season{period}" for period, _ in self.seasons)
        return f"{self.trend}{seasons}{' of logarithms' if self.log else ''}"

    def model(self, series: int) -> LatentModel:
        """A model of this form with a row of parameters for each of so many series."""
        trend: Component
        if self.trend == "damped":
            trend = DampedTrend(
                0.3,
                0.03,
                damping=0.9,
                initial_scale=_VAGUE,
                initial_slope_scale=0.1,
                learn_initial_scale=True,
            )
        elif self.trend == "drift":
            trend = LocalLinearTrend(
                0.6,
                None,
                initial_scale=_VAGUE,
                initial_slope_scale=0.1,
                learn_initial_scale=True,
            )
        elif self.trend == "level":
            trend = LocalLevel(0.6, initial_scale=_VAGUE)
        else:
            raise ValueError(f'trend must be "damped", "drift" or "level", found {self.trend!r}.')
        parts: list[Component] = [trend]
        parts += [
            TrigonometricSeasonal(p, n, 0.02, initial_scale=0.5, learn_initial_scale=True)
            for p, n in self.seasons
        ]
        if self.covariate_dim:
            parts.append(Regression(range(self.covariate_dim), initial_scale=_COEFFICIENT))
        transition = Sum(parts)
        emission = LinearGaussian(
            transition.latent_dim, loading=transition.loading, bias=False, scale=0.4
        )
        return per_series(LatentModel(transition, emission, Kalman()).double(), series)


@dataclass(frozen=True)
class Member:
    """One model of the mixture, with parameters of each series.

    Args:
        form: Its form.
        model: The model; code ``b`` of a series names its row, ``B`` is a series not fitted.
    """

    form: Form
    model: LatentModel

    @property
    def log(self) -> bool:
        """Whether the model describes logarithms."""
        return self.form.log

    def sequences(self, rows: "Rows") -> Sequences:
        """The rows on the scale of the model."""
        return rows.sequences(self.log)


@dataclass(frozen=True)
class Rows:
    """Values of a panel, each series at the start of its row, and the clock that it had.

    Args:
        y: Values ``(B, T)``, NaN where nothing was observed.
        t: Times ``(B, T)``.
        codes: Row of parameters of each series ``(B,)``.
        u: Covariates ``(B, T, U)``.
        season_length: Steps of the season by which scales are taken.
    """

    y: Tensor
    t: Tensor
    codes: Tensor
    u: Tensor
    season_length: int

    def select(self, index: Tensor) -> "Rows":
        """Picks series by index."""
        return Rows(
            self.y[index], self.t[index], self.codes[index], self.u[index], self.season_length
        )

    def sequences(self, log: bool) -> Sequences:
        """The batch object, standardised by the usual size of a seasonal difference."""
        y = self.y.clamp_min(torch.finfo(self.y.dtype).tiny).log() if log else self.y
        shift, scale = standards(y, self.season_length)
        return Sequences.of(
            y[..., None], t=self.t, u=self.u, codes=self.codes[:, None], shift=shift, scale=scale
        )


@dataclass(frozen=True)
class Fitted:
    """A fitted mixture.

    Args:
        members: The models; all have the same weight.
        season_length: Steps of the first season, 1 without.
        rows: Most rows of a series that are read, the last ones.
        nonnegative: Whether all values were at least 0.
        widening: Factor of all standard deviations that a held-out block asked for.
        histories: Record of each form's fit, by its name.
        reason: Why these forms, in words.
    """

    members: tuple[Member, ...]
    season_length: int
    rows: int
    nonnegative: bool
    widening: float
    histories: dict[str, EachHistory] = field(repr=False)
    reason: str

    def prepare(self, y: Tensor, codes: Tensor | None = None) -> Rows:
        """Values ``(B, T)`` as rows; ``codes`` names their parameters, in order by default."""
        return prepared(y, self.season_length, self.rows, codes)


def candidates(
    season_length: int | Sequence[int], *, longest: int, positive: bool, covariate_dim: int = 0
) -> tuple[Form, ...]:
    """The forms that are mixed, given the season, the longest series, and the sign of the values.

    A damped trend and a constant drift forecast badly in different situations, and so do a trend of
    the values and one of their logarithms; which of them is wrong a series of usual length does not
    say. A drift of logarithms is exponential, and left out.

    Args:
        season_length: Steps of a season, or of several; 1 for none.
        longest: Observations of the longest series: a season is used where two fit in.
        positive: Whether all values are positive.
        covariate_dim: Covariates.
    """
    periods = [season_length] if isinstance(season_length, int) else sorted(set(season_length))
    seasons: list[tuple[int, int]] = []
    for period in periods:
        if period > 1 and longest >= 2 * period:
            # what the shorter season repeats is not described a second time
            least = min(p for p, _ in seasons) if seasons else 0
            most = period // least - 1 if least else period // 2
            seasons.append((period, max(1, min(most, 12 if not seasons else 6))))
    shared = {"seasons": tuple(seasons), "covariate_dim": covariate_dim}
    forms = [Form("damped", **shared), Form("drift", **shared)]
    if positive:
        forms.append(Form("damped", log=True, **shared))
    return tuple(forms)


def reading(forms: Sequence[Form]) -> tuple[int, int]:
    """Most rows of a series that are read, and series from which the law is learned."""
    longest = max((period for form in forms for period, _ in form.seasons), default=1)
    if any(sum(n for _, n in form.seasons) > 8 for form in forms):
        return max(2 * longest, 240), 64
    return max(400, 3 * longest), 256


def fit_structural(
    y: Tensor,
    season_length: int | Sequence[int] = 1,
    horizon: int = 12,
    *,
    u: Tensor | None = None,
    forms: Sequence[Form] | None = None,
    draws: int = 2,
    rows: int | None = None,
    sample: int | None = None,
    calibrate: bool = True,
    seed: int = 0,
) -> Fitted:
    """Fits the mixture to a panel.

    Args:
        y: Values ``(B, T)``, NaN where nothing was observed.
        season_length: Steps of a season, or of several; 1 for none.
        horizon: Steps ahead for which widths are calibrated.
        u: Covariates ``(B, T, U)``, as many as the forms have; none by default.
        forms: The forms; :func:`candidates` by default.
        draws: Models of each form, whose parameters are drawn from their posteriors; 1 has the
            modes.
        rows: Most rows of a series that are read, the last ones; 400 by default, or two of the
            longest season where the state is large.
        sample: Most series from which the law of the parameters and the widths are learned; 256 by
            default, 64 where the state is large.
        calibrate: Whether all widths are multiplied by the factor with which 80 % intervals cover
            80 % of the last ``horizon`` steps of each series, under parameters fitted without them.
        seed: Seed of sample, points and draws.

    Raises:
        ValueError: If there are no values, or infinite ones.

    Example:
        >>> y = torch.randn(5, 40, dtype=torch.float64).cumsum(1)
        >>> fitted = fit_structural(y, 4, horizon=4)
        >>> len(fitted.members), fitted.nonnegative
        (4, False)
    """
    if y.ndim != 2 or not y.numel():
        raise ValueError(
            f"y must have shape (B, T) = (series, steps), none of them 0, found {tuple(y.shape)}."
        )
    if bool(y.isinf().any()):
        b, t = (int(i) for i in y.isinf().nonzero()[0])
        raise ValueError(
            f"y must be finite or NaN, found {y[b, t].item()} at series {b}, step {t}."
        )
    y = y.double()
    seen = ~y.isnan()
    positive = bool((y[seen] > 0).all())
    season = season_length if isinstance(season_length, int) else min(season_length)
    if forms is None:
        longest = int(seen.sum(1).max())
        forms = candidates(season_length, longest=longest, positive=positive)
    usual = reading(forms)
    rows = usual[0] if rows is None else rows
    sample = usual[1] if sample is None else sample
    # what a few series say of the law of their parameters is soon learned
    stages = 5 if len(y) >= 16 else 2
    data = prepared(y, season, rows, u=u)
    members: list[Member] = []
    held: list[Member] = []
    histories: dict[str, EachHistory] = {}
    generator = torch.Generator().manual_seed(seed)
    some = data.select(torch.randperm(len(y), generator=generator)[:sample].to(y.device))
    short = _without_end(some, horizon)
    for form in forms:
        model, batch = form.model(len(y)), data.sequences(form.log)
        history = fit_each(model, batch, sample=sample, stages=stages, seed=seed)
        histories[form.name] = history
        members += [Member(form, m) for m in draws_each(model, batch, history, draws, seed=seed)]
        if calibrate:
            batch = short.sequences(form.log)
            trial = fit_each(model, batch, pool=history.pool)
            held += [Member(form, m) for m in draws_each(model, batch, trial, draws, seed=seed)]
    widening = 1.0
    if calibrate:
        widening = _best_factor(held, short, some, horizon)
        for member in members:
            _widen(member.model, widening)
    return Fitted(
        tuple(members),
        season,
        rows,
        bool((y[seen] >= 0).all()),
        widening,
        histories,
        "an equal mixture: "
        + ", ".join(form.name for form in forms)
        + ("" if positive else "; no logarithms, for some values are not positive"),
    )


def mixture_quantiles(
    mean: Tensor, variance: Tensor, log: Sequence[bool], levels: Sequence[float]
) -> Tensor:
    """Quantiles of an equal mixture of normal and log-normal laws, by bisection.

    Args:
        mean: Means of the members ``(M, *)``, of the logarithm where ``log`` says so.
        variance: Variances.
        log: Whether a member is log-normal.
        levels: Levels in (0, 1).

    Returns:
        Quantiles ``(*, L)``.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> mixture_quantiles(one[None], one[None], [False], [0.5])
        tensor([[1.]], dtype=torch.float64)
    """
    level = torch.as_tensor(levels, dtype=mean.dtype, device=mean.device)
    scale = variance.sqrt()[..., None]
    mean = mean[..., None]
    each = mean + scale * torch.special.ndtri(level)
    is_log = torch.as_tensor(log, device=mean.device).reshape(-1, *[1] * (mean.ndim - 1))
    each = torch.where(is_log, each.clamp_max(700.0).exp(), each)
    low, high = each.amin(0), each.amax(0)
    if len(mean) == 1:
        return low
    tiny = torch.finfo(mean.dtype).tiny
    for _ in range(50):
        middle = (low + high) / 2
        x = torch.where(is_log, middle.clamp_min(tiny).log(), middle)
        below = torch.special.ndtr((x - mean) / scale).mean(0) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def prepared(
    y: Tensor,
    season_length: int,
    rows: int,
    codes: Tensor | None = None,
    u: Tensor | None = None,
) -> Rows:
    """Moves each series to the start of its row, without what lies before its last rows."""
    batch, steps = y.shape
    seen = ~y.isnan()
    step = torch.arange(steps, device=y.device)
    first = torch.where(seen, step, steps).amin(1).clamp_max(steps - 1)
    last = torch.where(seen, step, -1).amax(1)
    first = torch.maximum(first, last + 1 - rows)
    width = max(int((last + 1 - first).max()), 1)
    at = first[:, None] + torch.arange(width, device=y.device)
    inside = at <= last[:, None]
    values = y.gather(1, at.clamp_max(steps - 1))
    known = y.new_zeros(batch, steps, 0) if u is None else u.to(y)
    known = _at(known, at) * inside[..., None]
    codes = torch.arange(batch, device=y.device) if codes is None else codes
    values = torch.where(inside, values, torch.nan)
    return Rows(values, at.to(y.dtype), codes, known, season_length)


def _at(u: Tensor, index: Tensor) -> Tensor:
    """Rows of ``u (B, T, U)`` at ``index (B, H)``, the last one where there is none."""
    index = index.clamp_max(u.shape[1] - 1)[..., None].expand(*index.shape, u.shape[-1])
    return u.gather(1, index)


def standards(y: Tensor, season_length: int) -> tuple[Tensor, Tensor]:
    """Mean of the first season, and the usual size of a difference over a season."""
    count = (~y.isnan()).sum(1)
    start = y[:, : max(season_length, 1)].nanmean(1).nan_to_num(0.0)
    size = y.abs().nanmean(1).nan_to_num(0.0)
    scale = torch.zeros_like(size)
    for lag in {1, season_length}:
        if lag < y.shape[1]:
            found = (y[:, lag:] - y[:, :-lag]).abs().nanmean(1).nan_to_num(0.0)
            use = (count > 1.5 * lag + 1) if lag > 1 else scale == 0
            scale = torch.where(use, found, scale)
    # a constant series has a width too, and one of a single value a generous one
    least = torch.where(count < 2, 0.1, 1e-4) * torch.where(size > 0, size, 1.0)
    scale = torch.where(scale > 1e-9 * size, scale, least).clamp_min(1e-290)
    return start[:, None], scale[:, None]


def _without_end(data: Rows, horizon: int) -> Rows:
    """Hides the last steps of each series: as many as the horizon, at most a third of it."""
    length = _length(data.y)
    hidden = torch.minimum(torch.full_like(length, horizon), length // 3)
    step = torch.arange(data.y.shape[1], device=data.y.device)
    keep = step < (length - hidden)[:, None]
    return replace(data, y=torch.where(keep, data.y, torch.nan))


def _length(y: Tensor) -> Tensor:
    step = torch.arange(1, y.shape[1] + 1, device=y.device)
    return torch.where(~y.isnan(), step, 0).amax(1)


def _best_factor(members: list[Member], short: Rows, data: Rows, horizon: int) -> float:
    """The factor of all standard deviations with which 80 % intervals cover 80 % of the hidden."""
    at = _length(short.y)[:, None] + torch.arange(horizon, device=data.y.device)
    u = _at(data.u, at)
    found = [
        moments(m.model, m.model.belief(short.sequences(m.log)), horizon, u=u) for m in members
    ]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    target = torch.nn.functional.pad(data.y, (0, horizon), value=torch.nan).gather(1, at)
    counted = ~target.isnan()
    if not bool(counted.any()):
        return 1.0
    rank = []
    for factor in _FACTORS.exp().tolist():
        law = mean, variance * factor**2, [m.log for m in members]
        rank.append(((_ranks(target, *law) - 0.5).abs() <= 0.4)[counted].double().mean())
    enough = (torch.stack(rank) >= 0.8).nonzero()[:, 0]
    best = _FACTORS[int(enough[0]) if len(enough) else -1].item()
    # what few series ask for is mostly chance
    return math.exp(best * len(target) / (len(target) + 10))


def _ranks(y: Tensor, mean: Tensor, variance: Tensor, log: Sequence[bool]) -> Tensor:
    """Levels in (0, 1) at which values lie in an equal mixture of normal and log-normal laws."""
    is_log = torch.as_tensor(log, device=y.device).reshape(-1, *[1] * y.ndim)
    x = torch.where(is_log, y.clamp_min(torch.finfo(y.dtype).tiny).log(), y)
    return torch.special.ndtr((x - mean) / variance.sqrt()).mean(0)


@torch.no_grad()
def _widen(model: LatentModel, factor: float) -> None:
    """Multiplies the standard deviations of all noises: means stay, predictive widths grow."""
    for name, p in model.named_parameters():
        if name.rpartition(".")[2].startswith("log_"):
            p += math.log(factor)
