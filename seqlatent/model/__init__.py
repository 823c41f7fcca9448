"""LatentModel, which composes the parts, and Belief, from which a rollout starts."""

from seqlatent.model.belief import Belief
from seqlatent.model.latent_model import LatentModel, Paths

__all__ = ["Belief", "LatentModel", "Paths"]
