"""Recurrent forecasters with a structured state: a bank of filters that a network reads and mixes.

* :class:`Filters`, level, slope and seasons in innovations form under many gains at once.
* :class:`History`, series as the filters have seen them, at all of their rows.
* :class:`RecurrentNetwork`, a memory over the innovations that mixes the filters' forecasts of any
  lead, and says how wrong they are: quantiles, and a copula over leads and targets.
* :func:`train`, on all origins of a panel at once.
"""

from seqlatent.recurrent.filters import Filters, FilterState
from seqlatent.recurrent.history import History, Origins
from seqlatent.recurrent.network import RecurrentNetwork
from seqlatent.recurrent.objective import Data, Windows
from seqlatent.recurrent.pretraining import RecurrentTrainer
from seqlatent.recurrent.training import Recipe, Trained, said_of, train
from seqlatent.recurrent.weights import load_recurrent_networks, recurrent_card, recurrent_hash

__all__ = [
    "Data",
    "FilterState",
    "Filters",
    "History",
    "Origins",
    "Recipe",
    "RecurrentNetwork",
    "RecurrentTrainer",
    "Trained",
    "Windows",
    "load_recurrent_networks",
    "recurrent_card",
    "recurrent_hash",
    "said_of",
    "train",
]
