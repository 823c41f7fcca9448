"""Networks that have learned from drawn series what follows from a past."""

from seqlatent.amortised.adaptation import Adaptation, Adapted, Windows, adapt, adapted
from seqlatent.amortised.curriculum import Batch, Curriculum
from seqlatent.amortised.effects import (
    Effects,
    effects_of,
    with_added,
    with_effects,
    without_effects,
)
from seqlatent.amortised.forecast import Forecast, forecast
from seqlatent.amortised.network import Network, Raw
from seqlatent.amortised.past import Past, Seasons, context_of, past_of
from seqlatent.amortised.quantiles import LEVELS, SCORES, QuantileFunction
from seqlatent.amortised.refused import require_moving
from seqlatent.amortised.rehearsal import Rehearsal
from seqlatent.amortised.training import Trainer
from seqlatent.amortised.typicality import TYPICAL_ROWS, Typicality, shipped_typicality
from seqlatent.amortised.weights import card, load_networks, weights_hash

__all__ = [
    "LEVELS",
    "SCORES",
    "TYPICAL_ROWS",
    "Adaptation",
    "Adapted",
    "Batch",
    "Curriculum",
    "Effects",
    "Forecast",
    "Network",
    "Past",
    "QuantileFunction",
    "Raw",
    "Rehearsal",
    "Seasons",
    "Trainer",
    "Typicality",
    "Windows",
    "adapt",
    "adapted",
    "card",
    "context_of",
    "effects_of",
    "forecast",
    "load_networks",
    "past_of",
    "require_moving",
    "shipped_typicality",
    "weights_hash",
    "with_added",
    "with_effects",
    "without_effects",
]
