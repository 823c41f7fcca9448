"""Local engines: parameters of its own for each series, kept in arrays over all series."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.engines import unread
from seqlatent.forecasting.engines.baselines import newcomers
from seqlatent.forecasting.engines.baselines.spread import PanelSpread
from seqlatent.forecasting.engines.engine import Engine, FitOptions, Packed, Scores
from seqlatent.forecasting.errors import CovariateError
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.training import Deadline

__all__ = ["LocalEngine"]

Table = dict[str, np.ndarray]
"""Arrays with one row per series."""

LATE = "time_limit passed"
"""How notes begin of series that were not fitted in time."""


class Predicted(NamedTuple):
    """Normal distribution of each cell given the rows before it, NaN where there is none yet.

    Attributes:
        mean: Means ``(R, D)``.
        scale: Standard deviations ``(R, D)``.
    """

    mean: np.ndarray
    scale: np.ndarray


class LocalEngine(Engine):
    """A model with parameters of its own for each series.

    A series is known by its id. Parameters of a series that was fitted are kept, whatever rows of
    it are shown later. A newcomer's are estimated from its own rows, by :meth:`smooth` and
    :meth:`impute` from all of them, else from those before an anchor, as
    :mod:`seqlatent.forecasting.engines.baselines.newcomers` says, and live in the state. Several
    targets are independent of each other.

    Nothing gives way in silence: :attr:`notes` says of each series (and, under None, of all) what
    was not done as asked, and why.

    Args:
        options: What the constructor was called with.
        season_length: Steps of the season; None for the shortest that the fit options name.
    """

    exact = True
    handles_gaps: ClassVar[bool] = False
    handles_covariates: ClassVar[bool] = False
    alias: str = ""

    def __init__(self, options: dict[str, Any], season_length: int | None) -> None:
        if season_length is not None and season_length < 1:
            raise ValueError(
                f"season_length must be a positive number of steps, found {season_length}; "
                "give None to take it from the data's frequency."
            )
        self._options = options
        self._season_length = season_length
        self._season = 1
        self._time_limit: float | None = None
        self._targets = 0
        self._covariates = 0
        self._index: dict[Any, int] = {}
        self._fitted: Table = {}
        self._pool = PanelSpread(np.zeros(1), np.ones(1), np.zeros(1), np.ones(1))

    def unfitted(self) -> "LocalEngine":
        """Another with the same options that has learned nothing."""
        make: Any = type(self)
        return make(**self._options)

    @abstractmethod
    def _estimate(self, panel: Panel, deadline: Deadline) -> Table:
        """Parameters of each series of a panel."""

    @abstractmethod
    def _begin(self, parameters: Table, panel: Panel) -> Table:
        """State before the first row of a panel."""

    @abstractmethod
    def _advance(self, state: Table, panel: Panel) -> tuple[Table, Predicted]:
        """State after the rows of a panel, and the distribution expected of each row."""

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        self.notes = {}
        self._season = self._season_length or (*fit_options.season_lengths, 1)[0]
        self._time_limit = None if fit_options.deadline.never else fit_options.deadline.total
        self._targets, self._covariates = panel.y.shape[1], panel.future.shape[1]
        self._require(panel)
        self._note_ignored(panel)
        self._pool = PanelSpread.of(panel)
        self.with_history = self._foretold(panel, fit_options.deadline)
        self._fitted = self._estimate(panel, fit_options.deadline.sooner(self.with_history))
        self._index = {name: i for i, name in enumerate(panel.ids.tolist())}
        self._note_reached(panel)

    def _foretold(self, panel: Panel, deadline: Deadline) -> float:
        """Seconds that the start of all series takes; none to speak of where they go together."""
        return 0.0

    def _note_reached(self, panel: Panel) -> None:
        """Says how many series were fitted in time."""
        late = sum(f"{LATE}: " in self.notes.get(name, "") for name in panel.ids.tolist())
        if late:
            text = f"time_limit: fitted {panel.batch - late} of {panel.batch} series, others use "
            text += "the naive forecast of their season" if self._season > 1 else "naive"
            self.note(text)

    def start(self, panel: Panel, seed: int) -> Table:
        self._require(panel)
        found = self._found(panel)
        parts, order = [], []
        for there, index in enumerate((np.flatnonzero(found < 0), np.flatnonzero(found >= 0))):
            if len(index):
                part = panel.select(index)
                parts.append(self._known(found[index], part) if there else self._newcomers(part))
                order.append(index)
        return self.select(self.join(parts), np.argsort(np.concatenate(order)))

    def _known(self, found: np.ndarray, panel: Panel) -> Table:
        """State of series of training."""
        state = self._begin(self.select(self._fitted, found), panel)
        return {**self._advance(state, panel)[0], **newcomers.forgotten(panel)}

    def _newcomers(self, panel: Panel) -> Table:
        """State of series that were not there in training."""
        head = newcomers.heads(panel, newcomers.anchor_of(panel))
        for name in panel.ids.tolist():
            self.notes.pop(name, None)  # what fewer rows led to
        state = self._begin(self._estimate(head, Deadline(self._time_limit)), panel)
        return {**self._advance(state, panel)[0], **newcomers.remembered(panel)}

    def update(self, state: Table, panel: Panel, seed: int) -> Table:
        self._require(panel)
        own, past = newcomers.split(state)
        new = np.flatnonzero(past["past.rows"] >= 0)
        moved = {**self._advance(own, panel)[0], **past}
        if not len(new):
            return moved
        rows = panel.select(new)
        before = newcomers.recalled(self.select(past, new), rows)
        whole = before.followed(rows)
        again = newcomers.anchor_of(whole) != newcomers.anchor_of(before)
        rest = np.setdiff1d(np.arange(panel.batch), new)
        stays = new[~again]
        parts, order = [self.select(moved, rest)], [rest, stays, new[again]]
        memory = newcomers.remembered(whole.select(np.flatnonzero(~again)))
        parts.append({**self.select(moved, stays), **memory})
        if again.any():
            parts.append(self._newcomers(whole.select(np.flatnonzero(again))))
        return self.select(self.join(parts), np.argsort(np.concatenate(order)))

    def select(self, state: Table, index: np.ndarray) -> Table:
        return {name: values[index] for name, values in state.items()}

    def join(self, states: Sequence[Table]) -> Table:
        return _stack(states)

    def score(self, panel: Panel, seed: int) -> Scores:
        from scipy.special import ndtr

        mean, scale = self._foreseen(panel)
        z = (panel.y - mean) / scale
        log_prob = -0.5 * (z**2 + np.log(2 * np.pi)) - np.log(scale)
        unknown = np.isnan(log_prob).all(1)
        return Scores(np.where(unknown, np.nan, np.nansum(log_prob, 1)), ndtr(z))

    def packed(self) -> Packed:
        pool = {f"pool.{name}": values for name, values in self._pool._asdict().items()}
        fitted = {f"fitted.{name}": values for name, values in self._fitted.items()}
        config = {
            "options": self._options,
            "season": self._season,
            "time_limit": self._time_limit,
            "targets": self._targets,
            "covariates": self._covariates,
            "ids": [encoded(name) for name in self._index],
            "notes": [[encoded(name), reason] for name, reason in self.notes.items()],
        }
        return Packed(config, self.pack({**pool, **fitted}))

    @classmethod
    def unpacked(cls, packed: Packed) -> "LocalEngine":
        build: Any = cls
        config = packed.config
        engine: LocalEngine = build(**config["options"])
        engine._season, engine._time_limit = config["season"], config["time_limit"]
        engine._targets, engine._covariates = config["targets"], config["covariates"]
        engine._index = {decoded(code): i for i, code in enumerate(config["ids"])}
        engine.notes = {decoded(code): reason for code, reason in config["notes"]}
        tensors = engine.unpack(packed.tensors)
        engine._pool = PanelSpread(*(tensors[f"pool.{name}"] for name in PanelSpread._fields))
        engine._fitted = {
            name.removeprefix("fitted."): values
            for name, values in tensors.items()
            if name.startswith("fitted.")
        }
        return engine

    def pack(self, state: Table) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(x, order="C")) for name, x in state.items()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> Table:
        return {name: x.numpy() for name, x in tensors.items()}

    def _foreseen(self, panel: Panel) -> Predicted:
        """Distribution of each cell given the rows before it."""
        self._require(panel)
        found, notes = self._found(panel), dict(self.notes)
        mean, scale = np.full_like(panel.y, np.nan), np.full_like(panel.y, np.nan)
        for there in (found >= 0, found < 0):
            index = np.flatnonzero(there)
            if not len(index):
                continue
            some, place = panel.select(index), np.flatnonzero(there[panel.owner])
            if found[index[0]] >= 0:
                state = self._begin(self.select(self._fitted, found[index]), some)
                mean[place], scale[place] = self._advance(state, some)[1]
                continue
            for part, anchor, spoken, rows in newcomers.pieces(some):
                head = newcomers.heads(part, anchor)
                state = self._begin(self._estimate(head, Deadline(self._time_limit)), part)
                predicted = self._advance(state, part)[1]
                mean[place[rows]] = predicted.mean[spoken]
                scale[place[rows]] = predicted.scale[spoken]
        self.notes = notes
        return Predicted(mean, scale)

    def _found(self, panel: Panel) -> np.ndarray:
        """Place of each series in training, -1 where it was not there."""
        return np.array([self._index.get(name, -1) for name in panel.ids.tolist()])

    def _before(self, panel: Panel) -> Table:
        """State before the first row, parameters of newcomers being those of all rows."""
        self._require(panel)
        found = self._found(panel)
        new = np.flatnonzero(found < 0)
        tables = [self.select(self._fitted, found[found >= 0])]
        if len(new):
            tables.append(self._estimate(panel.select(new), Deadline(self._time_limit)))
        # Series that were fitted come first in the joined table, then the new ones.
        position = np.empty(panel.batch, np.int64)
        position[np.concatenate([np.flatnonzero(found >= 0), new])] = np.arange(panel.batch)
        return self._begin(self.select(self.join(tables), position), panel)

    def _note(self, panel: Panel, series: int, target: int, reason: str) -> None:
        """Notes something of a series, if there is something to say."""
        if not reason:
            return
        name = panel.ids[series : series + 1].tolist()[0]
        text = reason if self._targets < 2 else f"target {target}: {reason}"
        found = self.notes.get(name)
        if found is None:
            self.notes[name] = text
        elif text not in found.split("; "):
            self.notes[name] = f"{found}; {text}"

    def _note_ignored(self, panel: Panel) -> None:
        text = unread.ignored(self.alias, panel, handles_covariates=self.handles_covariates)
        if text:
            self.notes[None] = text

    def _require(self, panel: Panel) -> None:
        if not self.handles_gaps:
            unread.require_grid(self.alias, panel)
        unread.require_targets(panel, self._targets)
        if self.handles_covariates and panel.future.shape[1] != self._covariates:
            raise CovariateError(
                f"expected the {self._covariates} covariates that were fitted, found "
                f"{panel.future.shape[1]}; give the same columns, or fit again on this panel."
            )


def rows_by_step(panel: Panel) -> tuple[np.ndarray, list[np.ndarray]]:
    """Order of the series, longest first, and for each step the rows of those that have one."""
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    starts, descending = panel.offsets[:-1][order], -lengths[order]
    steps = int(lengths.max(initial=0))
    alive = np.searchsorted(descending, -np.arange(steps), side="left")
    return order, [starts[:n] + k for k, n in enumerate(alive)]


def _stack(tables: Sequence[Table]) -> Table:
    """One table below the other; narrower arrays get NaN on the right."""
    joined = {}
    for name in tables[0]:
        parts = [table[name] for table in tables]
        shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
        padded = []
        for part in parts:
            missing = [(0, int(n) - m) for n, m in zip(shape, part.shape[1:], strict=True)]
            plain = not any(after for _, after in missing)
            padded.append(
                part if plain else np.pad(part, [(0, 0), *missing], constant_values=np.nan)
            )
        joined[name] = np.concatenate(padded)
    return joined
