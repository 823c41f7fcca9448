"""Engine, what stands behind a forecaster: fitted once on a panel, then a state for each series."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from seqlatent.forecasting.engines import nested, sampled
from seqlatent.forecasting.engines.parameters import Parameters
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.training import Deadline

if TYPE_CHECKING:
    from seqlatent.forecasting.engines.contributions import Contributions

__all__ = [
    "Breaks",
    "Engine",
    "FitOptions",
    "Marginals",
    "OutOfTime",
    "Packed",
    "Scores",
    "Smoothed",
]


class OutOfTime(Exception):
    """An engine that cannot be fitted in the time that there is; the text says why."""


@dataclass(frozen=True)
class FitOptions:
    """What an engine is told when it is fitted.

    Args:
        season_lengths: Steps of each season, shortest first; empty for none.
        seed: Seed of everything random.
        deadline: By when fitting ends.
        progress: Whether to show progress.
        device: Where to compute.
    """

    season_lengths: tuple[int, ...] = ()
    seed: int = 0
    deadline: Deadline = field(default_factory=Deadline)
    progress: bool = False
    device: str = "cpu"

    @property
    def time_limit(self) -> float | None:
        """Seconds that are left, or None."""
        return None if self.deadline.never else max(self.deadline.left, 0.0)


class Marginals(NamedTuple):
    """Marginal distribution of each forecast cell.

    Attributes:
        quantiles: At the levels asked for ``(Q, N, H, D)``.
        mean: Means ``(N, H, D)``.
    """

    quantiles: np.ndarray
    mean: np.ndarray


class Smoothed(NamedTuple):
    """Latent states and components given all rows of a panel.

    Attributes:
        names: Name of each of the ``K`` states and components.
        kinds: ``"state"``, ``"component"`` or ``"signal"`` of each.
        mean: Means ``(R, K)``.
        scale: Standard deviations ``(R, K)``.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray


class Scores(NamedTuple):
    """How each row was predicted from the rows before it; NaN where nothing was observed.

    Attributes:
        log_score: Log predictive density or probability of each row, targets jointly ``(R,)``.
        pit: Probability integral transform of each cell ``(R, D)``, randomised for counts.
    """

    log_score: np.ndarray
    pit: np.ndarray


class Breaks(NamedTuple):
    """Where the level of a series jumps, and which values lie apart; NaN where nothing is known.

    Attributes:
        probability: Probability that the level breaks at each row ``(R, D)``.
        size: By how much it jumps if it does, the median ``(R, D)``.
        quantiles: Quantiles of that ``(Q, R, D)``.
        outlier: Probability that a value is an outlier ``(R, D)``.
    """

    probability: np.ndarray
    size: np.ndarray
    quantiles: np.ndarray
    outlier: np.ndarray


