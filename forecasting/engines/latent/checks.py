"""Checks: which rows of a panel, targets and times latent models can take."""

from collections.abc import Sequence

import numpy as np
import torch

from seqlatent.emissions.emission import support_in_words
from seqlatent.forecasting.engines.spec import Spec
from seqlatent.forecasting.errors import DataError, TargetError, TimeError
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.frames.ranges import SINGLE, out_of_range, range_of
from seqlatent.model import LatentModel

__all__ = []


def check_training(
    spec: Spec, models: Sequence[LatentModel], kinds: Sequence[str], panel: Panel
) -> None:
    """Makes sure that models can be trained on a panel.

    Raises:
        DataError: If they cannot; it names the row where it is one.
    """
    _check_targets(spec, models, panel)
    _check_positive(spec, kinds, panel)
    _check_gaps(spec, models[0], panel)
    check_rows(spec, models[0], panel)


def check_rows(spec: Spec, model: LatentModel, panel: Panel) -> None:
    """Makes sure that a model can take all rows.

    Raises:
        DataError: If it cannot; it names the row.
    """
    _check_range(spec, panel)
    _check_support(model, panel)


def check_known(spec: Spec, panel: Panel, known: np.ndarray) -> None:
    """Makes sure that a model was fitted on all series, by their places there.

    Raises:
        DataError: If it was not; it names the first one.
    """
    if (known < 0).any():
        i = int(np.argmin(known))
        raise DataError(
            f"{panel.name(i)} is new, and {spec.name} has parameters of the series that it was "
            "fitted on alone; leave it out, or fit on its rows too.",
            id=panel.ids[i],
        )


def _check_targets(spec: Spec, models: Sequence[LatentModel], panel: Panel) -> None:
    """Models of one's own may be built for another number of targets."""
    found = panel.y.shape[1]
    for dims in (m.emission.obs_dim for m in models):
        if dims != found:
            raise TargetError(
                f"{spec.name} was built for {dims} target{'s' * (dims != 1)}, found "
                f"{found}; build the emission with data_summary.obs_dim dimensions, or name one "
                "target a forecaster."
            )


def _check_positive(spec: Spec, kinds: Sequence[str], panel: Panel) -> None:
    """Names the first row whose logarithm is none, where a member describes logarithms."""
    wrong = panel.y <= 0
    if "log" in kinds and wrong.any():
        r, d = (int(i) for i in np.argwhere(wrong)[0])
        raise panel.wrong(
            r,
            d,
            f"{spec.name} describes logarithms and expects positive values, found "
            f"{panel.y[r, d]:g}; leave logarithms out, or shift the values.",
        )


def _check_gaps(spec: Spec, model: LatentModel, panel: Panel) -> None:
    if panel.time_index.kind == "irregular" and not model.transition.handles_gaps:
        raise TimeError(
            f"{spec.name} expects times at regular steps, found irregular ones; use "
            "'srnn', 'deep_markov', 'latent_ode' or 'naive', or give the times a freq, which "
            "makes missing rows of the gaps."
        )


def _check_range(spec: Spec, panel: Panel) -> None:
    """Names the row that is out of the range of single precision."""
    if spec.dtype == torch.float64:
        return
    for d in range(panel.y.shape[1]):
        wrong = out_of_range(panel.y[:, d], panel.owner, panel.batch, SINGLE)
        if wrong.any():
            r = int(np.argmax(wrong))
            text = range_of(panel.y[r, d], SINGLE)
            raise panel.wrong(r, d, f"{spec.name} computes in single precision: {text}")


def _check_support(model: LatentModel, panel: Panel) -> None:
    """Names the row that an emission cannot take."""
    support = model.emission.support
    y = torch.from_numpy(np.nan_to_num(panel.y))
    wrong = (~support.check(y)).numpy() & ~np.isnan(panel.y)
    if wrong.any():
        r, d = (int(i) for i in np.argwhere(wrong)[0])
        raise panel.wrong(
            r,
            d,
            f"{type(model.emission).__name__} expects {support_in_words(support)}, found "
            f"{panel.y[r, d]:g}; correct the value, set it to NaN, or choose another emission.",
        )
