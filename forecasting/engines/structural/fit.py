"""Fitting the structural mixture to a panel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from seqlatent.forecasting.engines.parameters import Marginals
from seqlatent.forecasting.engines.structural.attempts import Attempt, Attempts
from seqlatent.forecasting.engines.structural.drawing import USUAL, Drawing, told
from seqlatent.forecasting.engines.structural.fitted import Fitted, Member
from seqlatent.forecasting.engines.structural.named import marginals_of
from seqlatent.forecasting.engines.structural.outliers import Doubt, doubting, evidence_of
from seqlatent.forecasting.engines.structural.report import Stacking, chosen, undone
from seqlatent.forecasting.engines.structural.rows import Rows, prepared
from seqlatent.forecasting.engines.structural.specifications import (
    Specification,
    allowed_by,
    candidates,
    left_out,
    reading,
)
from seqlatent.forecasting.engines.structural.stacking import (
    CRITERIA,
    Block,
    by_heldout,
    calibration_factor,
    information_of,
    without,
)
from seqlatent.forecasting.engines.structural.trials import (
    Trials,
    ahead,
    blocks_of,
    trials_of,
)
from seqlatent.model import LatentModel
from seqlatent.scales import log_scales
from seqlatent.training import Deadline, EachHistory

__all__ = ["fit_structural"]

# Standard deviation of a logarithm ahead beyond which a series does not tell a distribution of it:
# the mean is then one of the tail.
_WIDEST = 1.5
_JUDGED = 64  # most series whose ends are hidden where there is a deadline


def fit_structural(
    y: Tensor,
    season_length: int | Sequence[int] = 1,
    horizon: int = 12,
    *,
    u: Tensor | None = None,
    specifications: Sequence[str | Specification] | None = None,
    criterion: str = "heldout",
    draws: int | None = None,
    bayes: bool = False,
    rows: int | None = None,
    sample: int | None = None,
    calibrate: bool = True,
    robust: bool | None = None,
    seed: int = 0,
    deadline: Deadline | None = None,
    each: float = 0.0,
    models: Sequence[LatentModel] | None = None,
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
        draws: Models of each specification, whose parameters are drawn from their posteriors; 2 by
            default, 16 with ``bayes``. Of normal approximations 1 has the modes.
        bayes: Whether posteriors are those of the exact likelihood, by weighted draws (see
            :func:`seqlatent.training.posterior_each`), rather than normal approximations.
        rows: Most rows of a series that are read, the last ones; 400 by default, or two of the
            longest season where the state is large.
        sample: Most series from which the distribution of the parameters is learned, and half of
            those for weights and widths; 256 by default, 64 where the state is large.
        calibrate: Whether all widths are multiplied by the factor with which 80 % intervals cover
            80 % of those blocks.
        robust: Whether values are doubted that may be outliers; see
            :class:`seqlatent.inference.Outliers`. None doubts them where the first specification
            finds more than a few, and so forecasts held-out blocks better; that costs one more fit
            of it.
        seed: Seed of sample, points and draws.
        deadline: By when to stop, with the specifications that there was time for.
        each: Seconds that each model costs after that.
        models: Untrained models of the specifications, with rows of parameters for as many series;
            built by default.

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
    season = season_length if isinstance(season_length, int) else min(season_length)
    allowed = allowed_by(y)
    wanted = candidates(
        season_length,
        covariate_dim=0 if u is None else u.shape[-1],
        specifications=specifications,
        **allowed,
    )
    usual = reading(wanted)
    rows, sample = (a if b is None else b for a, b in zip(usual, (rows, sample), strict=True))
    # weights and widths come after the last specification
    limit = (Deadline() if deadline is None else deadline).part(0.9)
    drawing = Drawing(USUAL[bayes] if draws is None else draws, bayes, seed)
    fit = _Fit(prepared(y, season, rows, u=u), sample, drawing, limit, robust)
    draws = drawing.draws
    asked = calibrate or criterion == "heldout"
    if asked:
        fit.hide(horizon)
    models = [f.model(len(y)) for f in wanted] if models is None else models
    for i, (specification, model) in enumerate(zip(wanted, models, strict=True)):
        if not fit.add(specification, model, horizon, (len(wanted) - i - 1) * draws * each):
            break
    absent = left_out(season_length, usual=specifications is None, **allowed)
    weights, stacking = fit.stacking(criterion, calibrate, absent)
    return Fitted(
        tuple(fit.members),
        (weights / draws).repeat_interleave(draws, 1),
        replace(stacking, posteriors=tuple(fit.posteriors), outliers=tuple(fit.said)),
        season,
        rows,
        not bool((y < 0).any()),
        fit.histories,
        tuple(undone(len(fit.specifications), len(wanted), fit.first, asked and fit.cut)),
        tuple(sorted(fit.untrusted)),
        tuple(replace(m, weight=w) for m, w in zip(fit.marginals, weights.mT, strict=True)),
    )


@dataclass
class _Fit:
    """A mixture on the way: specification after specification, then their weights and widths.

    Args:
        data: The panel.
        sample: Most series from which the distribution of the parameters is learned.
        drawing: How models are drawn.
        limit: By when to stop.
        robust: Whether values are doubted; None where that is to be found out.
        doubts: The outliers on the scale of values and on that of logarithms, None where there are
            none to be doubted.
        said: Why they are, in words.
        trials: Series without their end; None where none are hidden.
        specifications: The specifications that were fitted.
        members: Their models.
        histories: Records of their fits, by name.
        forecasts: Their forecasts of what was hidden.
        tells: Whether each series tells a distribution by each of them ``(B,)``.
        posteriors: How far weighted draws are to be trusted, in words.
        untrusted: Series where they are not.
        marginals: Posteriors of the parameters by each specification.
        slowest: Most seconds that one took.
        cut: Whether the last one was cut short.
    """

    data: Rows
    sample: int
    drawing: Drawing
    limit: Deadline
    robust: bool | None = None
    doubts: dict[bool, Doubt | None] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    trials: Trials | None = None
    specifications: list[Specification] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    histories: dict[str, EachHistory] = field(default_factory=dict)
    forecasts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    tells: list[Tensor] = field(default_factory=list)
    posteriors: list[str] = field(default_factory=list)
    untrusted: set[int] = field(default_factory=set)
    marginals: list[Marginals] = field(default_factory=list)
    slowest: float = 0.0
    cut: bool = False

    @property
    def first(self) -> EachHistory:
        """The record of the first specification."""
        return self.histories[self.specifications[0].name]

    def hide(self, horizon: int) -> None:
        """Hides ends of some series, on which specifications are judged."""
        judged = 2 * self.sample if self.limit.never else min(2 * self.sample, _JUDGED)
        self.trials = trials_of(self.data, horizon, judged, self.drawing.seed)

    def add(
        self, specification: Specification, model: LatentModel, horizon: int, spare: float
    ) -> bool:
        """Fits one more specification; False where there is no time for all of it.

        Args:
            specification: The specification.
            model: Its untrained model, with a row of parameters for each series.
            horizon: Steps ahead for which it is judged.
            spare: Seconds that those after it cost when they are fitted.
        """
        began, first = self.limit.spent, not self.specifications
        until = self.limit.sooner(-spare)
        if not first and (self.cut or until.left < self.slowest):
            return False
        attempts = Attempts(self.data, self.trials, self.sample, self.drawing, until)
        limit = until.part(0.6) if self.trials is not None and first else until
        log = specification.log
        found = attempts(specification, model, self.doubts.get(log, self._doubt), limit)
        if found.cut and not first:
            self.cut = True
            return False
        if log not in self.doubts:
            found = self._choose(attempts, specification, found)
        model, data, history, forecasts, self.cut, share = found
        drawn = self.drawing(model, data.sequences(specification.log), history, until)
        doubting(drawn.models, share)
        self.specifications.append(specification)
        self.histories[specification.name] = history
        self.members += [Member(specification, m) for m in drawn.models]
        self.tells.append(self._tells(specification, drawn.models, horizon))
        self.marginals.append(marginals_of(specification, model, self.data, drawn, history.pool))
        if self.drawing.bayes:
            self.posteriors.append(told(specification.name, drawn))
            if drawn.trusted is not None:
                self.untrusted |= set((~drawn.trusted).nonzero()[:, 0].tolist())
        if forecasts is None:
            self.trials = None
        else:
            self.forecasts.append(forecasts)
        self.slowest = max(self.slowest, self.limit.spent - began)
        return True

    @property
    def _doubt(self) -> Doubt | None:
        """The outliers of the first scale."""
        return next(iter(self.doubts.values()), None)

    def _choose(self, attempts: Attempts, specification: Specification, found: Attempt) -> Attempt:
        """The first attempt on the scale of values or of logarithms, or one that doubts them."""
        doubt = self._doubt
        if doubt is not None:
            found, doubt = attempts.on_another_scale(specification, found, doubt)
        elif not self.doubts:
            found, doubt, said = attempts.doubted(specification, found, self.robust)
            self.said += [said] if said else []
            if doubt is not None and self.trials is not None:
                # widths are those of values that are recorded right
                self.trials = self.trials.without(doubt.outlying)
        self.doubts[specification.log] = doubt
        return found

    def _tells(
        self, specification: Specification, drawn: Sequence[LatentModel], horizon: int
    ) -> Tensor:
        """Whether each series tells a distribution of what is ahead ``(B,)``."""
        if not specification.log:
            return torch.ones(len(self.data.y), dtype=torch.bool, device=self.data.y.device)
        batch = self.data.sequences(log=True)
        scale = ahead(drawn, batch, self.data, horizon)[1][..., -1].sqrt()
        return (scale <= _WIDEST).all(0)

    def stacking(
        self, criterion: str, calibrate: bool, absent: Sequence[str]
    ) -> tuple[Tensor, Stacking]:
        """Weights of each series ``(B, F)``, calibrated members, and why.

        Args:
            criterion: What decides on the weights.
            calibrate: Whether widths are calibrated.
            absent: Why other specifications were not compared.
        """
        y, information = self.data.y, None
        shared, heldout = by_heldout(self._blocks, self._log)
        if criterion in ("aic", "bic"):
            weights, information = information_of(
                self._evidence(), self._size(), self.data.y, self._log, criterion
            )
        else:
            if criterion == "equal":
                shared = torch.full_like(shared, 1 / len(shared))
            weights = shared.to(y.device).expand(len(y), -1)
        weights = without(weights, torch.stack(self.tells, 1))
        factor = self.calibrate(weights) if calibrate else 1.0
        series = len(y) if self.trials is None else len(self.trials.series)
        return weights, chosen(
            criterion, self.specifications, weights, heldout, information, absent, factor, series
        )

    @torch.no_grad()
    def calibrate(self, weights: Tensor) -> float:
        """Multiplies the standard deviations of all noises by what hidden ends ask for.

        Means stay, predictive widths grow.
        """
        if self.trials is None:
            return 1.0
        factor = calibration_factor(self._blocks, self._log, weights[self.trials.series])
        for member in self.members:
            for scale in log_scales(member.model).values():
                scale += math.log(factor)
        return factor

    def _size(self) -> list[int]:
        """Parameters of each specification."""
        return [self.histories[x.name].mode.shape[1] for x in self.specifications]

    def _evidence(self) -> Tensor:
        """Log evidence of all values of each series under each specification ``(B, F)``."""
        draws = len(self.members) // len(self.specifications)
        found = []
        for i, specification in enumerate(self.specifications):
            history, doubt = self.histories[specification.name], self.doubts[specification.log]
            evidence = history.evidence
            if doubt is not None:  # outliers, which had no part in the fit, count here
                model = self.members[i * draws].model
                evidence = evidence_of(model, history, self.data, specification.log, doubt.share)
            found.append(evidence)
        return torch.stack(found, 1)

    @property
    def _log(self) -> list[bool]:
        return [specification.log for specification in self.specifications]

    @property
    def _blocks(self) -> list[Block]:
        return [] if self.trials is None else blocks_of(self.trials, self.forecasts)


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
