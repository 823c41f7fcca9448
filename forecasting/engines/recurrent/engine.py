"""Recurrent, a structured state with filters of its own, and a network that mixes and corrects."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from seqlatent.amortised import QuantileFunction, Seasons, copula
from seqlatent.forecasting.engines import unread
from seqlatent.forecasting.engines.amortised import options, packing
from seqlatent.forecasting.engines.amortised.inspected import Inspected
from seqlatent.forecasting.engines.amortised.predictor import Pool
from seqlatent.forecasting.engines.amortised.predictor import Predictor as Known
from seqlatent.forecasting.engines.amortised.progress import Steps
from seqlatent.forecasting.engines.amortised.scoring import uniform
from seqlatent.forecasting.engines.engine import FitOptions, Marginals, Packed, Scores
from seqlatent.forecasting.engines.recurrent.cold import Cold
from seqlatent.forecasting.engines.recurrent.inputs import Rows, Standard
from seqlatent.forecasting.engines.recurrent.predictor import Predictor
from seqlatent.forecasting.errors import ArgumentError
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.recurrent import (
    Data,
    Filters,
    FilterState,
    History,
    Origins,
    Recipe,
    RecurrentNetwork,
    Trained,
    load_recurrent_networks,
    train,
)
from seqlatent.recurrent.history import kept_rows, rows_of

__all__ = ["Recurrent"]

State = dict[str, Tensor]

_OPTIONS = ("members", "steps", "horizon", "pretrained")
_CELLS = 600_000  # cells of the past that networks are trained on
_LONG = 20_000  # rows of a series that they are trained on
_AT_ONCE = 2**16  # cells that are filtered at once
_TOLD = 5000  # series that tell of those without values
_LEADS = 2**14  # leads of series that are forecast at once


class Recurrent(Inspected):
    """A recurrent network over a bank of structural filters.

    Level, damped slope and two seasons are filtered under sixteen gains; a gated recurrent unit
    reads their innovations, and a head mixes their forecasts of any lead and says how wrong the mix
    is. It is trained on all origins of the panel at once, for as many steps as a block held out at
    its end asks for. Forecasts are joint over leads and targets; covariates known ahead, past ones
    and static features are read.

    Args:
        members: Networks of the ensemble.
        steps: Most steps of each; None for as many as the size of the panel says.
        horizon: Leads that it is trained on, and of the block that is held out. None for two
            seasons, no fewer than 30 and no more than half of the rows of most series, and a block
            of no more than a quarter. Others may be asked for; any beyond are guesses.
        pretrained: Whether training starts from networks that ship with the package and have
            learned from drawn series, or from first weights.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting import Forecaster, Recurrent
        >>> ds = pd.date_range("2024-01-01", periods=40, freq="D")
        >>> df = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 4.0, 3.0] * 10})
        >>> model = Recurrent(members=1, steps=2)
        >>> found = Forecaster(model, season_length=4).fit(df).predict(3)
        >>> list(found.columns)[:4]
        ['unique_id', 'ds', 'recurrent', 'recurrent-mean']
    """

    alias: str = "recurrent"
    exact = True
    own = latents = None  # networks of latents are those of the package

    def __init__(
        self,
        *,
        members: int = 3,
        steps: int | None = None,
        horizon: int | None = None,
        pretrained: bool = True,
    ) -> None:
        for name, value in {"members": members, "steps": steps, "horizon": horizon}.items():
            if value is None and name != "members":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(
                    f"{name} must be a whole number of at least 1, found {value!r}.", name=name
                )
        if not isinstance(pretrained, bool):
            raise ArgumentError(
                f"pretrained must be True or False, found {pretrained!r}.", name="pretrained"
            )
        self.members, self.steps, self.horizon = members, steps, horizon
        self.pretrained = pretrained
        self.networks: tuple[RecurrentNetwork, ...] = ()
        self.seasons, self.leads, self.targets = Seasons(), 1, 0
        self.width: tuple[float, ...] = (1.0,)

    def unfitted(self) -> "Recurrent":
        """Another with the same options that has learned nothing."""
        return type(self)(**{name: getattr(self, name) for name in _OPTIONS})

    # --- fit ---------------------------------------------------------------------------------

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        unread.require_grid(self.alias, panel)
        self.notes, self.summary, self.stopped = {}, {}, ""
        self.seasons = Seasons.of(fit_options.season_lengths)
        self.targets = panel.y.shape[1]
        panel, _ = panel.ordered()
        self.pool, self.standard = Pool.of(panel), Standard.of(panel)
        some = _some(panel, _TOLD)
        self.cold = Cold.of(some, self.standard.static(some, 1), self.seasons.short)
        self.leads = self.horizon or options.usual_leads(self.seasons, panel.lengths)
        farthest = self.horizon or _farthest(self.seasons, panel.lengths)
        data = self._data(panel, max(farthest, self.leads))
        recipe = Recipe(members=self.members, steps=self.steps)
        with Steps(fit_options) as steps:
            found = train(
                data,
                self.leads,
                start=load_recurrent_networks() if self.pretrained else (),
                how=recipe,
                seed=fit_options.seed,
                going_on=steps,
            )
        self.networks = tuple(network.double() for network in found.networks)
        self.width = found.width
        self.summary = {
            "steps": found.steps,
            "members": len(found.networks),
            "width": list(found.width),
            "losses": [[step, loss] for step, loss in found.losses.items()],
        }
        if steps.left:
            done, count = steps.left
            self.stopped = f"training stopped by time_limit after {done} of {count} steps"
        self._note(fit_options.season_lengths, found)

    def _data(self, panel: Panel, farthest: int) -> Data:
        """What networks are trained on: of many series some, of long ones the end."""
        width = int(min(panel.lengths.max(), _LONG))
        most = max(1, _CELLS // (width * self.targets))
        panel = _some(panel, most)
        width = int(min(panel.lengths.max(), _LONG))
        rows = Rows.of(panel, self.standard, width)
        seen = ~rows.y.isnan()
        inside = rows.there & seen.cummax(1).values
        history = History(rows.y.nan_to_num(), seen, self.seasons, inside)
        static = torch.from_numpy(self.standard.static(panel, self.targets)).float()
        known = slice(0, self.standard.sizes["ahead"])
        return Data(history, self.targets, rows.covariates.float(), known, static, farthest)

    def _note(self, season_lengths: tuple[int, ...], found: Trained) -> None:
        said = [self.stopped]
        if not found.losses and not self.stopped:
            said.append("too few rows to hold out a block, so that all steps were made")
        if not found.steps and sum(self.standard.sizes.values()):
            said.append(
                "held-out blocks are forecast best without a step of training, so that covariates "
                "and static features are not read"
            )
        if len(season_lengths) > 2:
            first, *between, last = season_lengths
            said.append(
                f"seasons of {first} and {last} steps are read, those between, "
                f"{', '.join(map(str, between))}, are not"
            )
        text = "; ".join(filter(None, said))
        if text:
            self.notes[None] = text

    @property
    def predictor(self) -> Known:  # type: ignore[override]
        """What networks of latents are told of the panel."""
        return Known((), (), self.seasons, self.pool)

    # --- state -------------------------------------------------------------------------------

    def start(self, panel: Panel, seed: int) -> State:
        self._require(panel)
        return self.join([self._after(None, part) for part in self._parts(panel)])

    def update(self, state: State, panel: Panel, seed: int) -> State:
        self._require(panel)
        found, done = [], 0
        for part in self._parts(panel):
            index = np.arange(done, done + part.batch)
            found.append(self._after(self.select(state, index), part))
            done += part.batch
        return self.join(found)

    def _parts(self, panel: Panel) -> Iterator[Panel]:
        size = max(1, _AT_ONCE // int(panel.lengths.max() * self.targets))
        for i in range(0, panel.batch, size):
            yield panel.select(slice(i, i + size))

    @torch.no_grad()
    def _after(self, state: State | None, panel: Panel) -> State:
        """State after the rows of a panel."""
        rows = Rows.of(panel, self.standard, int(panel.lengths.max()))
        before = None if state is None else self._filters(state)
        run = self._run(rows, before)
        last = run.state
        kept = kept_rows(self.seasons)
        recent = torch.where(run.inside, run.known, torch.nan)
        if state is None:
            old = recent.new_full((len(recent), kept), torch.nan)
        else:
            old = state["recent"].flatten(0, 1)
        found = {f"filters.{k}": x for k, x in last._asdict().items()}
        found["recent"] = _followed(old, recent, run.inside)
        for k, network in enumerate(self.networks):
            start = None if state is None else state[f"memory.{k}"].flatten(0, 1)
            memory = network.remember_all(run.rows, rows.covariates, run.inside, start)
            found[f"memory.{k}"] = memory[:, -1].clone()  # a view would keep all rows
        shaped = {k: x.unflatten(0, (-1, self.targets)) for k, x in found.items()}
        static = torch.from_numpy(self.standard.static(panel, self.targets))
        shaped["static"] = static.unflatten(0, (-1, self.targets))
        shaped["last"] = torch.from_numpy(panel.last)
        return shaped

    def _run(self, rows: Rows, before: FilterState | None) -> "_Run":
        seen = ~rows.y.isnan()
        begun = seen.cummax(1).values
        if before is not None:
            begun = begun | (before.number > 0)[:, None]
        inside = rows.there & begun
        y = rows.y.nan_to_num()
        filters = Filters(self.seasons.short, self.seasons.long)
        state, traces = filters.run(y, seen, before, inside)
        return _Run(state, inside, rows.y, rows_of(traces, y, seen))

    def _filters(self, state: State) -> FilterState:
        """Where the filters stand, a line for each series and target."""
        fields = {name: state[f"filters.{name}"].flatten(0, 1) for name in FilterState._fields}
        return FilterState(**fields)

    # --- forecasts ---------------------------------------------------------------------------

    def _forecasts(
        self, state: State, future: Future
    ) -> Iterator[tuple[slice, QuantileFunction, Tensor]]:
        """Distributions ``(S D, H)`` and loadings ``(S, D H, R)`` of some series at a time."""
        steps = np.rint(future.t - state["last"].numpy()[:, None]).astype(np.int64)
        n, horizon = steps.shape
        size = max(1, _LEADS // (horizon * self.targets))
        for i in range(0, n, size):
            part = slice(i, min(i + size, n))
            index = np.arange(part.start, part.stop)
            some = self.select(state, index)
            leads = torch.from_numpy(steps[part]).repeat_interleave(self.targets, 0)
            u = torch.from_numpy(self.standard.leads(future.u[part]))
            times = np.repeat(future.t[part], self.targets, axis=0)
            yield part, *self._of(some, leads, u.repeat_interleave(self.targets, 0), times)

    @torch.no_grad()
    def _of(
        self, state: State, leads: Tensor, u: Tensor, times: np.ndarray
    ) -> tuple[QuantileFunction, Tensor]:
        recent = state["recent"].flatten(0, 1)
        origins = Origins.of(self._filters(state), recent, leads, self.seasons)
        memories = [state[f"memory.{k}"].flatten(0, 1) for k in range(len(self.networks))]
        target = np.tile(np.arange(self.targets), len(leads) // self.targets)
        static = state["static"].flatten(0, 1)
        function, loadings = self._predictor.forecast(origins, memories, u, static, target, times)
        return function, loadings.reshape(len(leads) // self.targets, -1, loadings.shape[-1])

    @property
    def _predictor(self) -> Predictor:
        return Predictor(
            self.networks,
            self.seasons,
            self.pool,
            self.cold,
            self.standard,
            self.width,
            self.leads,
        )

    def paths(self, state: State, future: Future, n: int, seed: int) -> np.ndarray:
        out = np.empty((n, *future.t.shape, self.targets))
        generator = torch.Generator().manual_seed(seed)
        for part, function, loadings in self._forecasts(state, future):
            scores = copula.sample(loadings, n, generator)
            scores = scores.reshape(n, -1, future.t.shape[1])
            out[:, part] = self._by_target(function.at(scores))
        return out

    def marginals(self, state: State, future: Future, levels: Any, n: int, seed: int) -> Marginals:
        scores = torch.from_numpy(ndtri(np.asarray(levels, dtype=np.float64)))
        quantiles = np.empty((len(scores), *future.t.shape, self.targets))
        mean = np.empty((*future.t.shape, self.targets))
        for part, function, _ in self._forecasts(state, future):
            shape = function.knots.shape[:2]
            at = function.at(scores[:, None, None].expand(-1, *shape))
            quantiles[:, part] = self._by_target(at)
            mean[part] = self._by_target(function.mean()[None])[0]
        return Marginals(quantiles, mean)

    def _by_target(self, values: Tensor) -> np.ndarray:
        """Values ``(K, S D, H)`` as ``(K, S, H, D)``."""
        k, _, h = values.shape
        return values.numpy().reshape(k, -1, self.targets, h).swapaxes(2, 3)

    # --- scores ------------------------------------------------------------------------------

    def score(self, panel: Panel, seed: int) -> Scores:
        self._require(panel)
        log_prob, pit = (np.full(panel.y.shape, np.nan) for _ in range(2))
        unit = uniform(panel, seed)
        done = 0
        for part in self._parts(panel):
            rows = slice(done, done + part.rows)
            log_prob[rows], pit[rows] = self._predictor.scores(part, unit[rows])
            done += part.rows
        unknown = np.isnan(log_prob).all(1)
        return Scores(np.where(unknown, np.nan, np.nansum(log_prob, 1)), pit)

    # --- files -------------------------------------------------------------------------------

    def packed(self) -> Packed:
        tensors = packing.pool_to_tensors(self.pool) | self.standard.to_tensors()
        tensors |= self.cold.to_tensors()
        for k, network in enumerate(self.networks):
            weights = network.state_dict().items()
            tensors |= {f"networks.{k}.{name}": x.contiguous() for name, x in weights}
        config: dict[str, Any] = {
            **{name: getattr(self, name) for name in _OPTIONS},
            "networks": [network.config for network in self.networks],
            "seasons": list(self.seasons),
            "leads": self.leads,
            "targets": self.targets,
            "width": list(self.width),
            "summary": self.summary,
            "stopped": self.stopped,
            "parameters": sum(p.numel() for n in self.networks for p in n.parameters()),
            "notes": [[encoded(id), text] for id, text in self.notes.items()],
        }
        return Packed(config, tensors)

    @classmethod
    def unpacked(cls, packed: Packed) -> "Recurrent":
        config, tensors = packed
        engine = cls(**{name: config[name] for name in _OPTIONS})
        engine.networks = packing.networks_of(
            "networks", config["networks"], tensors, RecurrentNetwork
        )
        engine.seasons = Seasons(*config["seasons"])
        engine.leads, engine.targets = config["leads"], config["targets"]
        engine.width, engine.summary = tuple(config["width"]), config["summary"]
        engine.stopped = config["stopped"]
        engine.notes = {decoded(code): text for code, text in config["notes"]}
        engine.pool, engine.standard = packing.pool_of(tensors), Standard.of_tensors(tensors)
        engine.cold = Cold.of_tensors(tensors)
        return engine


def _some(panel: Panel, most: int) -> Panel:
    """So many series of a panel, as far apart as any, or all."""
    if panel.batch <= most:
        return panel
    return panel.select(np.linspace(0, panel.batch - 1, most).round().astype(np.int64))


def _farthest(seasons: Seasons, lengths: np.ndarray) -> int:
    """Leads to train on where none are asked for."""
    most = min(max(2 * seasons.short, 30), 60)
    return max(1, min(most, int(np.quantile(lengths, 0.75)) // 2))


class _Run:
    """What filters have made of some rows."""

    def __init__(self, state: FilterState, inside: Tensor, known: Tensor, rows: Tensor) -> None:
        self.state, self.inside, self.known, self.rows = state, inside, known, rows


def _followed(old: Tensor, new: Tensor, inside: Tensor) -> Tensor:
    """Last values ``(B, W)`` after the new ones, of which those inside count."""
    width = old.shape[1]
    both = torch.cat([old, new], 1)
    # rows that are not there lie between the old ones and the new ones
    count = inside.sum(1, keepdim=True)
    column = torch.arange(width)
    index = column + new.shape[1]
    index = torch.where(column >= width - count, index, column + count)
    return both.gather(1, index)
