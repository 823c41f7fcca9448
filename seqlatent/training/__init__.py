"""Training: a model, data and an objective in, fitted weights and a history out."""

from seqlatent.training.deadline import Deadline, Pace
from seqlatent.training.em.em import EMHistory, em
from seqlatent.training.gradient.descent import NotFinite
from seqlatent.training.gradient.loop import fit
from seqlatent.training.gradient.plan import cosine, lbfgs
from seqlatent.training.history import History
from seqlatent.training.likelihood.parameter_posterior import posterior_each, posterior_in_parts
from seqlatent.training.likelihood.per_series import EachHistory, draws_each, fit_each
from seqlatent.training.likelihood.population_prior import Pool
from seqlatent.training.likelihood.standard_errors import Estimates, StandardErrors, standard_errors
from seqlatent.training.likelihood.weighted_draws import ParameterPosterior

__all__ = [
    "Deadline",
    "EMHistory",
    "EachHistory",
    "Estimates",
    "History",
    "NotFinite",
    "Pace",
    "ParameterPosterior",
    "Pool",
    "StandardErrors",
    "cosine",
    "draws_each",
    "em",
    "fit",
    "fit_each",
    "lbfgs",
    "posterior_each",
    "posterior_in_parts",
    "standard_errors",
]
