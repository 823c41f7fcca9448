"""What every engine behind a forecaster owes."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from seqlatent.forecasting.engines.engine import Engine, FitOptions
from seqlatent.forecasting.engines.registry import engines_of, kind_of, read_engine
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.frames.read import read
from seqlatent.testing.contract import Contract, close, require

__all__ = ["EngineContract", "check_engine"]

SEASON = 4
HELD = 8  # rows at the end of each series that are not fitted
HORIZON = 3
SEED = 3
LEVELS = (0.1, 0.5, 0.9)


class EngineContract(Contract):
    """Laws of every engine, as a forecaster has it.

    ``build`` makes the engine; ``frame`` the series that it is fitted on.

    Attributes:
        equivariant: Whether forecasts of values times a thousand are a thousand times forecasts.
        scored: Whether it has one-step scores.
        imputes: Whether it fills holes.
        tolerance: By how much forecasts that ought to be the same may differ where they come from
            samples of their own, in widths of their 80 % intervals.
    """

    equivariant: bool = True
    scored: bool = True
    imputes: bool = True
    tolerance: float = 0.3

    def build(self) -> Any:
        """Returns the engine under test, its class, a Spec, or a name."""
        raise NotImplementedError

    def frame(self) -> pd.DataFrame:
        """Returns positive daily series with a trend, a season of four days and noise."""
        rng, frames = np.random.default_rng(0), []
        for i in range(3):
            n = 36 + 3 * i
            y = 5 + 0.4 * np.arange(n) + np.sin(np.pi * np.arange(n) / 2) + rng.normal(0, 0.3, n)
            ds = pd.date_range("2024-01-01", periods=n, freq="D")
            frames.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": 3.0**i * y}))
        return pd.concat(frames, ignore_index=True)

    def fresh(self) -> Engine:
        """The engine, as a forecaster has it before it is fitted."""
        (engine,) = engines_of(self.build()).values()
        return engine

    def panel(self) -> Panel:
        """All rows."""
        return read(self.frame(), Columns())[0]

    def past(self) -> Panel:
        """The rows that are fitted."""
        return self.panel().drop_tail(HELD)

    def later(self) -> Panel:
        """The rows that follow."""
        return self.panel().tail(HELD)

    def options(self) -> FitOptions:
        """What the engine is told when it is fitted."""
        return FitOptions((SEASON,), SEED)

    def fitted(self) -> tuple[Engine, Any]:
        """The engine, and the state of its series after the rows that it was fitted on."""
        engine = self.fresh()
        engine.fit(self.past(), self.options())
        return engine, engine.start(self.past(), SEED)

    def ahead(self, panel: Panel, h: int = HORIZON) -> Future:
        """The steps after the last rows of a panel, without covariates."""
        t = panel.last[:, None] + 1 + np.arange(h)
        return Future(t, np.zeros((panel.batch, h, panel.future.shape[1])))

    def quantiles(self, engine: Engine, state: Any, future: Future) -> np.ndarray:
        """Quantiles of forecasts, from many samples where there are no others."""
        found = engine.marginals(state, future, LEVELS, 1000, SEED)
        shape = (len(LEVELS), *future.t.shape, self.panel().y.shape[1])
        require(
            found.quantiles.shape == shape and found.mean.shape == shape[1:],
            f"marginals must have quantiles {shape} and means {shape[1:]}, found "
            f"{found.quantiles.shape} and {found.mean.shape}",
        )
        return found.quantiles

    def alike(self, engine: Engine, found: np.ndarray, expected: np.ndarray, text: str) -> None:
        """Raises an AssertionError unless quantiles are equal, or as near as samples let them."""
        width = np.abs(expected[-1] - expected[0]) + 1e-9 * np.abs(expected).max()
        away = float((np.abs(found - expected) / width).max())
        limit = 1e-6 if engine.exact else self.tolerance
        require(away <= limit, f"{text}: quantiles differ by {away:.3g} of the 80 % interval")

    def test_paths_have_their_shape_and_are_finite(self) -> None:
        engine, state = self.fitted()
        for n, h in ((1, 1), (7, HORIZON)):
            found = np.asarray(engine.paths(state, self.ahead(self.past(), h), n, SEED))
            shape = (n, self.past().batch, h, self.panel().y.shape[1])
            require(found.shape == shape, f"paths must have the shape {shape}, found {found.shape}")
            require(bool(np.isfinite(found).all()), "paths are not finite")

    def test_marginals_are_ordered(self) -> None:
        engine, state = self.fitted()
        found = self.quantiles(engine, state, self.ahead(self.past()))
        require(bool((np.diff(found, axis=0) >= 0).all()), "quantiles are not in order")

    def test_a_seed_decides_the_paths(self) -> None:
        engine, state = self.fitted()
        before, drawn = _numpy_state(), torch.get_rng_state()
        future, seed = self.ahead(self.past()), 4711
        first, second = (np.asarray(engine.paths(state, future, 5, seed)) for _ in range(2))
        require(np.array_equal(first, second), "paths of one seed differ")
        same = np.array_equal(before, _numpy_state())
        require(same, "paths draw from numpy's global generator; make one of the seed")
        untouched = torch.equal(drawn, torch.get_rng_state())
        require(untouched, "paths draw from torch's global generator; make one of the seed")

    def test_a_fit_is_the_same_again_and_forgets_the_last(self) -> None:
        engine, state = self.fitted()
        future = self.ahead(self.past())
        expected = self.quantiles(engine, state, future)
        other = replace(self.past(), y=self.past().y[::-1] * 2 + 1)
        engine.fit(other, self.options())
        engine.fit(self.past(), self.options())
        found = self.quantiles(engine, engine.start(self.past(), SEED), future)
        text = "a fit depends on the fit before it"
        require(np.allclose(found, expected, rtol=1e-9, atol=1e-12), text)

    def test_what_is_given_is_left_alone(self) -> None:
        panel = self.past()
        before = deepcopy(panel)
        engine = self.fresh()
        engine.fit(panel, self.options())
        engine.update(engine.start(panel, SEED), self.later(), SEED)
        same = np.array_equal(panel.y, before.y, equal_nan=True) and np.array_equal(
            panel.t, before.t
        )
        require(same, "the rows that it was given have changed")

    def test_an_update_is_a_start_from_all_rows(self) -> None:
        engine, state = self.fitted()
        later = self.later()
        moved = engine.update(state, later, SEED)
        future = self.ahead(self.panel())
        expected = self.quantiles(engine, engine.start(self.panel(), SEED), future)
        text = "after new rows it forecasts otherwise than from all rows"
        self.alike(engine, self.quantiles(engine, moved, future), expected, text)
        nth = np.arange(later.rows) - later.offsets[later.owner]
        for step in range(HELD):
            state = engine.update(state, later.keep(nth == step), SEED)
        self.alike(engine, self.quantiles(engine, state, future), expected, f"row by row, {text}")

    def test_a_state_is_that_of_each_series(self) -> None:
        engine, state = self.fitted()
        parts = [engine.select(state, np.array([i])) for i in (2, 0, 1)]
        back = engine.select(engine.join(parts), np.array([1, 2, 0]))
        self._same(engine, state, back, "select and join do not give the state back")
        future = self.ahead(self.past())
        expected = self.quantiles(engine, state, future)
        for i in range(3):
            index = np.array([i])
            found = self.quantiles(engine, engine.select(state, index), future.select(index))
            text = "the forecast of a series depends on those beside it"
            self.alike(engine, found, expected[:, index], text)

    def _same(self, engine: Engine, one: Any, other: Any, text: str) -> None:
        first, second = (dict(engine.pack(state)) for state in (one, other))
        require(first.keys() == second.keys(), text)
        for name, x in first.items():
            if x.is_floating_point():
                close(second[name], x, f"{text}: {name}", equal_nan=True)

    def test_it_is_saved_and_read(self) -> None:
        engine, state = self.fitted()
        packed = engine.packed()
        require_tensors(packed.tensors, "packed")
        again = read_engine(kind_of(engine), packed, self._given(), "it")
        tensors = engine.pack(state)
        require_tensors(tensors, "pack")
        held = again.unpack({name: x.clone() for name, x in tensors.items()})
        future = self.ahead(self.past())
        found = np.asarray(again.paths(held, future, 5, SEED))
        expected = np.asarray(engine.paths(state, future, 5, SEED))
        text = "what was saved and read draws other paths"
        require(np.allclose(found, expected, rtol=1e-9, atol=1e-12), text)
        moved = again.update(held, self.later(), SEED)
        self.quantiles(again, moved, self.ahead(self.panel()))

    def _given(self) -> Any:
        given = self.build()
        return None if isinstance(given, str) else given

    def test_forecasts_are_in_the_units_of_the_data(self) -> None:
        if not self.equivariant:
            raise SkipTest("its forecasts depend on the units")
        engine, state = self.fitted()
        future = self.ahead(self.past())
        expected = self.quantiles(engine, state, future)
        other, past = self.fresh(), replace(self.past(), y=1024 * self.past().y)
        other.fit(past, self.options())
        found = self.quantiles(other, other.start(past, SEED), future) / 1024
        self.alike(engine, found, expected, "in units 1024 times as small it forecasts otherwise")

    def test_a_score_does_not_depend_on_later_rows(self) -> None:
        if not self.scored:
            raise SkipTest("it has no scores")
        engine, _ = self.fitted()
        panel = self.past()
        nth = np.arange(panel.rows) - panel.offsets[panel.owner]
        later = nth > 9
        changed = replace(panel, y=np.where(later[:, None], 7 * panel.y + 40, panel.y))
        found, other = engine.score(panel, SEED), engine.score(changed, SEED)
        shapes = found.log_score.shape, found.pit.shape
        expected = (panel.rows,), panel.y.shape
        require(shapes == expected, f"scores must have the shapes {expected}, found {shapes}")
        seen = found.pit[~np.isnan(found.pit)]
        require(bool(((seen >= 0) & (seen <= 1)).all()), "a probability lies outside of 0 to 1")
        for a, b in zip(found, other, strict=True):
            same = np.array_equal(a[~later], b[~later], equal_nan=True)
            require(same, "the score of a row depends on later rows")

    def test_seen_values_are_not_imputed(self) -> None:
        if not self.imputes:
            raise SkipTest("it does not fill holes")
        engine, _ = self.fitted()
        panel = self.past()
        y = panel.y.copy()
        y[[0, 5, 6, -1]] = np.nan
        found = np.asarray(engine.impute(replace(panel, y=y), 4, SEED))
        shape = (4, *y.shape)
        require(found.shape == shape, f"draws must have the shape {shape}, found {found.shape}")
        require(bool(np.isfinite(found).all()), "draws are not finite")
        seen = ~np.isnan(y)
        require(bool((found[:, seen] == y[seen]).all()), "a value that was seen is drawn")


def _numpy_state() -> np.ndarray:
    kind, keys, place, *_ = np.random.get_state()  # noqa: NPY002
    assert kind == "MT19937"
    return np.append(np.asarray(keys, dtype=np.int64), place)


def require_tensors(found: Mapping[str, Any], what: str) -> None:
    """Raises an AssertionError unless a dictionary holds tensors by names."""
    wrong = [k for k, x in found.items() if not (isinstance(k, str) and isinstance(x, Tensor))]
    require(not wrong, f"{what} must hold tensors by names, found something else at {wrong}")


def check_engine(
    build: Any,
    *,
    frame: Any = None,
    equivariant: bool = True,
    scored: bool = True,
    imputes: bool = True,
    tolerance: float = 0.3,
) -> list[str]:
    """Tries the laws of every engine on one of your own.

    Args:
        build: Returns the engine, or a Spec; the class of an engine does.
        frame: Returns a frame ``unique_id, ds, y`` of three series of 20 rows or more, without
            covariates; positive numbers with a season of four days by default.
        equivariant: Whether forecasts of values times a thousand are a thousand times forecasts.
        scored: Whether it has one-step scores.
        imputes: Whether it fills holes.
        tolerance: By how much forecasts that ought to be the same may differ where they come from
            samples, in widths of their 80 % intervals.

    Returns:
        The laws that hold.

    Raises:
        AssertionError: At the first that does not, with a sentence.
    """
    laws: Any = EngineContract()
    laws.build, laws.equivariant, laws.scored, laws.imputes = build, equivariant, scored, imputes
    laws.tolerance = tolerance
    laws.frame = laws.frame if frame is None else frame
    return laws.run()
