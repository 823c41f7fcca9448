"""Pictures of what a forecaster returns. Each function draws on the axes given, or on new ones.

New axes belong to a figure that pyplot does not know: nothing is left open and no setting changes.
``ax.figure`` shows the picture in a notebook, ``ax.figure.savefig("fan.png")`` writes it.
"""

from seqlatent.forecasting.plots.calibration import pit_histogram, reliability
from seqlatent.forecasting.plots.diagnostics import diagnostics
from seqlatent.forecasting.plots.fan import fan, fans
from seqlatent.forecasting.plots.horizon import horizon_scores
from seqlatent.forecasting.plots.latent import breaks, components, latents
from seqlatent.forecasting.plots.parameters import parameters
from seqlatent.forecasting.plots.spaghetti import spaghetti

__all__ = [
    "breaks",
    "components",
    "diagnostics",
    "fan",
    "fans",
    "horizon_scores",
    "latents",
    "parameters",
    "pit_histogram",
    "reliability",
    "spaghetti",
]
