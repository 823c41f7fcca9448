"""Transitions: laws of the next latent state."""

from seqlatent.transitions.anchored import Anchored
from seqlatent.transitions.contextual import ContextAffine, ContextualNoise
from seqlatent.transitions.continuous import LinearSDE, OrnsteinUhlenbeck
from seqlatent.transitions.cycles import AR, Cycle
from seqlatent.transitions.linear import LinearGaussian
from seqlatent.transitions.neural import CarriedRecurrence, Gated, InitialNormal
from seqlatent.transitions.ode import BoundedField, NeuralODE
from seqlatent.transitions.seasonals import Seasonal, TrigonometricSeasonal
from seqlatent.transitions.structural import Component, Loading, Structural, Sum
from seqlatent.transitions.transition import (
    DiagonalTransition,
    LinearTransition,
    NoLatent,
    Transition,
)
from seqlatent.transitions.trends import DampedTrend, LocalLevel, LocalLinearTrend, Regression

__all__ = [
    "AR",
    "Anchored",
    "BoundedField",
    "CarriedRecurrence",
    "Component",
    "ContextAffine",
    "ContextualNoise",
    "Cycle",
    "DampedTrend",
    "DiagonalTransition",
    "Gated",
    "InitialNormal",
    "LinearGaussian",
    "LinearSDE",
    "LinearTransition",
    "Loading",
    "LocalLevel",
    "LocalLinearTrend",
    "NeuralODE",
    "NoLatent",
    "OrnsteinUhlenbeck",
    "Regression",
    "Seasonal",
    "Structural",
    "Sum",
    "Transition",
    "TrigonometricSeasonal",
]
