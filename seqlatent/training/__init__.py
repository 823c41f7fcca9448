"""Training: a model, data and an objective in, fitted weights and a history out."""

from seqlatent.training.deadline import Deadline, Pace
from seqlatent.training.descent import NotFinite
from seqlatent.training.each import EachHistory, draws_each, fit_each
from seqlatent.training.errors import Estimates, StandardErrors, standard_errors
from seqlatent.training.expectation import EMHistory, em
from seqlatent.training.history import History
from seqlatent.training.loop import fit
from seqlatent.training.plan import cosine, lbfgs
from seqlatent.training.pooling import Pool

__all__ = [
    "Deadline",
    "EMHistory",
    "EachHistory",
    "Estimates",
    "History",
    "NotFinite",
    "Pace",
    "Pool",
    "StandardErrors",
    "cosine",
    "draws_each",
    "em",
    "fit",
    "fit_each",
    "lbfgs",
    "standard_errors",
]
