"""Networks: multilayer perceptrons, causal backbones, and drawing parameters from one generator."""

from seqlatent.networks.backbones import GRU, LRU, Backbone, Feedforward, MinGRU
from seqlatent.networks.drawing import reinitialise
from seqlatent.networks.perceptron import MLP, Linear

__all__ = [
    "GRU",
    "LRU",
    "MLP",
    "Backbone",
    "Feedforward",
    "Linear",
    "MinGRU",
    "reinitialise",
]
