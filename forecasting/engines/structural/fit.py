"""Fitting the structural mixture to a panel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.report import Stacking, chosen
from seqlatent.forecasting.engines.structural.rows import (
    Rows,
    at,
    hidden,
    length,
    prepared,
    without_end,
)
from seqlatent.forecasting.engines.structural.specifications import (
    Specification,
    candidates,
    left_out,
    reading,
    varied,
)
from seqlatent.forecasting.engines.structural.stacking import (
    CRITERIA,
    Block,
    by_heldout,
    by_information,
    calibration_factor,
    without,
)
from seqlatent.model import LatentModel, moments
from seqlatent.sequences import Sequences
from seqlatent.training import Deadline, EachHistory, draws_each, fit_each

__all__ = ["Fitted", "Member", "fit_structural"]

# Standard deviation of a logarithm ahead beyond which a series does not tell a distribution of it:
# the mean is then one of the tail.
_WIDEST = 1.5
_POINTS = 32  # parameters from the best of which a series starts
# Blocks that are hidden one after the other at the end of each series: what shocks one spares the
# other. Few series have more of them, so many ends in all.
_BLOCKS, _ENDS, _MOST_BLOCKS = 2, 24, 12
_JUDGED = 64  # most series whose ends are hidden where there is a deadline


@dataclass(frozen=True)
class Member:
    """One model of the mixture, with parameters of each series.

    Args:
        specification: Its specification.
        model: The model; code ``b`` of a series names its row, ``B`` is a series not fitted.
    """

    specification: Specification
    model: LatentModel

    @property
    def log(self) -> bool:
        """Whether the model describes logarithms."""
        return self.specification.log

    def sequences(self, rows: Rows) -> Sequences:
        """The rows on the scale of the model."""
        return rows.sequences(self.log)


@dataclass(frozen=True)
class Fitted:
    """A fitted mixture.

    Args:
        members: The models, as many of each specification as there are draws.
        weights: Weight of each of them for each series ``(B, M)``.
        stacking: Which specifications have which weight, and why.
        season_length: Steps of the first season, 1 without.
        rows: Most rows of a series that are read, the last ones.
        nonnegative: Whether all values were at least 0.
        histories: Record of each specification's fit, by its name.
        undone: What was left undone for want of time, in words.
    """

    members: tuple[Member, ...]
    weights: Tensor
    stacking: Stacking
    season_length: int
    rows: int
    nonnegative: bool
    histories: dict[str, EachHistory] = field(repr=False)
    undone: tuple[str, ...] = ()

    @property
    def calibration_factor(self) -> float:
        """Factor of all standard deviations that the held-out blocks asked for."""
        return self.stacking.calibration_factor

    def prepare(self, y: Tensor, codes: Tensor | None = None) -> Rows:
        """Values ``(B, T)`` as rows; ``codes`` names their parameters, in order by default."""
        return prepared(y, self.season_length, self.rows, codes)


def fit_structural(
    y: Tensor,
    season_length: int | Sequence[int] = 1,
    horizon: int = 12,
    *,
    u: Tensor | None = None,
    specifications: Sequence[str | Specification] | None = None,
    criterion: str = "heldout",
    draws: int = 2,
    rows: int | None = None,
    sample: int | None = None,
    calibrate: bool = True,
    seed: int = 0,
    deadline: Deadline | None = None,
    each: float = 0.0,
) -> Fitted:
    """Fits the mixture to a panel.

    Args:
        y: Values ``(B, T)``, NaN where nothing was observed.
        season_length: Steps of a season, or of several; 1 for none.
        horizon: Steps ahead for which weights are chosen and widths calibrated.
        u: Covariates ``(B, T, U)``, as many as the specifications have; none by default.
        specifications: The specifications; see :func:`candidates`.
        criterion: What decides on the weight of each specification: ``"heldout"``, the CRPS of
            forecasts of the last two blocks of ``horizon`` steps under parameters fitted without
            them; ``"aic"`` or ``"bic"``, for each series; ``"equal"``, nothing.
        draws: Models of each specification, whose parameters are drawn from their posteriors; 1 has
            the modes.
        rows: Most rows of a series that are read, the last ones; 400 by default, or two of the
            longest season where the state is large.
        sample: Most series from which the distribution of the parameters is learned, and half of
            those for weights and widths; 256 by default, 64 where the state is large.
        calibrate: Whether all widths are multiplied by the factor with which 80 % intervals cover
            80 % of those blocks.
        seed: Seed of sample, points and draws.
        deadline: By when to stop, with the specifications that there was time for.
        each: Seconds that each model costs after that.

    Raises:
        ValueError: If there are no values, or infinite ones, or the criterion is unknown.

    Example:
        >>> from seqlatent.forecasting.engines.structural import fit_structural
        >>> y = torch.randn(5, 40, dtype=torch.float64).cumsum(1)
        >>> fitted = fit_structural(y, 4, horizon=4, specifications=["level", "damped"])
        >>> len(fitted.members), fitted.stacking.specifications
        (4, ('level, season 4', 'damped, season 4'))
    """
    _check(y, criterion)
    y = y.double()
    seen = ~y.isnan()
    season = season_length if isinstance(season_length, int) else min(season_length)
    allowed = {
        "longest": int(seen.sum(1).max()),
        "positive": bool((y[seen] > 0).all()),
        "logarithms": varied(y),
    }
    wanted = candidates(
        season_length,
        covariate_dim=0 if u is None else u.shape[-1],
        specifications=specifications,
        **allowed,
    )
    usual = reading(wanted)
    rows = usual[0] if rows is None else rows
    sample = usual[1] if sample is None else sample
    # what a few series say of the distribution of their parameters is soon learned
    stages = 5 if len(y) >= 16 else 2
    data = prepared(y, season, rows, u=u)
    asked = calibrate or criterion == "heldout"
    # weights and widths come after the last specification
    limit = (Deadline() if deadline is None else deadline).part(0.9)
    judged = 2 * sample if limit.never else min(2 * sample, _JUDGED)
    trials = _trials(data, horizon, judged, seed) if asked else None
    members: list[Member] = []
    histories: dict[str, EachHistory] = {}
    found: list[tuple[Tensor, Tensor]] = []
    tells = torch.ones(len(y), len(wanted), dtype=torch.bool, device=y.device)
    slowest, cut = 0.0, False
    for i, specification in enumerate(wanted):
        began = limit.spent
        until = limit.sooner(-(len(wanted) - i - 1) * draws * each)
        if i and (cut or until.left < slowest):
            break
        model, batch = specification.model(len(y)), data.sequences(specification.log)
        history = fit_each(
            model,
            batch,
            sample=sample,
            stages=stages,
            points=_POINTS,
            seed=seed,
            deadline=until.part(0.6) if trials is not None and not i else until,
        )
        cut = history.stopped == "time"
        forecasts = None
        if trials is not None and not cut:
            forecasts = _forecasts(specification, trials, history, draws, seed, until)
            cut = forecasts is None
        if cut and i:
            break
        histories[specification.name] = history
        drawn = draws_each(model, batch, history, draws, seed=seed)
        members += [Member(specification, m) for m in drawn]
        if specification.log:
            scale = _ahead(drawn, batch, data, horizon)[1][..., -1].sqrt()
            tells[:, i] = (scale <= _WIDEST).all(0)
        if forecasts is None:
            trials = None
        else:
            found.append(forecasts)
        slowest = max(slowest, limit.spent - began)
    first = next(iter(histories.values()))
    said = _undone(len(members) // draws, len(wanted), first, asked and cut)
    wanted = wanted[: len(members) // draws]
    tells = tells[:, : len(wanted)]
    log = [specification.log for specification in wanted]
    blocks = [] if trials is None else _blocks(trials, found)
    heldout_weights, heldout = by_heldout(blocks, log)
    information = None
    if criterion in ("aic", "bic"):
        weights, information = _by_information(wanted, histories, data, criterion)
    else:
        equal = torch.full_like(heldout_weights, 1 / len(wanted))
        weights = (
            (equal if criterion == "equal" else heldout_weights).to(y.device).expand(len(y), -1)
        )
    weights = without(weights, tells)
    factor = 1.0
    if calibrate and trials is not None:
        factor = calibration_factor(blocks, log, weights[trials.series])
        for member in members:
            _widen(member.model, factor)
    absent = left_out(season_length, usual=specifications is None, **allowed)
    counted = len(y) if trials is None else len(trials.series)
    stacking = chosen(criterion, wanted, weights, heldout, information, absent, factor, counted)
    return Fitted(
        tuple(members),
        (weights / draws).repeat_interleave(draws, 1),
        stacking,
        season,
        rows,
        bool((y[seen] >= 0).all()),
        histories,
        tuple(said),
    )


def _undone(made: int, wanted: int, history: EachHistory, blind: bool) -> list[str]:
    """What was left undone for want of time, in words."""
    said = (
        [f"stopped by time_limit after {made} of {wanted} specifications"] if made < wanted else []
    )
    reached, series = int((history.rounds > 0).sum()), len(history.rounds)
    if reached < series:
        said.append(
            f"time_limit: fitted {reached} of {series} series, others use the distribution of all"
        )
    elif history.stopped == "time":
        said.append("stopped by time_limit before the parameters had converged")
    if blind and made == 1:
        said.append("widths are not calibrated")
    return said


def _check(y: Tensor, criterion: str) -> None:
    if criterion not in CRITERIA:
        raise ValueError(
            f"criterion must be one of {', '.join(map(repr, CRITERIA))}, found {criterion!r}."
        )
    if y.ndim != 2 or not y.numel():
        raise ValueError(
            f"y must have shape (B, T) = (series, steps), none of them 0, found {tuple(y.shape)}."
        )
    if bool(y.isinf().any()):
        b, t = (int(i) for i in y.isinf().nonzero()[0])
        raise ValueError(
            f"y must be finite or NaN, found {y[b, t].item()} at series {b}, step {t}."
        )


class _Trials(NamedTuple):
    """Series without their end, several ends of each one after the other.

    Attributes:
        rows: What is left of them ``(K B, T)``.
        y: What was hidden ``(K, B, H)``.
        scale: Usual step of each ``(B,)``.
        series: Which series of the panel each is ``(B,)``.
    """

    rows: Rows
    y: Tensor
    scale: Tensor
    series: Tensor


def _trials(data: Rows, horizon: int, sample: int, seed: int) -> _Trials | None:
    """Some series without their end, then without more of it; None where nothing can be hidden."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.y), generator=generator)[:sample].to(data.y.device)
    whole = data.select(chosen)
    scale = whole.sequences(False).scale[:, 0]
    parts, targets = [], []
    for i in range(min(max(_BLOCKS, math.ceil(_ENDS / len(chosen))), _MOST_BLOCKS)):
        short = without_end(whole, horizon)
        target = hidden(whole, short, horizon)
        if i >= _BLOCKS:  # enough must be left of a series
            target = target.where(length(short.y)[:, None] >= 2 * horizon, torch.nan)
        if not bool((~target.isnan()).any()):
            break
        parts.append(short)
        targets.append(target)
        whole = short
    if not parts:
        return None
    y, t, u = (torch.cat([getattr(p, name) for p in parts]) for name in ("y", "t", "u"))
    rows = Rows(y, t, torch.arange(len(y), device=y.device), u, data.season_length)
    return _Trials(rows, torch.stack(targets), scale, chosen)


