"""The structural recipe: what a forecaster does under the name "structural"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from seqlatent.forecasting.arguments import chosen
from seqlatent.forecasting.engine import OutOfTime
from seqlatent.forecasting.errors import ArgumentError, TargetError
from seqlatent.forecasting.scaling import leading
from seqlatent.forecasting.specs import Setting, Spec, Training, named
from seqlatent.forecasting.structural.choice import CRITERIA
from seqlatent.forecasting.structural.fit import fit_structural
from seqlatent.forecasting.structural.forms import Form, candidates, form_of, left_out, reading
from seqlatent.model import LatentModel

__all__ = ["one_target", "structural"]


def one_target(name: str, setting: Setting) -> None:
    """Raises a TargetError where there are several targets."""
    if setting.obs_dim > 1:
        raise TargetError(
            f"{name} forecasts one target, found {setting.obs_dim}; use 'srnn', 'vrnn' or "
            "'deep_markov', which model several jointly, or a forecaster for each target."
        )


@dataclass(frozen=True)
class Pooled:
    """Fits the structural mixture: parameters of each series under a law learned from all.

    Args:
        wanted: Forms in words, None for the usual ones.
        criterion: What decides on their shares.
        draws: Models of each form.
        rows: Most rows of a series that are read; None lets the seasons decide.
        calibrate: Whether widths are calibrated on held-out blocks.
    """

    wanted: tuple[str, ...] | None
    criterion: str
    draws: int
    rows: int | None
    calibrate: bool

    def forms(self, setting: Setting) -> tuple[Form, ...]:
        """The forms that are mixed."""
        return candidates(
            setting.season_lengths or 1,
            longest=setting.longest,
            # forms that were asked for are refused by what knows which row it is about
            positive=setting.least > 0 or self.wanted is not None,
            logarithms=setting.varied,
            covariate_dim=setting.covariate_dim,
            forms=self.wanted,
        )

    def read(self, setting: Setting) -> int:
        """Rows of a series that are read."""
        return reading(self.forms(setting))[0] if self.rows is None else self.rows

    def build(self, setting: Setting) -> Sequence[LatentModel]:
        """Each form as many times as there are draws."""
        one_target("structural", setting)
        forms = self.forms(setting)
        return [form.model(setting.series) for form in forms for _ in range(self.draws)]

    def transforms(self, setting: Setting) -> Sequence[str]:
        """Whether a member sees values or their logarithms."""
        forms = self.forms(setting)
        return ["log" if form.log else "none" for form in forms for _ in range(self.draws)]

    def __call__(self, models: Sequence[LatentModel], training: Training) -> np.ndarray:
        setting, numbers, each = training.setting, training.numbers, training.each
        deadline = training.job.deadline
        if deadline.left + (len(models) - self.draws) * each <= 0:
            raise OutOfTime(
                f"time_limit is too short: to filter {setting.series} series takes "
                f"{self.draws * each:.2g} s for one form"
            )
        most = min(self.read(setting), int(numbers.panel.lengths.max()))
        u = np.nan_to_num(leading(numbers.panel, numbers.u, most))
        fitted = fit_structural(
            torch.from_numpy(leading(numbers.panel, numbers.panel.y, most)[..., 0]),
            setting.season_lengths or 1,
            steps_ahead(setting),
            u=torch.from_numpy(u) if setting.covariate_dim else None,
            forms=self.forms(setting),
            criterion=self.criterion,
            draws=self.draws,
            rows=most,
            calibrate=self.calibrate,
            seed=training.job.seed,
            deadline=deadline,
            each=each,
        )
        # the first form alone, all of it, is a model; less than that has to be judged
        whole = all("forms" in text for text in fitted.undone)
        (training.spared if whole else training.said).extend(fitted.undone)
        for model, member in zip(models, fitted.members, strict=False):
            model.load_state_dict(member.model.state_dict())
        absent = left_out(
            setting.season_lengths or 1,
            longest=setting.longest,
            positive=setting.least > 0,
            logarithms=setting.varied,
            usual=self.wanted is None,
        )
        training.findings["choice"] = replace(fitted.choice, left_out=absent).to_dict()
        weights = np.zeros((setting.series, len(models)))
        weights[:, : len(fitted.members)] = fitted.weights.numpy()
        return weights


def steps_ahead(setting: Setting) -> int:
    """Steps ahead for which a forecaster is trained, which does not know what will be asked."""
    return max(6, min(round(1.5 * setting.season), 48))


@named("structural")
def structural(
    forms: Any = "auto",
    *,
    criterion: Any = "heldout",
    draws: int = 2,
    rows: int | None = None,
    calibrate: bool = True,
) -> Spec:
    """A mixture of structural models, inferred exactly, with parameters of each series.

    A damped trend, a level with a constant drift, one that is returned to and, where all values are
    positive and some series varies by a fifth of its level, both trends of logarithms, each with
    trigonometric seasons; the parameters of each series are fitted under a law of them that is
    learned from all series, and drawn from their posterior. Shares and widths come from blocks at
    the end of the series that the parameters did not see; ``Forecaster.report`` says which and why.

    Args:
        forms: ``"auto"``, the forms above, or a list of forms in words: ``"level"``, ``"drift"``,
            ``"damped"``, ``"smooth"``, ``"trend"`` or ``"reverting"``, with ``"log "``
            before it for logarithms and ``", fixed season"`` or ``", no season"`` after it.
        criterion: What decides on the share of each form: ``"heldout"``, ``"aic"``, ``"bic"`` or
            ``"equal"``; see :func:`seqlatent.forecasting.structural.fit_structural`.
        draws: Models of each form, whose parameters are drawn; 1 has the most probable ones.
        rows: Most rows of a series that are read, the last ones; None lets the seasons decide.
        calibrate: Whether the widths are multiplied by what held-out blocks ask for.

    Example:
        >>> from seqlatent.forecasting import spec_of
        >>> spec_of("structural", forms=["level", "log damped, fixed season"]).name
        'structural'
    """
    words = () if forms is None or forms == "auto" else forms
    if isinstance(words, str) or not isinstance(words, Iterable) or forms in ((), []):
        raise ArgumentError(
            f"forms must be 'auto' or a list of forms in words, found {forms!r}.", name="forms"
        )
    criterion = chosen("criterion", criterion, CRITERIA)
    wanted = tuple(words) or None
    for text in wanted or ():
        form_of(text)
    pooled = Pooled(wanted, criterion, draws, rows, calibrate)
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
