"""Parameters of each series as networks of latents know them, in the words of the house."""

from collections.abc import Sequence

import numpy as np
import torch

from seqlatent.amortised import Seasons
from seqlatent.amortised.latents import PARAMETERS, LatentNetwork, at_levels
from seqlatent.amortised.latents import parameters as posteriors
from seqlatent.forecasting.engines.amortised import covariates, windows
from seqlatent.forecasting.engines.amortised.covariates import Covariates
from seqlatent.forecasting.engines.amortised.decomposition import absent, title
from seqlatent.forecasting.engines.amortised.predictor import Predictor
from seqlatent.forecasting.engines.parameters import Parameters, in_order
from seqlatent.forecasting.frames.panel import Panel

__all__ = []

_ALWAYS = "always"
_OPTIONAL = {"season", "long_season", "ar"}
_NONE = 1e-300

# What tells whether a series has a parameter.
_TOLD_BY = {
    "level.scale": "level.scale",
    "slope.scale": "slope.scale",
    "slope.damping": "slope",
    "season.drift": "season.drift",
    "season.amplitude": "season.amplitude",
    "long_season.amplitude": "long_season.amplitude",
    "ar.scale": "ar.scale",
    "ar.coefficient": "ar.scale",
    "noise.scale": _ALWAYS,
}

_RANGE = {"slope.damping": (0.0, 1.0), "ar.coefficient": (-1.0, 1.0)}

# What a series has or has not, and that is all that is known of it.
_EVENTS = {
    "level.break_rate": "level.breaks",
    "season.growth": "season.growth",
    "noise.heavy": "noise.heavy_tails",
    "noise.volatility": "noise.volatility",
    "noise.outlier_rate": "noise.outliers",
    "multiplicative": "observation.multiplicative",
}


def parameters(
    networks: Sequence[LatentNetwork],
    predictor: Predictor,
    panel: Panel,
    levels: Sequence[float],
    specification: str,
) -> Parameters:
    """Posteriors by the last rows of each series; NaN where there are fewer than two values.

    Args:
        networks: The networks.
        predictor: Seasons and effects of covariates, which are taken off before.
        panel: The rows.
        levels: Levels of the quantiles.
        specification: Who says so.
    """
    reads = predictor.reads_covariates
    state = windows.state_of(panel, predictor.length, reads)
    shape = panel.batch, panel.y.shape[1]
    y = torch.from_numpy(state["y"].reshape(-1, state["y"].shape[2]))
    seen = ~y.isnan()
    y = y.nan_to_num()
    if reads:
        u = state["u"].reshape(len(y), *state["u"].shape[2:])
        read = Covariates(u, np.zeros((len(y), 0, u.shape[1])))
        target = np.tile(np.arange(shape[1]), shape[0])
        past, _ = covariates.added(predictor.effects, y, seen, read, target)
        y = torch.where(seen, y - past, 0.0)
    found = posteriors(networks, y, seen, predictor.seasons)
    known = (seen.sum(1) > 1).numpy()
    ways = at_levels([0.5, *levels])
    # what networks of a prior of one's own have no component for is no parameter of theirs
    gone = absent(predictor.seasons) | (_OPTIONAL - set(networks[0].components))
    values, probability = {}, {}
    for name, kind in PARAMETERS.items():
        knots, by = found.of(name), _TOLD_BY[name]
        scaled = kind == "scale"
        x = (knots.clamp_min(_NONE).log() @ ways).exp() if scaled else knots @ ways
        values[name] = x.T.numpy().clip(*_RANGE.get(name, (0.0, np.inf)))
        told = torch.ones(len(y)) if by == _ALWAYS else found.probability(by)
        probability[name] = told.numpy()
    for name in _EVENTS:
        values[name] = np.full((1 + len(levels), len(y)), np.nan)
        probability[name] = found.probability(name).numpy()
    kept = [name for name in values if name.partition(".")[0] not in gone]
    shown = {_title(name, predictor.seasons): name for name in kept}
    names = in_order(shown)
    table = np.stack([np.where(known, values[shown[name]], np.nan) for name in names])
    share = np.stack([np.where(known, probability[shown[name]], np.nan) for name in names])
    table = table.reshape(len(names), -1, *shape)
    return Parameters(
        specification, names, table[:, 0], table[:, 1:], share.reshape(len(names), *shape)
    )


def _title(name: str, seasons: Seasons) -> str:
    """Name of a parameter as it is shown."""
    part, _, own = _EVENTS.get(name, name).partition(".")
    own = "scale" if own == "drift" else own  # of the change from one season to the next
    return f"{title(part, seasons)}.{own}"
