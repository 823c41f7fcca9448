"""Training: a model, data and an objective in, fitted weights and a history out."""

from seqlatent.training.history import History
from seqlatent.training.loop import cosine, fit, lbfgs

__all__ = ["History", "cosine", "fit", "lbfgs"]
