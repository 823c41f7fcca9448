"""Data to develop and test models on: simulators with known truth, classic series, benchmark sets.

Importing this package reads no file, and imports neither pandas nor statsmodels.
"""

from seqlatent.datasets.archive import cache_folder, load
from seqlatent.datasets.catalogue import Dataset, Source, Task, catalogue, tasks
from seqlatent.datasets.classics import (
    co2,
    danish_money,
    elec_equip,
    elnino,
    grunfeld,
    interest_inflation,
    macrodata,
    nile,
    sunspots,
)
from seqlatent.datasets.linear_systems import linear_gaussian, switching
from seqlatent.datasets.music import piano_rolls
from seqlatent.datasets.panels import load_long, split
from seqlatent.datasets.physics import lorenz, pendulum, pendulum_images
from seqlatent.datasets.rates import seasonal_counts, stochastic_volatility
from seqlatent.datasets.simulated import Simulated, exponential_gaps, lognormal_gaps

__all__ = [
    "Dataset",
    "Simulated",
    "Source",
    "Task",
    "cache_folder",
    "catalogue",
    "co2",
    "danish_money",
    "elec_equip",
    "elnino",
    "exponential_gaps",
    "grunfeld",
    "interest_inflation",
    "linear_gaussian",
    "load",
    "load_long",
    "lognormal_gaps",
    "lorenz",
    "macrodata",
    "nile",
    "pendulum",
    "pendulum_images",
    "piano_rolls",
    "seasonal_counts",
    "split",
    "stochastic_volatility",
    "sunspots",
    "switching",
    "tasks",
]
