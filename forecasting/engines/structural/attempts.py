"""Attempts: a specification fitted to all values, or to those that are no outliers."""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.drawing import Drawing
from seqlatent.forecasting.engines.structural.outliers import Doubt, doubt_of, outliers_of
from seqlatent.forecasting.engines.structural.rows import Rows
from seqlatent.forecasting.engines.structural.specifications import Specification
from seqlatent.forecasting.engines.structural.stacking import by_heldout
from seqlatent.forecasting.engines.structural.trials import (
    POINTS,
    Trials,
    blocks_of,
    forecasts_of,
)
from seqlatent.model import LatentModel
from seqlatent.training import Deadline, EachHistory, fit_each

__all__ = []

_ROUNDS = 2  # of fits without the outliers that the one before found
_GROWN = 1.1  # times as many are worth another
_OTHER = 0.25  # of the outliers: so many others are worth another fit
_TIMES = 3  # fits as long as the first that a doubt takes at most


class Attempt(NamedTuple):
    """A fit of a specification, and what it forecasts.

    Attributes:
        model: The model, which does not doubt.
        data: The values that it was fitted to.
        history: The record of the fit.
        forecasts: Forecasts of what was hidden; None where nothing is, or time was short.
        cut: Whether it was cut short.
        share: How many outliers are to be expected.
    """

    model: LatentModel
    data: Rows
    history: EachHistory
    forecasts: tuple[Tensor, Tensor] | None
    cut: bool
    share: float


@dataclass(frozen=True)
class Attempts:
    """How specifications are fitted and tried.

    Args:
        data: The panel.
        trials: Series without their end; None where none are hidden.
        sample: Most series from which the distribution of the parameters is learned.
        drawing: How models are drawn.
        until: By when to stop.
    """

    data: Rows
    trials: Trials | None
    sample: int
    drawing: Drawing
    until: Deadline

    def __call__(
        self,
        specification: Specification,
        model: LatentModel,
        doubt: Doubt | None,
        limit: Deadline,
    ) -> Attempt:
        """Fits a model by a time limit, and forecasts what was hidden in the time after it."""
        data, share = self.data, 0.0
        if doubt is not None:
            data, share = replace(data, outlying=doubt.outlying), doubt.share
        history = self._fit(model, data, specification.log, limit)
        cut, forecasts = history.stopped == "time", None
        if self.trials is not None and not cut:
            forecasts = self._forecasts(specification, model, history, share)
            cut = forecasts is None
        return Attempt(model, data, history, forecasts, cut, share)

    def _fit(
        self,
        model: LatentModel,
        data: Rows,
        log: bool,
        limit: Deadline,
        stages: int | None = None,
    ) -> EachHistory:
        return fit_each(
            model,
            data.sequences(log),
            sample=self.sample,
            stages=stages or _stages(len(data.y)),
            points=POINTS,
            seed=self.drawing.seed,
            deadline=limit,
        )

    def _forecasts(
        self,
        specification: Specification,
        model: LatentModel,
        history: EachHistory,
        share: float,
    ) -> tuple[Tensor, Tensor] | None:
        assert self.trials is not None
        trials = self.trials
        if share:
            units = self.data.sequences(specification.log)
            shift, scale = units.shift[trials.series], units.scale[trials.series]
            log, series = specification.log, self.data.codes[trials.series]
            trials = trials._replace(
                rows=outliers_of(model, trials.rows, log, share, series, shift, scale)
            )
        judged = self.drawing.judged()
        return forecasts_of(specification, trials, history, judged, self.until, share)

    def doubted(
        self, specification: Specification, plain: Attempt, robust: bool | None
    ) -> tuple[Attempt, Doubt | None, str]:
        """A fit with a doubt of outliers, or the plain one, and why.

        Args:
            specification: The specification.
            plain: Its fit to all values.
            robust: Whether to doubt; None where there are outliers, and held-out blocks are
                forecast better.
        """
        if robust is False or plain.cut or (robust is None and plain.forecasts is None):
            return plain, None, ""
        if self.until.left < _TIMES * plain.history.seconds:
            return plain, None, "outliers are not looked for, for want of time"
        log = specification.log
        doubt = doubt_of(plain.model, self.data, log, few=robust is None)
        if doubt.rare and robust is None:
            return plain, None, ""
        # some are seen only once the greatest have no part in the widths
        model = copy.deepcopy(plain.model)
        for _ in range(_ROUNDS):
            data, before = replace(self.data, outlying=doubt.outlying), doubt.share
            history = self._fit(model, data, log, self.until, 2)
            if history.stopped == "time":
                break
            doubt = doubt_of(model, self.data, log, share=before)
            if doubt.share <= _GROWN * before:
                break
        found = self(specification, model, doubt, self.until)
        if found.cut:
            return plain, None, "outliers are not doubted, for want of time"
        said = f"{100 * doubt.share:.1f} % lie apart"
        if plain.forecasts is None or found.forecasts is None or self.trials is None:
            return found, doubt, f"{said}, and are doubted"
        blocks = blocks_of(self.trials, [plain.forecasts, found.forecasts])
        _, heldout = by_heldout(blocks, [log, log])
        assert heldout is not None
        change = 100 * (float(heldout.crps[1] / heldout.crps[0]) - 1)
        compared = f"CRPS {abs(change):.1f} % {'higher' if change > 0 else 'lower'} with it"
        if robust or change <= 0:
            return found, doubt, f"{said}, and are doubted: {compared}"
        return plain, None, f"{said}, and are not doubted: {compared}"

    def on_another_scale(
        self, specification: Specification, found: Attempt, doubt: Doubt
    ) -> tuple[Attempt, Doubt]:
        """A fit on the other scale, of values or logarithms, without what is an outlier there.

        Args:
            specification: The specification.
            found: Its fit without the outliers of the first scale.
            doubt: These.
        """
        own = doubt_of(found.model, self.data, specification.log, share=doubt.share)
        other = (own.outlying ^ doubt.outlying).sum()
        most = torch.maximum(own.outlying.sum(), doubt.outlying.sum())
        if found.cut or bool(other <= _OTHER * most):
            return found, doubt
        again = self(specification, copy.deepcopy(found.model), own, self.until)
        return (found, doubt) if again.cut else (again, own)


def _stages(series: int) -> int:
    """Rounds in which the distribution of the parameters is learned."""
    # what a few series say of it is soon learned
    return 5 if series >= 16 else 2
