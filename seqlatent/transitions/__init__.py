"""Transitions: distributions of the next latent state."""

from seqlatent.transitions.anchored import Anchored
from seqlatent.transitions.contextual import ContextAffine, ContextualNoise
from seqlatent.transitions.continuous import LinearSDE, OrnsteinUhlenbeck
from seqlatent.transitions.cycles import AR, Cycle
from seqlatent.transitions.effects import FixedRegression, Irregular
from seqlatent.transitions.factors import Joint, VectorAR
from seqlatent.transitions.innovations import Innovations, Smoothing
from seqlatent.transitions.linear import LinearGaussian
from seqlatent.transitions.neural import CarriedRecurrence, Gated, InitialNormal
from seqlatent.transitions.ode import BoundedField, NeuralODE
from seqlatent.transitions.regimes import Regimes, SwitchingLinear
from seqlatent.transitions.seasonals import Seasonal, TrigonometricSeasonal, distinct_harmonics
from seqlatent.transitions.structural import Component, Loading, Structural, Sum
from seqlatent.transitions.transition import (
    DiagonalTransition,
    LinearTransition,
    NoLatent,
    Transition,
)
from seqlatent.transitions.trends import (
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    named_trend,
)

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
    "FixedRegression",
    "Gated",
    "InitialNormal",
    "Innovations",
    "Irregular",
    "Joint",
    "LinearGaussian",
    "LinearSDE",
    "LinearTransition",
    "Loading",
    "LocalLevel",
    "LocalLinearTrend",
    "NeuralODE",
    "NoLatent",
    "OrnsteinUhlenbeck",
    "Regimes",
    "Regression",
    "Seasonal",
    "Smoothing",
    "Structural",
    "Sum",
    "SwitchingLinear",
    "Transition",
    "TrigonometricSeasonal",
    "VectorAR",
    "distinct_harmonics",
    "named_trend",
]