def _forecasts(
    specification: Specification,
    trials: _Trials,
    history: EachHistory,
    draws: int,
    seed: int,
    deadline: Deadline,
) -> tuple[Tensor, Tensor] | None:
    """Means and variances ``(D, K, B, H)`` of what follows, under parameters of what was.

    None where there is no time for all of them.
    """
    rows = trials.rows
    model, batch = specification.model(len(rows.y)), rows.sequences(specification.log)
    trial = fit_each(
        model, batch, pool=history.pool, points=_POINTS // 4, seed=seed, deadline=deadline
    )
    if trial.stopped == "time":
        return None
    mean, variance = _ahead(
        draws_each(model, batch, trial, draws, seed=seed), batch, rows, trials.y.shape[-1]
    )
    shape = (draws, *trials.y.shape)
    return mean.reshape(shape), variance.reshape(shape)


def _ahead(
    models: Sequence[LatentModel], batch: Sequences, rows: Rows, horizon: int
) -> tuple[Tensor, Tensor]:
    """Means and variances ``(D, B, H)`` of what follows each series."""
    place = length(rows.y)[:, None] + torch.arange(horizon, device=rows.y.device)
    u = at(rows.u, place)
    found = [moments(m, m.belief(batch, end=False), horizon, u=u) for m in models]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    return mean, variance


