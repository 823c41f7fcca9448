"""Restarted engines: the state keeps all rows, and whatever changes starts again from them."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from seqlatent.forecasting.engines import nested
from seqlatent.forecasting.engines.contributions import Contributions
from seqlatent.forecasting.engines.engine import (
    Breaks,
    Engine,
    FitOptions,
    Marginals,
    Packed,
    Scores,
    Smoothed,
)
from seqlatent.forecasting.engines.parameters import Parameters
from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = []


@dataclass
class Kept:
    """Rows of the past, and the state after them once it is asked for.

    Args:
        rows: All rows of each series.
        seed: Seed of what is drawn where it starts again.
        state: State of the engine after them; None where it is still to start.
    """

    rows: Panel
    seed: int
    state: Any = None


class _OfEngine:
    """An attribute of the engine that is wrapped."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, there: Any, owner: type) -> Any:
        return self if there is None else getattr(there.engine, self.name)

    def __set__(self, there: Any, value: Any) -> None:
        setattr(there.engine, self.name, value)


class Restarted(Engine):
    """An engine that takes new rows in by starting again from all rows.

    It thus has an update that costs as much as the past is long, and its state can be picked from,
    joined and saved, whatever it is.

    Args:
        engine: The engine.
    """

    samples: Any = _OfEngine()
    notes: Any = _OfEngine()
    summary: Any = _OfEngine()
    named: Any = _OfEngine()
    parametric: Any = _OfEngine()
    breaking: Any = _OfEngine()
    burn: Any = _OfEngine()
    stopped: Any = _OfEngine()
    doubtful: Any = _OfEngine()
    with_history: Any = _OfEngine()
    exact: Any = _OfEngine()
    state_dim: Any = _OfEngine()

    def __new__(cls, *args: Any, **options: Any) -> "Restarted":
        return object.__new__(cls)  # notes and summary are those of the engine

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __copy__(self) -> "Restarted":
        return Restarted(copy(self.engine))

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        self.engine.fit(panel, fit_options)

    def start(self, panel: Panel, seed: int) -> Kept:
        return Kept(panel, seed, self.engine.start(panel, seed))

    def update(self, state: Kept, panel: Panel, seed: int) -> Kept:
        return self.start(state.rows.followed(panel), seed)

    def select(self, state: Kept, index: np.ndarray) -> Kept:
        rows = state.rows.select(index)
        return state if rows is state.rows else Kept(rows, state.seed)

    def join(self, states: Sequence[Kept]) -> Kept:
        if len(states) == 1:
            return states[0]
        # where one knows its last stamps all do, for they are of one calendar
        known = [s.rows.ends for s in states if s.rows.ends is not None]
        rows = Panel.join([s.rows for s in states])
        ends = np.concatenate([s.rows.end for s in states]) if known else None
        return Kept(replace(rows, ends=ends), states[0].seed)

    def _inner(self, state: Kept) -> Any:
        if state.state is None:
            state.state = self.engine.start(state.rows, state.seed)
        return state.state

    def paths(self, state: Kept, future: Future, n: int, seed: int) -> np.ndarray:
        return self.engine.paths(self._inner(state), future, n, seed)

    def marginals(
        self, state: Kept, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Marginals:
        return self.engine.marginals(self._inner(state), future, levels, n, seed)

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        return self.engine.smooth(panel, seed)

    def components(
        self, panel: Panel, future: Future | None, levels: Sequence[float], **options: Any
    ) -> tuple[Panel, list[Contributions]]:
        return self.engine.components(panel, future, levels, **options)

    def parameters(
        self, panel: Panel, levels: Sequence[float], seed: int, **options: Any
    ) -> list[Parameters]:
        return self.engine.parameters(panel, levels, seed, **options)

    def breaks(self, panel: Panel, levels: Sequence[float]) -> Breaks:
        return self.engine.breaks(panel, levels)

    def innovations(self, panel: Panel, seed: int) -> np.ndarray:
        return self.engine.innovations(panel, seed)

    def completed(
        self, panel: Panel, levels: Sequence[float], n: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.engine.completed(panel, levels, n, seed)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        return self.engine.impute(panel, n, seed)

    def score(self, panel: Panel, seed: int) -> Scores:
        return self.engine.score(panel, seed)

    def packed(self) -> Packed:
        return self.engine.packed()

    @classmethod
    def unpacked(cls, packed: Packed) -> "Engine":
        raise NotImplementedError("the engine that is wrapped reads what it has packed")

    def pack(self, state: Kept) -> dict[str, Tensor]:
        return nested.as_tensors({"rows": state.rows, "seed": state.seed}, "state")

    def unpack(self, tensors: Mapping[str, Tensor]) -> Kept:
        held = nested.from_tensors(tensors, Restarted)
        return Kept(held["rows"], held["seed"])
