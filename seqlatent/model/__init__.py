"""LatentModel, which composes the parts, and Belief, from which a rollout starts."""

from seqlatent.model.belief import Belief
from seqlatent.model.latent_model import LatentModel, Paths
from seqlatent.model.onestep import OneStep, one_step
from seqlatent.model.predictive import moments
from seqlatent.model.tables import per_series

__all__ = ["Belief", "LatentModel", "OneStep", "Paths", "moments", "one_step", "per_series"]