def _blocks(trials: _Trials, forecasts: Sequence[tuple[Tensor, Tensor]]) -> list[Block]:
    mean, variance = (torch.stack(x) for x in zip(*forecasts, strict=True))
    return [
        Block(y, mean[:, :, i], variance[:, :, i], trials.scale) for i, y in enumerate(trials.y)
    ]


def _by_information(
    specifications: Sequence[Specification],
    histories: dict[str, EachHistory],
    data: Rows,
    criterion: str,
) -> tuple[Tensor, Tensor]:
    """Shares of each series ``(B, F)``, and the sum of the criterion over series ``(F,)``."""
    # the evidence of the values, also of specifications that describe their logarithms
    jacobian = data.y.clamp_min(torch.finfo(data.y.dtype).tiny).log().nansum(1)
    evidence = torch.stack(
        [histories[f.name].evidence - (jacobian if f.log else 0.0) for f in specifications], 1
    )
    size = [histories[specification.name].mode.shape[1] for specification in specifications]
    return by_information(evidence, size, (~data.y.isnan()).sum(1), criterion)


@torch.no_grad()
def _widen(model: LatentModel, factor: float) -> None:
    """Multiplies the standard deviations of all noises: means stay, predictive widths grow."""
    for name, p in model.named_parameters():
        if name.rpartition(".")[2].startswith("log_"):
            p += math.log(factor)
