"""Sequences, the batch object that every part reads, and Context, what a step may condition on."""

from seqlatent.sequences.batch import Sequences
from seqlatent.sequences.context import Context

__all__ = ["Context", "Sequences"]
