"""LatentEngine, which puts a latent model, or an ensemble of them, behind a forecaster."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.engines import contributions, mixture, parameters
from seqlatent.forecasting.engines.engine import (
    Engine,
    FitOptions,
    Marginals,
    Packed,
    Scores,
    Smoothed,
)
from seqlatent.forecasting.engines.latent import checks, components, packing, posterior, widths
from seqlatent.forecasting.engines.latent import residuals as innovations
from seqlatent.forecasting.engines.latent.ensemble import Ensemble, plain_id
from seqlatent.forecasting.engines.latent.limited import trained
from seqlatent.forecasting.engines.latent.updates import LinearUpdates
from seqlatent.forecasting.engines.laws import said_of
from seqlatent.forecasting.engines.series_state import Past, State, joined
from seqlatent.forecasting.engines.spec import Spec, Training
from seqlatent.forecasting.features.windows import batches, whole
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.model import moments

__all__ = ["LatentEngine"]

_PATHS = 40_000  # sample paths that are rolled out at once


class LatentEngine(Engine):
    """A latent model behind a forecaster.

    Args:
        spec: How to build, feed and train the model.

    Attributes:
        ensemble: The members, and how they read a panel; without any before the fit.
        kept: Which of the members that the spec builds were trained, where not all were.
        posteriors: Of the parameters of each series of training by each specification.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.samples = spec.samples
        self.ensemble = Ensemble(spec)
        self.kept: list[int] | None = None
        self.posteriors: tuple[parameters.Marginals, ...] = ()

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        self.time_index, began = panel.time_index, fit_options.deadline.spent
        # a rehearsal starts series by the members as they are before training
        self.ensemble = ensemble = Ensemble.of(self.spec, panel, fit_options)
        views = ensemble.each_view(Past.of(panel, *ensemble.told(panel)), panel.ids)
        training = Training(
            views[0],
            ensemble.data_summary,
            ensemble.inputs.flags,
            fit_options,
            panel,
            views={id(m): x for m, x in zip(ensemble.models, views, strict=True)},
        )
        found = trained(self, self.spec.train, ensemble.models, training, panel)
        self.stopped, self.doubtful = found.stopped, found.doubtful
        self.with_history, self.summary = found.with_history, training.summary
        self.posteriors = tuple(training.marginals)
        models = tuple(model.eval().requires_grad_(False) for model in found.models)
        weights = ensemble.weights if found.weights is None else found.weights
        self.ensemble = replace(ensemble, models=models, weights=weights)
        if self.stopped:
            self.kept = kept = [int(i) for i in np.flatnonzero((weights > 0).any(0))]
            self.ensemble = self.ensemble.keep(kept)
        if self.spec.calibrate and self.exact and not self.stopped:
            trial = type(self)(replace(self.spec, calibrate=False))
            until = fit_options.deadline.sooner(self.with_history)
            options = replace(fit_options, deadline=until, progress=False)
            spent = fit_options.deadline.spent - began
            said = widths.widened(trial, self.ensemble, panel, options, spent)
            self.summary["calibration"] = said.to_dict()
        self._steps = self._stepping()
        self._note(panel)
        self.note_each((plain_id(panel.ids[i]), text) for i, text in training.of_series.items())

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
        late = self.summary.get("calibration") == widths.LATE.to_dict()
        left_out = f"{' and '.join(unread)} are not read" if unread else ""
        said = [self.stopped, "time_limit: widths are not calibrated" if late else "", left_out]
        said = [*filter(None, said), *said_of(self.ensemble.data_summary.laws, panel)]
        if any(model.memory.reads_values for model in self.ensemble.models):
            said.append(
                "impute does not condition on the rows after a hole, so that its bands are no "
                "bridges; use 'structural' or 'deep_state' for holes that matter"
            )
        self.notes = {None: "; ".join(said)} if said else {}
        count = np.add.reduceat(~np.isnan(panel.y), panel.offsets[:-1], 0, dtype=np.int64)
        for i, d in np.argwhere(count < 2):
            target = f"target {d + 1}: " if panel.y.shape[1] > 1 else ""
            many = "one value: it" if count[i, d] else "no value: it stands and"
            few = f"{many} moves as the other series do"
            self.notes[plain_id(panel.ids[i])] = target + few

    def start(self, panel: Panel, seed: int) -> State:
        self.note_each(self.ensemble.outside(panel))
        return self._stand(self.ensemble.past(panel), seed)

    def _stand(self, past: Past, seed: int) -> State:
        """The state after some rows, filtered anew in the units of the last anchor."""
        ensemble = self.ensemble
        anchor, start = ensemble.place(past)
        past = past.since(start)
        model_data = {kind: ensemble.model_data(past, kind) for kind in ensemble.views}
        everyone = np.arange(len(anchor))
        scales = {kind: n.scale(everyone, anchor - past.first) for kind, n in model_data.items()}
        generator = torch.Generator().manual_seed(seed)
        order, parts = [], []
        for index in batches(past.rows.lengths, ensemble.cells()):
            end = torch.from_numpy(past.rows.lengths[index] - 1)
            data = {k: whole(n, index, scales[k].select(index)) for k, n in model_data.items()}
            parts.append(
                [
                    model.belief(data[kind], end=end, generator=generator)
                    for model, kind in zip(ensemble.models, ensemble.kinds, strict=True)
                ]
            )
            order.append(index)
        shift, scale = (np.stack(x, 1) for x in zip(*scales.values(), strict=True))
        weights = ensemble.weights_of(past.known)
        return State(ensemble.held(past), joined(parts, order), shift, scale, weights)

    def update(self, state: State, panel: Panel, seed: int) -> State:
        self.ensemble.check(panel)
        self.note_each(self.ensemble.outside(panel))
        past = state.past.followed(panel)
        places = zip(self.ensemble.place(past), self.ensemble.place(state.past), strict=True)
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
            self.ensemble.settles
            and self.time_index.kind != "irregular"
            and not self.ensemble.data_summary.covariate_dim
        )
        return LinearUpdates.of(self.ensemble.models) if even else None

    def _stepped(self, state: State, past: Past) -> State | None:
        """The state after a row of each series, where all members move at once; else None."""
        ensemble = self.ensemble
        if self._steps is None or (past.seen != state.past.seen + 1).any():
            return None
        row = past.rows.offsets[1:] - 1
        y = past.rows.y[row]
        observed = torch.from_numpy(~np.isnan(y))
        read = {}
        for v, kind in enumerate(ensemble.views):
            y_seen = ensemble.transforms[kind].forward(y)
            values = ensemble.units[kind].inwards(y_seen, state.shift[:, v])
            read[kind] = torch.from_numpy(np.nan_to_num(values)).to(self.spec.dtype)
        t = torch.from_numpy(past.rows.t[row])
        beliefs = self._steps(state.beliefs, [read[kind] for kind in ensemble.kinds], observed, t)
        if beliefs is None:
            return None
        return replace(state, past=ensemble.held(past), beliefs=beliefs)

    def _on(self, state: State, past: Past, seed: int) -> State:
        """The state after more rows, in the units that it has."""
        ensemble = self.ensemble
        if (found := self._stepped(state, past)) is not None:
            return found
        late = past.since(state.past.seen - 1)  # past covariates come from the row before
        model_data = {kind: ensemble.model_data(late, kind) for kind in ensemble.views}
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
            members = zip(ensemble.models, ensemble.kinds, some.beliefs, strict=True)
            parts.append(
                [
                    model.update(belief, data[kind], generator=generator)
                    for model, kind, belief in members
                ]
            )
            order.append(index)
        return replace(state, past=ensemble.held(past), beliefs=joined(parts, order))

    def select(self, state: State, index: np.ndarray) -> State:
        return state.select(index)

    def join(self, states: Sequence[State]) -> State:
        return State.join(states)

    def _known(self, state: State, future: Future) -> tuple[Tensor, Tensor]:
        last = state.past.last
        u = self.ensemble.inputs.of_future(
            self.time_index, future, state.past.rows.real, last if self.spec.past else last[:, :0]
        )
        return torch.from_numpy(u).to(self.spec.dtype), torch.from_numpy(future.t)

    def paths(self, state: State, future: Future, n: int, seed: int) -> np.ndarray:
        ensemble = self.ensemble
        u, t = self._known(state, future)
        generator = torch.Generator().manual_seed(seed)
        owner = mixture.allot(state.weights, n, generator)
        out = np.empty((n, *future.t.shape, ensemble.data_summary.obs_dim))
        for m, (model, belief) in enumerate(zip(ensemble.models, state.beliefs, strict=True)):
            mine = owner == m
            shift = state.shift[:, ensemble.views.index(ensemble.kinds[m])]
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
                out[slot, index[series]] = ensemble.outwards(
                    m, drawn[nth, series], shift[index[series], None]
                )
        return ensemble.bounded(out)

    def marginals(
        self, state: State, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Marginals:
        ensemble = self.ensemble
        if not self.exact:
            return super().marginals(state, future, levels, n, seed)
        u, t = self._known(state, future)
        parts = [
            moments(model, belief, future.horizon, u=u, t=t)
            for model, belief in zip(ensemble.models, state.beliefs, strict=True)
        ]
        views = [ensemble.views.index(kind) for kind in ensemble.kinds]
        units = [ensemble.units[kind] for kind in ensemble.kinds]
        mean, scale = (np.stack([x[i].double().numpy() for x in parts]) for i in (0, 1))
        shift = state.shift[:, views].swapaxes(0, 1)[:, :, None]
        mean = np.stack([one.outwards(m, s) for one, m, s in zip(units, mean, shift, strict=True)])
        scale = np.stack([one.unit * v**0.5 for one, v in zip(units, scale, strict=True)])
        weights = state.weights.T[:, :, None, None]
        all_marginals = [ensemble.transforms[kind] for kind in ensemble.kinds]
        quantiles = mixture.quantiles(weights, mean, scale, np.asarray(levels), all_marginals)
        means = [marginals.mean(mean[m], scale[m]) for m, marginals in enumerate(all_marginals)]
        average = (weights * np.stack(means)).sum(0)
        return Marginals(ensemble.bounded(quantiles), ensemble.bounded(average))

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether predictive distributions are mixtures of normals, known in closed form."""
        return self.ensemble.exact

    @property
    def state_dim(self) -> int:  # type: ignore[override]
        """Dimensions of the largest latent state of a member."""
        return self.ensemble.state_dim

    @property
    def named(self) -> bool:  # type: ignore[override]
        """Whether all members have named components, inferred exactly."""
        return all(components.has_components(model) for model in self.ensemble.models)

    @property
    def burn(self) -> int:  # type: ignore[override]
        """Coordinates of the first state whose distribution is vague, and not learned."""
        return max(map(innovations.vague, self.ensemble.models), default=0)

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        return posterior.smooth(self.ensemble, panel, seed)

    def components(
        self,
        panel: Panel,
        future: Future | None,
        levels: Sequence[float],
        *,
        filtered: bool,
        specifications: bool,
    ) -> tuple[Panel, list[contributions.Contributions]]:
        found = components.decompose(self.ensemble, panel, future, filtered=filtered)
        if specifications:
            return found.panel, list(
                contributions.by_specification(found, self.ensemble.transforms, levels)
            )
        return found.panel, [contributions.pooled(found, self.ensemble.transforms, levels)]

    @property
    def parametric(self) -> bool:  # type: ignore[override]
        """Whether the trainer left posteriors of the parameters of each series."""
        return bool(self.posteriors)

    def parameters(
        self, panel: Panel, levels: Sequence[float], seed: int, *, specifications: bool
    ) -> list[parameters.Parameters]:
        if not self.posteriors:
            raise TypeError(
                f"parameters need a model that has some of each series, found {self.spec.name}; "
                "use 'structural'."
            )
        _, known = self.ensemble.told(panel)
        checks.check_known(self.spec, panel, known)
        found = [one.select(torch.from_numpy(known)) for one in self.posteriors]
        if specifications:
            return list(parameters.by_specification(found, levels))
        return [parameters.pooled(found, levels)]

    def innovations(self, panel: Panel, seed: int) -> np.ndarray:
        if not self.ensemble.kalman:
            return super().innovations(panel, seed)
        return innovations.exact(self.ensemble, panel)

    def completed(
        self, panel: Panel, levels: Sequence[float], n: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.ensemble.kalman:
            return super().completed(panel, levels, n, seed)
        return posterior.completed(self.ensemble, panel, levels)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        return posterior.impute(self.ensemble, panel, n, seed)

    def score(self, panel: Panel, seed: int) -> Scores:
        return posterior.score(self.ensemble, panel, seed)

    def packed(self) -> Packed:
        config, tensors = packing.packed(self.ensemble, self.posteriors)
        config |= {
            "spec": self.spec.to_dict(),
            "summary": self.summary,
            "time_index": self.time_index.to_dict(),
            "kept": self.kept,
            "notes": [[encoded(id), text] for id, text in self.notes.items()],
        }
        return Packed(config, tensors)

    @classmethod
    def unpacked(cls, packed: Packed, spec: Spec | None = None) -> "LatentEngine":
        config = packed.config
        engine = cls(Spec.from_dict(config["spec"]) if spec is None else spec)
        engine.summary, engine.kept = config["summary"], config["kept"]
        engine.time_index = TimeIndex.from_dict(config["time_index"])
        engine.notes = {decoded(code): text for code, text in config["notes"]}
        engine.ensemble = packing.unpacked(packed, engine.spec, engine.kept)
        engine.posteriors = packing.posteriors(packed)
        engine._steps = engine._stepping()
        return engine

    def pack(self, state: State) -> dict[str, Tensor]:
        return state.tensors()

    def unpack(self, tensors: Mapping[str, Tensor]) -> State:
        return State.of_tensors(tensors, len(self.ensemble.models), self.time_index)
