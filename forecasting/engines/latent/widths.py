"""Widths: noises multiplied by what a block asks for that is held out of a second fit."""

import math

import numpy as np
import torch

from seqlatent.forecasting.engines import calibration
from seqlatent.forecasting.engines.calibration import Calibration
from seqlatent.forecasting.engines.engine import Engine, FitOptions, OutOfTime
from seqlatent.forecasting.engines.latent.ensemble import Ensemble
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.scales import log_scales

__all__ = []

LATE = Calibration(why="no time was left for a second fit")


def widened(
    trial: Engine, ensemble: Ensemble, panel: Panel, fit_options: FitOptions, spent: float
) -> Calibration:
    """Multiplies the noises of linear Gaussian members, in place, by one factor for all leads.

    Means stay, and with the noises all that the models say is as wide as forecasts should be.

    Args:
        trial: The engine that is fitted to what is left, without calibration.
        ensemble: The members.
        panel: All rows.
        fit_options: What the first fit was told, its deadline less what is to follow.
        spent: Seconds that the first fit took.
    """
    found = _factor(trial, ensemble.data_summary.season, panel, fit_options, spent)
    if not found.plain:
        with torch.no_grad():
            for model in ensemble.models:
                for scale in log_scales(model).values():
                    scale += math.log(found.factors[0][0])
    return found


def _factor(
    trial: Engine, season: int, panel: Panel, fit_options: FitOptions, spent: float
) -> Calibration:
    """What the block asks for."""
    horizon = calibration.usual_horizon(season, panel.lengths)
    block = calibration.held_out(panel, horizon, max(4, season + 1))
    if block is None:
        return Calibration(why=f"no series has a block of {horizon} rows to hold out")
    if len(block.head.ids) < calibration.LEAST:
        return calibration.calibrated([block.truth * np.nan])
    if fit_options.deadline.left < 2 * spent:
        return LATE
    seed = fit_options.seed
    try:
        trial.fit(block.head, fit_options)
    except OutOfTime:
        return LATE
    if trial.stopped:
        return LATE
    state = trial.start(block.head, seed)
    found = trial.marginals(state, block.future, calibration.ENDS, trial.samples, seed)
    return calibration.calibrated([calibration.scores_of(block.truth, found.quantiles)], parts=1)
