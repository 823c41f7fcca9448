"""LatentEngine, which puts a latent model, or an ensemble of them, behind a forecaster."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from seqlatent.forecasting.engines import contributions, mixture
from seqlatent.forecasting.engines.engine import (
    Engine,
    FitOptions,
    Marginals,
    Packed,
    Scores,
    Smoothed,
)
from seqlatent.forecasting.engines.latent import components, posterior
from seqlatent.forecasting.engines.latent import residuals as innovations
from seqlatent.forecasting.engines.latent.limited import trained
from seqlatent.forecasting.engines.latent.updates import LinearUpdates
from seqlatent.forecasting.engines.series_state import Past, State, within
from seqlatent.forecasting.engines.spec import DataSummary, Spec, Training
from seqlatent.forecasting.errors import FolderError, TargetError, TimeError
from seqlatent.forecasting.features.anchors import Anchors, Spans
from seqlatent.forecasting.features.covariates import Inputs
from seqlatent.forecasting.features.scaling import Units, span, varied
from seqlatent.forecasting.features.transforms import TRANSFORMS
from seqlatent.forecasting.features.windows import ModelData, Scale, batches, whole
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.frames.ranges import SINGLE, out_of_range, range_of
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.inference import Kalman
from seqlatent.model import Belief, LatentModel, moments
from seqlatent.networks import reinitialise
from seqlatent.sequences import Sequences

__all__ = ["LatentEngine"]

_CELLS = 400_000  # rows of a padded batch that is filtered at once
_PATHS = 40_000  # sample paths that are rolled out at once
# Building a model draws from torch's global generator, which is put back; two at once must not mix.
_BUILDING = threading.Lock()


class LatentEngine(Engine):
    """A latent model behind a forecaster.

    Args:
        spec: How to build, feed and train the model.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.samples = spec.samples
        self.models: tuple[LatentModel, ...] = ()
        self.notes: dict[Any, str] = {}
        self.rows: dict[Any, int] = {}
        self.summary: dict[str, Any] = {}
        self.kept: list[int] | None = None  # members that were trained, where not all were

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        self.time_index = panel.time_index
        spec = self.spec
        self.inputs = Inputs.of(
            panel if spec.past else replace(panel, past=panel.past[:, :0]),
            calendar=spec.calendar,
            season_lengths=fit_options.season_lengths if spec.calendar else (),
            reals=spec.statics,
        )
        self.rows = {_key(id): i for i, id in enumerate(panel.ids)}
        self.data_summary = DataSummary(
            obs_dim=panel.y.shape[1],
            covariate_dim=self.inputs.width(panel.time_index),
            code_sizes=self._code_sizes(panel),
            season_lengths=fit_options.season_lengths,
            series=panel.batch,
            rows=int(np.median(panel.lengths)),
            irregular=panel.time_index.kind == "irregular",
            longest=int(np.bincount(panel.owner[~np.isnan(panel.y[:, 0])]).max()),
            counts=_counts(panel.y),
            least=float(np.nanmin(panel.y)),
            varied=varied(panel),
        )
        models = self._build(fit_options.seed)
        self._check_targets(models, panel)
        self._check_positive(panel)
        self._check_gaps(models[0], panel)
        self._check_range(panel)
        self._check_support(models[0], panel)
        self.units = {kind: self._learned(self._view(panel, kind)) for kind in self.views}
        self.since = self._since(panel)
        model_data = self._model_data(Past.of(panel, *self._told(panel)), self.kinds[0])
        # errors of training tell series as the frame does
        model_data = replace(model_data, panel=replace(model_data.panel, ids=panel.ids))
        training = Training(model_data, self.data_summary, self.inputs.flags, fit_options)
        equal = np.full((panel.batch, len(models)), 1 / len(models))
        self.models, self.weights = tuple(models), equal  # a rehearsal starts series by these
        found = trained(self, spec.train, models, training, panel)
        weights, self.stopped, self.doubtful, self.with_history = found
        self.summary = training.summary
        self.models = tuple(model.eval().requires_grad_(False) for model in models)
        self.weights = equal if weights is None else weights
        if self.stopped:
            self._keep(np.flatnonzero((self.weights > 0).any(0)).tolist())
        self._steps = self._stepping()
        self._note(panel)

    def _keep(self, kept: Sequence[int]) -> None:
        """Leaves out members that were not trained."""
        self.kept = list(kept)
        self.models = tuple(self.models[i] for i in kept)
        self.kinds = tuple(self.kinds[i] for i in kept)
        self.weights = self.weights[:, kept]

    def _build(self, seed: int) -> list[LatentModel]:
        with _BUILDING, torch.random.fork_rng(devices=[]):
            models = list(self.spec.build(self.data_summary))
        self._real = models[0].emission.support is constraints.real
        context = self.spec.context
        self._context = context(self.data_summary) if callable(context) else context
        # parameters of linear models are relative to the units that they were fitted in
        exact = all(isinstance(model.inference, Kalman) for model in models)
        self._fixed = self.spec.own or (exact and self._context is None)
        self._settles = self._fixed and exact
        kinds = self.spec.transform
        if callable(kinds):
            self.kinds = tuple(kinds(self.data_summary))
        else:
            self.kinds = (kinds,) * len(models)
        self.transforms = {kind: TRANSFORMS[kind](self.data_summary.least) for kind in self.kinds}
        for i, model in enumerate(models):
            model.to(self.spec.dtype)
            reinitialise(model, torch.Generator().manual_seed(1000 * seed + i))
        return models

    def _note(self, panel: Panel) -> None:
        """Says what is not read or done as one may think, and which series do not say their own."""
        unread = [
            what
            for what, there, read in (
                ("static features", panel.real.shape[1] + panel.codes.shape[1], self.spec.statics),
                (
                    "static categories",
                    panel.codes.shape[1] * self.spec.statics,
                    self.spec.categories,
                ),
                ("past covariates", panel.past.shape[1], self.spec.past),
            )
            if there and not read
        ]
        said = [self.stopped] if self.stopped else []
        said += [f"{' and '.join(unread)} are not read"] if unread else []
        if any(model.memory.reads_values for model in self.models):
            said.append(
                "impute does not condition on the rows after a hole, so that its bands are no "
                "bridges; use 'structural' or 'deep_state' for holes that matter"
            )
        self.notes = {None: "; ".join(said)} if said else {}
        count = np.add.reduceat(~np.isnan(panel.y), panel.offsets[:-1], 0, dtype=np.int64)
        for i, d in np.argwhere(count < 2):
            target = f"target {d + 1}: " if panel.y.shape[1] > 1 else ""
            few = (
                "one value: it moves as the other series do"
                if count[i, d]
                else "no value: it stands and moves as the other series do"
            )
            self.notes[_key(panel.ids[i])] = target + few

    def _check_gaps(self, model: LatentModel, panel: Panel) -> None:
        if panel.time_index.kind == "irregular" and not model.transition.handles_gaps:
            raise TimeError(
                f"{self.spec.name} expects times at regular steps, found irregular ones; use "
                "'srnn', 'deep_markov', 'latent_ode' or 'naive', or give the times a freq, which "
                "makes missing rows of the gaps."
            )

    def _code_sizes(self, panel: Panel) -> tuple[int, ...]:
        if self.spec.own:
            return (panel.batch + 1,)
        if not (self.spec.statics and self.spec.categories):
            return ()
        return tuple(int(x) + 1 for x in panel.codes.max(0))

    def _told(self, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
        """Static codes ``(N, C)``, and the place of each series in training, -1 for none."""
        known = np.array([self.rows.get(_key(id), -1) for id in panel.ids], dtype=np.int64)
        if self.spec.own:
            return np.where(known < 0, self.data_summary.series, known)[:, None], known
        sizes = np.array(self.data_summary.code_sizes, dtype=np.int64)
        codes = panel.codes[:, : len(sizes)]
        return np.where(codes < sizes, codes, 0), known

    def _view(self, panel: Panel, kind: str) -> Panel:
        """The panel after a transform."""
        return replace(panel, y=self.transforms[kind].forward(panel.y))

    @property
    def views(self) -> tuple[str, ...]:
        """The transforms through which members see the data, each once."""
        return tuple(dict.fromkeys(self.kinds))

    def _learned(self, view: Panel) -> Units:
        return Units.of(
            view,
            self._scaling,
            season=self.data_summary.season,
            context=self._context,
            fixed=self._fixed,
            real=self._real,
        )

    @property
    def _scaling(self) -> str:
        kind = self.spec.scaling
        # counts and other positive families have no shift
        if self._real:
            return kind
        return "counts" if kind == "local" else "magnitude"

    def _model_data(self, past: Past, kind: str) -> ModelData:
        view = self._view(past.rows, kind)
        held = view if self.spec.past else replace(view, past=view.past[:, :0])
        return ModelData(
            view,
            self.inputs.of_panel(held),
            past.codes,
            past.known,
            self.units[kind],
            self.spec.dtype,
            self.inputs.flags,
        )

    def _check(self, panel: Panel) -> None:
        """Names the row that the models cannot take."""
        self._check_range(panel)
        self._check_support(self.models[0], panel)

    def _check_targets(self, models: Sequence[LatentModel], panel: Panel) -> None:
        """Models of one's own may be built for another number of targets."""
        found = panel.y.shape[1]
        for dims in (m.emission.obs_dim for m in models):
            if dims != found:
                raise TargetError(
                    f"{self.spec.name} was built for {dims} target{'s' * (dims != 1)}, found "
                    f"{found}; build the emission with setting.obs_dim dimensions, or name one "
                    "target a forecaster."
                )

    def _check_positive(self, panel: Panel) -> None:
        """Names the first row whose logarithm is none, where a member describes logarithms."""
        wrong = panel.y <= 0
        if "log" in self.kinds and wrong.any():
            r, d = (int(i) for i in np.argwhere(wrong)[0])
            raise panel.wrong(
                r,
                d,
                f"{self.spec.name} describes logarithms and expects positive values, found "
                f"{panel.y[r, d]:g}; leave logarithms out, or shift the values.",
            )

    def _check_range(self, panel: Panel) -> None:
        """Names the row that is out of the range of single precision."""
        if self.spec.dtype == torch.float64:
            return
        for d in range(panel.y.shape[1]):
            wrong = out_of_range(panel.y[:, d], panel.owner, panel.batch, SINGLE)
            if wrong.any():
                r = int(np.argmax(wrong))
                text = range_of(panel.y[r, d], SINGLE)
                raise panel.wrong(r, d, f"{self.spec.name} computes in single precision: {text}")

    def _check_support(self, model: LatentModel, panel: Panel) -> None:
        """Names the row that an emission cannot take."""
        support = model.emission.support
        y = torch.from_numpy(np.nan_to_num(panel.y))
        wrong = (~support.check(y)).numpy() & ~np.isnan(panel.y)
        if wrong.any():
            r, d = (int(i) for i in np.argwhere(wrong)[0])
            raise panel.wrong(
                r,
                d,
                f"{type(model.emission).__name__} expects {_words(support)}, found "
                f"{panel.y[r, d]:g}; correct the value, set it to NaN, or choose another emission.",
            )

    def expected(self, panel: Panel) -> np.ndarray:
        """Weights of the members for series that may be new."""
        return self._weights(self._told(panel)[1])

    def _weights(self, known: np.ndarray) -> np.ndarray:
        if not self.spec.own:
            return np.full((len(known), len(self.models)), 1 / len(self.models))
        table = np.concatenate([self.weights, self.weights.mean(0, keepdims=True)])
        return table[known]

    def _anchors(self, fixed: bool) -> Anchors:
        return Anchors(self._context, fixed)

    def _since(self, panel: Panel) -> np.ndarray:
        """Time of the row with which the distribution of each series of training begins ``(M,)``.

        Infinity where there is none: where a state is not exact, or its units follow the series.
        """
        # irregular times do not count rows
        if not self._settles or (self._context and panel.time_index.kind == "irregular"):
            return np.full(panel.batch, np.inf)
        if self._context is None:
            return np.full(panel.batch, -np.inf)
        return panel.t[span(panel, self._context)[0]]

    def _begin(self, known: np.ndarray, seen: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Row from which each series is filtered in the end, infinity for none ``(N,)``.

        Args:
            known: Place of each series in training, -1 where it was not there ``(N,)``.
            seen: Rows of each ``(N,)``.
            last: Time of the last one ``(N,)``.
        """
        since = np.where(known >= 0, self.since[known], np.inf)
        return np.maximum(np.rint(seen - 1 - (last - since)), 0.0)

    def _place(self, past: Past) -> tuple[np.ndarray, np.ndarray]:
        """Rows after which the units of each series were taken last, and where filtering begins."""
        known = past.known >= 0
        if self._fixed:
            begin = self._begin(past.known, past.seen, past.rows.last)
            fixed = self._anchors(True).place(past.reached, begin)
            if known.all():
                return fixed
        anchors = self._anchors(False)
        anchor = anchors.before(past.reached)
        start = anchors.start(anchor)
        if not self._fixed:
            return anchor, start
        return np.where(known, fixed[0], anchor), np.where(known, fixed[1], start)

    def _held(self, past: Past) -> Past:
        """The rows that a state still needs: the last one alone where a series has settled."""
        if not self._settles:
            return past
        begin = self._begin(past.known, past.seen, past.rows.last)
        settled = self._anchors(True).settled(past.reached, begin)
        return past.since(np.where(settled, past.seen - 1, past.first))

    def start(self, panel: Panel, seed: int) -> State:
        self._check(panel)
        return self._stand(Past.of(panel, *self._told(panel)), seed)

    def _stand(self, past: Past, seed: int) -> State:
        """The state after some rows, filtered anew in the units of the last anchor."""
        anchor, start = self._place(past)
        past = past.since(start)
        model_data = {kind: self._model_data(past, kind) for kind in self.views}
        everyone = np.arange(len(anchor))
        scales = {kind: n.scale(everyone, anchor - past.first) for kind, n in model_data.items()}
        generator = torch.Generator().manual_seed(seed)
        order, parts = [], []
        for index in batches(past.rows.lengths, self._cells()):
            end = torch.from_numpy(past.rows.lengths[index] - 1)
            data = {k: whole(n, index, scales[k].select(index)) for k, n in model_data.items()}
            parts.append(
                [
                    model.belief(data[kind], end=end, generator=generator)
                    for model, kind in zip(self.models, self.kinds, strict=True)
                ]
            )
            order.append(index)
        shift, scale = (np.stack(x, 1) for x in zip(*scales.values(), strict=True))
        weights = self._weights(past.known)
        return State(self._held(past), _joined(parts, order), shift, scale, weights)

    def _cells(self) -> int:
        """Rows of a batch, fewer where a state has a covariance."""
        width = max(m.transition.latent_dim for m in self.models)
        exact = any(isinstance(m.inference, Kalman) for m in self.models)
        return max(_CELLS // max(width * width // 8, 1), 1) if exact else _CELLS // 4

    def update(self, state: State, panel: Panel, seed: int) -> State:
        self._check(panel)
        past = state.past.followed(panel)
        places = zip(self._place(past), self._place(state.past), strict=True)
        stays = np.logical_and(*(now == before for now, before in places))
        if stays.all():
            return self._on(state, past, seed)
        parts, order = [], []
        for moved, index in enumerate((np.flatnonzero(stays), np.flatnonzero(~stays))):
            if len(index):
                part = past.select(index)
                found = (
                    self._stand(part, seed) if moved else self._on(state.select(index), part, seed)
                )
                parts.append(found)
                order.append(index)
        back = np.argsort(np.concatenate(order))
        return State.join(parts).select(back) if len(parts) > 1 else parts[0]

    def _stepping(self) -> LinearUpdates | None:
        """How all members move over a row at once, where they can."""
        even = (
            self._settles
            and self.time_index.kind != "irregular"
            and not self.data_summary.covariate_dim
        )
        return LinearUpdates.of(self.models) if even else None

    def _stepped(self, state: State, past: Past) -> State | None:
        """The state after a row of each series, where all members move at once; else None."""
        if self._steps is None or (past.seen != state.past.seen + 1).any():
            return None
        row = past.rows.offsets[1:] - 1
        y = past.rows.y[row]
        observed = torch.from_numpy(~np.isnan(y))
        read = {}
        for v, kind in enumerate(self.views):
            values = self.units[kind].inwards(self.transforms[kind].forward(y), state.shift[:, v])
            read[kind] = torch.from_numpy(np.nan_to_num(values)).to(self.spec.dtype)
        t = torch.from_numpy(past.rows.t[row])
        beliefs = self._steps(state.beliefs, [read[kind] for kind in self.kinds], observed, t)
        return None if beliefs is None else replace(state, past=self._held(past), beliefs=beliefs)

    def _on(self, state: State, past: Past, seed: int) -> State:
        """The state after more rows, in the units that it has."""
        if (found := self._stepped(state, past)) is not None:
            return found
        late = past.since(state.past.seen - 1)  # past covariates come from the row before
        model_data = {kind: self._model_data(late, kind) for kind in self.views}
        new = past.seen - state.past.seen
        generator = torch.Generator().manual_seed(seed)
        order, parts = [], []
        for count in np.unique(new):
            index = np.flatnonzero(new == count)
            some = state.select(index)
            begin = late.rows.lengths[index] - count
            data = {
                kind: n.cut(index, begin, int(count), some.units(v))
                for v, (kind, n) in enumerate(model_data.items())
            }
            members = zip(self.models, self.kinds, some.beliefs, strict=True)
            parts.append(
                [
                    model.update(belief, data[kind], generator=generator)
                    for model, kind, belief in members
                ]
            )
            order.append(index)
        return replace(state, past=self._held(past), beliefs=_joined(parts, order))

    def select(self, state: State, index: np.ndarray) -> State:
        return state.select(index)

    def join(self, states: Sequence[State]) -> State:
        return State.join(states)

    def _known(self, state: State, future: Future) -> tuple[Tensor, Tensor]:
        last = state.past.last
        u = self.inputs.of_future(
            self.time_index, future, state.past.rows.real, last if self.spec.past else last[:, :0]
        )
        return torch.from_numpy(u).to(self.spec.dtype), torch.from_numpy(future.t)

    def paths(self, state: State, future: Future, n: int, seed: int) -> np.ndarray:
        u, t = self._known(state, future)
        generator = torch.Generator().manual_seed(seed)
        owner = mixture.allot(state.weights, n, generator)
        out = np.empty((n, *future.t.shape, self.data_summary.obs_dim))
        for m, (model, belief) in enumerate(zip(self.models, state.beliefs, strict=True)):
            mine = owner == m
            shift = state.shift[:, self.views.index(self.kinds[m])]
            most = mine.sum(0)
            wanted = np.flatnonzero(most)
            for index in np.array_split(wanted, max(1, -(-int(most.sum()) // _PATHS))):
                if not len(index):
                    continue
                place = torch.from_numpy(index)
                drawn = model.forecast(
                    belief.select(place),
                    future.horizon,
                    n=int(most[index].max()),
                    u=u[place],
                    t=t[place],
                    generator=generator,
                ).y.numpy()
                slot, series = np.nonzero(mine[:, index])
                nth = np.cumsum(mine[:, index], 0)[slot, series] - 1
                out[slot, index[series]] = self.outwards(
                    m, drawn[nth, series], shift[index[series], None]
                )
        return self.bounded(out)

    def marginals(
        self, state: State, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Marginals:
        if not self.exact:
            return super().marginals(state, future, levels, n, seed)
        u, t = self._known(state, future)
        parts = [
            moments(model, belief, future.horizon, u=u, t=t)
            for model, belief in zip(self.models, state.beliefs, strict=True)
        ]
        views = [self.views.index(kind) for kind in self.kinds]
        units = [self.units[kind] for kind in self.kinds]
        mean, scale = (np.stack([x[i].double().numpy() for x in parts]) for i in (0, 1))
        shift = state.shift[:, views].swapaxes(0, 1)[:, :, None]
        mean = np.stack([one.outwards(m, s) for one, m, s in zip(units, mean, shift, strict=True)])
        scale = np.stack([one.unit * v**0.5 for one, v in zip(units, scale, strict=True)])
        weights = state.weights.T[:, :, None, None]
        all_marginals = [self.transforms[kind] for kind in self.kinds]
        quantiles = mixture.quantiles(weights, mean, scale, np.asarray(levels), all_marginals)
        means = [marginals.mean(mean[m], scale[m]) for m, marginals in enumerate(all_marginals)]
        average = (weights * np.stack(means)).sum(0)
        return Marginals(self.bounded(quantiles), self.bounded(average))

    def bounded(self, y: np.ndarray) -> np.ndarray:
        """Values that were never negative are not forecast to be."""
        return np.maximum(y, 0.0) if self.spec.bounded and self.data_summary.least >= 0 else y

    @property
    def exact(self) -> bool:
        """Whether predictive distributions are mixtures of normals, known in closed form."""
        return all(
            isinstance(m.inference, Kalman) and not m.memory.reads_values for m in self.models
        )

    @property
    def named(self) -> bool:  # type: ignore[override]
        """Whether all members have named components, inferred exactly."""
        return all(components.has_components(model) for model in self.models)

    @property
    def burn(self) -> int:  # type: ignore[override]
        """Coordinates of the first state whose distribution is vague, and not learned."""
        return max(map(innovations.vague, self.models), default=0)

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        return posterior.smooth(self, panel, seed)

    def components(
        self,
        panel: Panel,
        future: Future | None,
        levels: Sequence[float],
        *,
        filtered: bool,
        specifications: bool,
    ) -> tuple[Panel, list[contributions.Contributions]]:
        found = components.decompose(self, panel, future, filtered=filtered)
        if specifications:
            return found.panel, list(contributions.by_specification(found, self.transforms, levels))
        return found.panel, [contributions.pooled(found, self.transforms, levels)]

    def innovations(self, panel: Panel, seed: int) -> np.ndarray:
        if not all(isinstance(model.inference, Kalman) for model in self.models):
            return super().innovations(panel, seed)
        return innovations.exact(self, panel)

    def completed(
        self, panel: Panel, levels: Sequence[float], n: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not all(isinstance(model.inference, Kalman) for model in self.models):
            return super().completed(panel, levels, n, seed)
        return posterior.completed(self, panel, levels)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        return posterior.impute(self, panel, n, seed)

    def score(self, panel: Panel, seed: int) -> Scores:
        return posterior.score(self, panel, seed)

    def prepared(self, panel: Panel) -> dict[str, ModelData]:
        """A panel as the models read it, by the kind of transform."""
        self._check(panel)
        past = Past.of(panel, *self._told(panel))
        return {kind: self._model_data(past, kind) for kind in self.views}

    def groups(self, panel: Panel, draws: int) -> list[np.ndarray]:
        """Series to take together, so that memory stays bounded."""
        return list(batches(panel.lengths, max(4 * self._cells() // (draws + 4), 1)))

    def sequences(
        self,
        model_data: ModelData,
        index: np.ndarray,
        *,
        stop: np.ndarray | None = None,
        plain: bool = False,
    ) -> tuple[Sequences, Scale]:
        """All rows of some series, in units that know those before ``stop``, and these units."""
        stop = model_data.panel.lengths[index] if stop is None else stop
        scale = model_data.scale(index, stop)
        return whole(model_data, index, scale, plain=plain), scale

    def outwards(self, member: int, y: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """What a member says of values, in the units of the data."""
        kind = self.kinds[member]
        return self.transforms[kind].inverse(self.units[kind].outwards(y, shift))

    def pieces(self, panel: Panel, draws: int) -> list[Spans]:
        """Pieces of series that together speak of every row, to be taken together."""
        spans = self._anchors(False).spans(panel)
        if self._fixed:
            known = self._told(panel)[1]
            there = known >= 0
            begin = self._begin(known, panel.lengths, panel.last)
            fixed = self._anchors(True).spans(panel, begin)
            both = spans.select(~there[spans.series]), fixed.select(there[fixed.series])
            spans = Spans(*(np.concatenate(x) for x in zip(*both, strict=True)))
        cells = max(4 * self._cells() // (draws + 4), 1)
        return [spans.select(index) for index in batches(spans.stop - spans.start, cells)]

    def packed(self) -> Packed:
        arrays = {"weights": self.weights, "since": self.since}
        for kind, units in self.units.items():
            arrays |= {f"shift.{kind}": units.shift, f"scale.{kind}": units.scale}
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        for i, model in enumerate(self.models):
            tensors |= {f"member-{i}.{k}": v for k, v in model.state_dict().items()}
        config = {
            "spec": self.spec.to_dict(),
            "data_summary": self.data_summary.to_dict(),
            "summary": self.summary,
            "inputs": self.inputs.to_dict(),
            "time_index": self.time_index.to_dict(),
            "members": len(self.models),
            "kept": self.kept,
            "ids": [encoded(id) for id in self.rows],
            "notes": [[encoded(id), text] for id, text in self.notes.items()],
        }
        return Packed(config, tensors)

    @classmethod
    def unpacked(cls, packed: Packed, spec: Spec | None = None) -> "LatentEngine":
        config, arrays = packed
        spec = Spec.from_dict(config["spec"]) if spec is None else spec
        engine = cls(spec)
        engine.data_summary = DataSummary.from_dict(config["data_summary"])
        engine.summary = config["summary"]
        engine.inputs = Inputs.from_dict(config["inputs"])
        engine.time_index = TimeIndex.from_dict(config["time_index"])
        engine.rows = {decoded(code): i for i, code in enumerate(config["ids"])}
        models = engine._build(0)
        kept = config.get("kept")
        if kept is not None:
            models = [models[i] for i in kept]
            engine.kept, engine.kinds = kept, tuple(engine.kinds[i] for i in kept)
        engine.weights, engine.since = arrays["weights"].numpy(), arrays["since"].numpy()
        engine.notes = {decoded(code): text for code, text in config["notes"]}
        engine.units = {
            kind: Units(
                engine._scaling,
                engine.data_summary.season,
                engine._context,
                arrays[f"shift.{kind}"].numpy(),
                arrays[f"scale.{kind}"].numpy(),
                engine._fixed,
                engine._real,
            )
            for kind in engine.views
        }
        if len(models) != config["members"]:
            raise FolderError(
                f"the folder holds {config['members']} members of {spec.name!r}, its Spec builds "
                f"{len(models)}; pass the Spec that it was fitted with as specs=[...]."
            )
        for i, model in enumerate(models):
            try:
                model.load_state_dict(within(f"member-{i}.", arrays))
            except RuntimeError as error:
                raise FolderError(
                    f"the folder holds other parameters of {spec.name!r} than its Spec builds "
                    f"({error}); pass the Spec that it was fitted with as specs=[...]."
                ) from error
            model.eval().requires_grad_(False)
        engine.models = tuple(models)
        engine._steps = engine._stepping()
        return engine

    def pack(self, state: State) -> dict[str, Tensor]:
        return state.tensors()

    def unpack(self, tensors: Mapping[str, Tensor]) -> State:
        return State.of_tensors(tensors, len(self.models), self.time_index)


def _joined(parts: Sequence[Sequence[Belief]], order: Sequence[np.ndarray]) -> tuple[Belief, ...]:
    """Beliefs of each member, of groups of series, in the order of the series."""
    place = np.concatenate(order)
    if len(parts) == 1 and np.array_equal(place, np.arange(len(place))):
        return tuple(parts[0])
    back = torch.from_numpy(np.argsort(place))
    return tuple(Belief.join(member).select(back) for member in zip(*parts, strict=True))


def _key(id: Any) -> Any:
    return id.item() if isinstance(id, np.generic) else id


_FEW = 20.0  # counts of this median or less, or with zeros, are no longer nearly continuous


def _counts(y: np.ndarray) -> bool:
    seen = y[~np.isnan(y)]
    if not len(seen) or (seen < 0).any() or (seen != np.round(seen)).any():
        return False
    return bool(np.median(seen) <= _FEW or (seen == 0).mean() > 0.05)


def _words(support: Any) -> str:
    from seqlatent.emissions.emission import _in_words

    return _in_words(support)