class Packed(NamedTuple):
    """What an engine has learned, as a folder holds it.

    Attributes:
        config: Plain values, for JSON.
        tensors: Arrays by their names.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]


class Engine(ABC):
    """A model behind a forecaster. All arrays are in the units of the data.

    Three methods make one: :meth:`fit`, :meth:`start` and :meth:`paths`. All else has a default,
    to be replaced where the engine knows better: marginals, scores and imputed values come from
    sample paths. An engine without an :meth:`update` starts again from all rows, which the
    forecaster then keeps; one with an update has a state of tensors and arrays whose first axis is
    the series, in tuples, dictionaries and dataclasses, or says how states of its own are picked,
    joined and saved. What it has learned is saved attribute by attribute.

    A state is opaque: whatever says all about the past of the series of a panel, in their order. It
    is a function of their rows and the seed, however they came.

    Attributes:
        alias: Name of its columns; empty for the name of the class.
        samples: Sample paths from which marginals are computed unless told otherwise.
        notes: What could not be done as asked, by series; None is all of them.
        summary: What it found out, as plain values for JSON.
        named: Whether it has named components.
        parametric: Whether it has parameters of each series, with names.
        breaking: Whether it knows where levels break.
        burn: First observations of a series that are foreseen by a vague first state alone.
        stopped: What the deadline left undone in all series alike, in words.
        doubtful: Whether that leaves open whether it is better than a naive forecast.
        with_history: Seconds that the start of all series takes, where there is a deadline.
        exact: Whether marginals are known without sample paths.
        state_dim: Dimensions of a latent state whose covariance is held for each step of a series
            while it is forecast.

    Example:
        >>> import numpy as np
        >>> from seqlatent.forecasting.engines.engine import Engine
        >>> class Walk(Engine):
        ...     def fit(self, panel, fit_options):
        ...         steps = np.diff(panel.y[:, 0])[np.diff(panel.owner) == 0]
        ...         self.scale = float(np.nanstd(steps))
        ...     def start(self, panel, seed):
        ...         return panel.y[panel.offsets[1:] - 1]
        ...     def paths(self, state, future, n, seed):
        ...         rng = np.random.default_rng(seed)
        ...         steps = rng.normal(0, self.scale, (n, len(state), future.horizon, 1))
        ...         return state[:, None] + steps.cumsum(2)
    """

    alias: str = ""
    samples: int = 200
    named: bool = False
    parametric: bool = False
    breaking: bool = False
    burn: int = 0
    stopped: str = ""
    doubtful: bool = False
    with_history: float = 0.0
    exact: bool = False
    state_dim: int = 0
    notes: dict[Any, str]
    summary: dict[str, Any]

    def __new__(cls, *args: Any, **options: Any) -> "Engine":
        # an engine of one's own has them too, whatever its __init__ does
        engine = super().__new__(cls)
        engine.notes, engine.summary = {}, {}
        return engine

    @property
    def updates(self) -> bool:
        """Whether it takes new rows in by itself, or starts again from all of them."""
        return type(self).update is not Engine.update

    @abstractmethod
    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        """Learns from a panel, whatever was learned before."""

    @abstractmethod
    def start(self, panel: Panel, seed: int) -> Any:
        """State of the series after all rows of a panel; they may be new."""

    @abstractmethod
    def paths(self, state: Any, future: Future, n: int, seed: int) -> np.ndarray:
        """Joint sample paths ``(n, N, H, D)``."""

    def update(self, state: Any, panel: Panel, seed: int) -> Any:
        """State after new rows; the panel holds, for the same series, the rows that follow."""
        name = type(self).__name__
        raise NotImplementedError(
            f"{name} has no update of its own; as a forecaster does, wrap it: "
            f"Restarted({name}(...)) keeps all rows and starts again."
        )

    def note(self, text: str, id: Any = None) -> None:
        """Adds to what is noted of a series, or of all, once."""
        said = self.notes.get(id, "")
        if text not in said:
            self.notes = {**self.notes, id: "; ".join(filter(None, [said, text]))}

    def note_each(self, remarks: Iterable[tuple[Any, str]]) -> None:
        """Adds to what is noted of series."""
        for id, text in remarks:
            self.note(text, id)

    def select(self, state: Any, index: np.ndarray) -> Any:
        """State of some of the series, in the order of ``index``."""
        return nested.select(state, index)

    def join(self, states: Sequence[Any]) -> Any:
        """State of all series of several states, one after the other."""
        return nested.join(states)

    def marginals(
        self, state: Any, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Marginals:
        """Marginals, from ``n`` sample paths unless the engine has them in closed form."""
        paths = np.asarray(self.paths(state, future, n, seed))
        return Marginals(np.quantile(paths, np.asarray(levels), axis=0), paths.mean(0))

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        """Latent states and components given all rows."""
        raise NotImplementedError(
            f"{type(self).__name__} has no latent state to smooth; use 'structural', 'srnn' or "
            "another latent model."
        )

    def components(
        self,
        panel: Panel,
        future: Future | None,
        levels: Sequence[float],
        *,
        filtered: bool,
        specifications: bool,
    ) -> tuple[Panel, "list[Contributions]"]:
        """Named components of all rows, future ones included, and their quantiles."""
        raise TypeError(
            f"components need a structural model, found {type(self).__name__}; use 'structural' or "
            "'deep_state', or a Spec whose transition is a Sum([LocalLevel(), ...])."
        )

    def parameters(
        self, panel: Panel, levels: Sequence[float], seed: int, *, specifications: bool
    ) -> list[Parameters]:
        """Posteriors of the parameters of each series, and their quantiles.

        One for all, or one of each specification. Scales are standard deviations in the units of
        the data.
        """
        raise TypeError(
            f"parameters need a model that has some of each series, found "
            f"{self.alias or type(self).__name__}; use 'structural'."
        )

    def breaks(self, panel: Panel, levels: Sequence[float]) -> Breaks:
        """Breaks of the level and outliers, given all rows."""
        raise TypeError(
            f"breaks need a model that knows where levels break, found "
            f"{self.alias or type(self).__name__}; use 'amortised'."
        )

    def innovations(self, panel: Panel, seed: int) -> np.ndarray:
        """Normal scores of the one-step predictions ``(R, D)``, NaN where nothing was observed."""
        tiny = np.finfo(np.float64).eps / 2
        from scipy.special import ndtri

        return ndtri(np.clip(self.score(panel, seed).pit, tiny, 1 - tiny))

    def typicality(self, panel: Panel) -> tuple[np.ndarray, np.ndarray] | None:
        """How usual series are among those that it learned from before it saw any panel.

        Returns:
            How far each series lies from these, and the part of these that are as far ``(N, D)``,
            NaN where there are too few rows to tell; None where it learned from no others.
        """
        return None

    def completed(
        self, panel: Panel, levels: Sequence[float], n: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean ``(R, D)`` and quantiles ``(Q, R, D)`` of every cell given all rows.

        From ``n`` draws unless the engine has them in closed form; observed cells are themselves.
        """
        draws = self.impute(panel, n, seed)
        return draws.mean(0), np.quantile(draws, np.asarray(levels), axis=0)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        """Draws ``(n, R, D)`` of every cell given all rows; observed cells stay as they are.

        Unless the engine knows better they are drawn from the state before a hole, and a note says
        so.
        """
        self.note(sampled.IMPUTED)
        return sampled.impute(self, panel, n, seed)

    def score(self, panel: Panel, seed: int) -> Scores:
        """One-step predictive scores of every row.

        Unless the engine knows better, from as many samples as it has: see
        :func:`seqlatent.forecasting.engines.sampled.score`.
        """
        return Scores(*sampled.score(self, panel, seed))

    def packed(self) -> Packed:
        """All that was learned, to be saved: by default every attribute.

        Raises:
            FolderError: If an attribute is no number, text, array or tensor, nor made of these.
        """
        tensors: dict[str, Tensor] = {}
        held = {k: x for k, x in vars(self).items() if k != "notes"}
        name = type(self).__name__
        config = {
            "attributes": {k: nested.flat(x, f"{name}.{k}", tensors) for k, x in held.items()},
            "notes": [[encoded(id), text] for id, text in self.notes.items()],
        }
        return Packed(config, tensors)

    @classmethod
    def unpacked(cls, packed: Packed) -> "Engine":
        """Reads what :meth:`packed` gave."""
        engine = cls.__new__(cls)
        for name, part in packed.config["attributes"].items():
            setattr(engine, name, nested.restored(part, packed.tensors, cls))
        engine.notes = {decoded(code): text for code, text in packed.config["notes"]}
        return engine

    def pack(self, state: Any) -> dict[str, Tensor]:
        """A state as tensors, to be saved."""
        return nested.as_tensors(state, "state")

    def unpack(self, tensors: Mapping[str, Tensor]) -> Any:
        """Reads what :meth:`pack` gave."""
        return nested.from_tensors(tensors, type(self))
