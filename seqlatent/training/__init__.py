"""Training: a model, data and an objective in, fitted weights and a history out."""

from seqlatent.training.each import EachHistory, draws_each, fit_each
from seqlatent.training.history import History
from seqlatent.training.loop import cosine, fit, lbfgs
from seqlatent.training.pooling import Pool

__all__ = ["EachHistory", "History", "Pool", "cosine", "draws_each", "fit", "fit_each", "lbfgs"]
