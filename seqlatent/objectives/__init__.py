"""Objectives: plain functions of a model and sequences, one value per series, larger is better."""

from seqlatent.objectives.ahead import multi_step_score, rollout_crps
from seqlatent.objectives.bounds import annealing, divergence, elbo, evidence, fivo, iwae

__all__ = [
    "annealing",
    "divergence",
    "elbo",
    "evidence",
    "fivo",
    "iwae",
    "multi_step_score",
    "rollout_crps",
]
