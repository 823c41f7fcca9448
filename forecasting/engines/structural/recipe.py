"""The structural recipe: what a forecaster does under the name "structural"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from seqlatent.forecasting.arguments import chosen
from seqlatent.forecasting.engines.engine import OutOfTime
from seqlatent.forecasting.engines.spec import DataSummary, Members, Spec, Training, register
from seqlatent.forecasting.engines.structural.drawing import USUAL
from seqlatent.forecasting.engines.structural.fit import fit_structural
from seqlatent.forecasting.engines.structural.specifications import (
    Specification,
    candidates,
    left_out,
    reading,
    specification_of,
)
from seqlatent.forecasting.engines.structural.stacking import CRITERIA
from seqlatent.forecasting.errors import ArgumentError, TargetError
from seqlatent.forecasting.features.scaling import leading
from seqlatent.model import LatentModel

__all__ = ["one_target", "structural"]


def one_target(name: str, data_summary: DataSummary) -> None:
    """Raises a TargetError where there are several targets."""
    if data_summary.obs_dim > 1:
        raise TargetError(
            f"{name} forecasts one target, found {data_summary.obs_dim}; use 'recurrent', 'srnn', "
            "'vrnn' or 'deep_markov', which model several jointly, or a forecaster for each target."
        )


@dataclass(frozen=True)
class Pooled:
    """Fits the structural mixture: parameters of each series under a distribution learned from all.

    Args:
        wanted: Forms in words, None for the usual ones.
        criterion: What decides on their weights.
        draws: Models of each specification.
        bayes: Whether their parameters are drawn by the exact likelihood.
        rows: Most rows of a series that are read; None lets the seasons decide.
        calibrate: Whether widths are calibrated on held-out blocks.
        robust: Whether values are doubted that may be outliers; None lets held-out blocks decide.
    """

    wanted: tuple[str, ...] | None
    criterion: str
    draws: int
    bayes: bool
    rows: int | None
    calibrate: bool
    robust: bool | None

    def specifications(self, data_summary: DataSummary) -> tuple[Specification, ...]:
        """The specifications that are mixed."""
        return candidates(
            data_summary.season_lengths or 1,
            longest=data_summary.longest,
            # specifications that were asked for are refused by what knows which row it is about
            positive=data_summary.least > 0 or self.wanted is not None,
            logarithms=data_summary.varied,
            covariate_dim=data_summary.covariate_dim,
            specifications=self.wanted,
        )

    def read(self, data_summary: DataSummary) -> int:
        """Rows of a series that are read."""
        return reading(self.specifications(data_summary))[0] if self.rows is None else self.rows

    def build(self, data_summary: DataSummary) -> Sequence[LatentModel]:
        """Each specification as many times as there are draws."""
        one_target("structural", data_summary)
        specifications = self.specifications(data_summary)
        return [
            specification.model(data_summary.series)
            for specification in specifications
            for _ in range(self.draws)
        ]

    def transforms(self, data_summary: DataSummary) -> Sequence[str]:
        """Whether a member sees values or their logarithms."""
        specifications = self.specifications(data_summary)
        return [
            "log" if specification.log else "none"
            for specification in specifications
            for _ in range(self.draws)
        ]

    def __call__(self, models: Sequence[LatentModel], training: Training) -> Members:
        # values, not logarithms of them, whichever specification comes first
        data_summary, panel, each = training.data_summary, training.panel, training.each
        deadline = training.fit_options.deadline
        if deadline.left + (len(models) - self.draws) * each <= 0:
            raise OutOfTime(
                f"time_limit is too short: to filter {data_summary.series} series takes "
                f"{self.draws * each:.2g} s for one specification"
            )
        most = min(self.read(data_summary), int(panel.lengths.max()))
        u = np.nan_to_num(leading(panel, training.model_data.u, most))
        fitted = fit_structural(
            torch.from_numpy(leading(panel, panel.y, most)[..., 0]),
            data_summary.season_lengths or 1,
            steps_ahead(data_summary),
            u=torch.from_numpy(u) if data_summary.covariate_dim else None,
            specifications=self.specifications(data_summary),
            criterion=self.criterion,
            draws=self.draws,
            bayes=self.bayes,
            rows=most,
            calibrate=self.calibrate,
            robust=self.robust,
            seed=training.fit_options.seed,
            deadline=deadline,
            each=each,
            models=models[:: self.draws],
        )
        # the first specification alone, all of it, is a model; less than that has to be judged
        whole = all("specifications" in text for text in fitted.undone)
        (training.spared if whole else training.said).extend(fitted.undone)
        absent = left_out(
            data_summary.season_lengths or 1,
            longest=data_summary.longest,
            positive=data_summary.least > 0,
            logarithms=data_summary.varied,
            usual=self.wanted is None,
        )
        training.summary["stacking"] = replace(fitted.stacking, left_out=absent).to_dict()
        text = "weights of its parameters are not to be trusted: some are drawn from normal ones"
        training.of_series.update(dict.fromkeys(fitted.untrusted, text))
        training.marginals.extend(fitted.marginals)
        weights = np.zeros((data_summary.series, len(models)))
        made = [member.model for member in fitted.members]
        weights[:, : len(made)] = fitted.weights.numpy()
        return Members([*made, *models[len(made) :]], weights)


def steps_ahead(data_summary: DataSummary) -> int:
    """Steps ahead for which a forecaster is trained, which does not know what will be asked."""
    return max(6, min(round(1.5 * data_summary.season), 48))


@register("structural")
def structural(
    specifications: Any = "auto",
    *,
    criterion: Any = "heldout",
    draws: int | None = None,
    bayes: bool = False,
    rows: int | None = None,
    calibrate: bool = True,
    robust: Any = None,
) -> Spec:
    """A mixture of structural models, inferred exactly, with parameters of each series.

    A damped trend, a level with a constant drift, one that is returned to and, where all values are
    positive and some series varies by a fifth of its level, both trends of logarithms, each with
    trigonometric seasons; the parameters of each series are fitted under a distribution of them
    that is learned from all series, and drawn from their posterior. Shares and widths come from
    blocks at the end of the series that the parameters did not see; ``Forecaster.report`` says
    which and why.

    Args:
        specifications: ``"auto"``, the specifications above, or a list of specifications in words:
            ``"level"``, ``"drift"``, ``"damped"``, ``"smooth"``, ``"trend"`` or ``"reverting"``,
            with ``"log "`` before it for logarithms and ``", fixed season"`` or ``", no season"``
            after it.
        criterion: What decides on the weight of each specification: ``"heldout"``, ``"aic"``,
            ``"bic"`` or ``"equal"``; see
            :func:`seqlatent.forecasting.engines.structural.fit_structural`.
        draws: Models of each specification, whose parameters are drawn: 2 by default, of which a
            single one has the most probable ones; 16 with ``bayes``.
        bayes: Whether parameters are drawn from their posterior by the exact likelihood, with
            weights whose quality (k-hat) ``Forecaster.report`` tells, rather than from a normal
            approximation of it. What is uncertain about the parameters is then in all forecasts,
            components and imputations; that costs time in proportion to ``draws``.
        rows: Most rows of a series that are read, the last ones; None lets the seasons decide.
        calibrate: Whether the widths are multiplied by what held-out blocks ask for.
        robust: Whether values are doubted that may be outliers: each then counts for as much as the
            rows before it make it credible, none that is an outlier has a part in the parameters,
            forecasts are of values that are recorded right, and scores know that some are not (see
            :class:`seqlatent.inference.Outliers`). None, the default, looks for outliers with the
            first specification of the values, and of the logarithms; where they are more than half
            a percent it is fitted without them, and held-out blocks choose. On clean panels that
            costs a few percent of the time of a fit, on others one or two more fits of that
            specification; rows are then read one by one, at several times the cost.

    Example:
        >>> from seqlatent.forecasting import spec_of
        >>> spec_of("structural", specifications=["level", "log damped, fixed season"]).name
        'structural'
    """
    words = () if specifications is None or specifications == "auto" else specifications
    if isinstance(words, str) or not isinstance(words, Iterable) or specifications in ((), []):
        raise ArgumentError(
            "specifications must be 'auto' or a list of specifications in words, found "
            f"{specifications!r}.",
            name="specifications",
        )
    criterion = chosen("criterion", criterion, CRITERIA)
    if robust is not None and not isinstance(robust, bool):
        raise ArgumentError(
            "robust must be True, False or None, which lets held-out blocks decide, found "
            f"{robust!r}.",
            name="robust",
        )
    wanted = tuple(words) or None
    for text in wanted or ():
        specification_of(text)
    pooled = Pooled(
        wanted, criterion, USUAL[bayes] if draws is None else draws, bayes, rows, calibrate, robust
    )
    return Spec(
        "structural",
        pooled.build,
        pooled,
        scaling="differences",
        calendar=False,
        statics=False,
        past=False,
        own=True,
        transform=pooled.transforms,
        bounded=True,
        context=pooled.read,
        samples=500,
        dtype=torch.float64,
    )
