"""LatentEngine, which puts a latent model, or an ensemble of them, behind a forecaster."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from seqlatent.forecasting import components, contributions, innovations, mixture, posterior
from seqlatent.forecasting.clock import Clock
from seqlatent.forecasting.engine import Engine, Job, Law, Scores, Smoothed
from seqlatent.forecasting.errors import TargetError, TimeError
from seqlatent.forecasting.folder import read_tensors, write_tensors
from seqlatent.forecasting.inputs import Inputs
from seqlatent.forecasting.panel import Future, Panel
from seqlatent.forecasting.ranges import SINGLE, out_of_range, range_of
from seqlatent.forecasting.scaling import LOCAL, Scales, scales, varied
from seqlatent.forecasting.specs import Setting, Spec, Training, spec_of
from seqlatent.forecasting.transforms import TRANSFORMS
from seqlatent.forecasting.windows import Numbers, batches, read, whole
from seqlatent.inference import Kalman
from seqlatent.model import Belief, LatentModel, moments
from seqlatent.networks import reinitialise
from seqlatent.sequences import Sequences

__all__ = ["LatentEngine", "State"]

_CELLS = 400_000  # rows of a padded batch that is filtered at once
_PATHS = 40_000  # sample paths that are rolled out at once
# Building a model draws from torch's global generator, which is put back; two at once must not mix.
_BUILDING = threading.Lock()


@dataclass(frozen=True)
class State:
    """What the past of some series says about their future.

    Args:
        beliefs: Belief of each member of the ensemble.
        weights: Weight of each member for each series ``(N, M)``.
        real: Static numbers ``(N, A)``.
        past: Past covariates of the last row ``(N, P)``.
    """

    beliefs: tuple[Belief, ...]
    weights: np.ndarray
    real: np.ndarray
    past: np.ndarray


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
        self.findings: dict[str, Any] = {}

    def fit(self, panel: Panel, job: Job) -> None:
        self.clock = panel.clock
        spec = self.spec
        self.inputs = Inputs.of(
            panel if spec.past else replace(panel, past=panel.past[:, :0]),
            calendar=spec.calendar,
            season_lengths=job.season_lengths if spec.calendar else (),
            reals=spec.statics,
        )
        self.rows = {_key(id): i for i, id in enumerate(panel.ids)} if spec.own else {}
        self.setting = Setting(
            obs_dim=panel.y.shape[1],
            covariate_dim=self.inputs.width(panel.clock),
            code_sizes=self._code_sizes(panel),
            season_lengths=job.season_lengths,
            series=panel.batch,
            rows=int(np.median(panel.lengths)),
            irregular=panel.clock.kind == "irregular",
            longest=int(np.bincount(panel.owner[~np.isnan(panel.y[:, 0])]).max()),
            counts=_counts(panel.y),
            least=float(np.nanmin(panel.y)),
            varied=varied(panel),
        )
        models = self._build(job.seed)
        self._note(panel)
        self._check_gaps(models[0], panel)
        self._check_range(panel)
        self._check_support(models[0], panel)
        views = {kind: self._view(panel, kind) for kind in dict.fromkeys(self.kinds)}
        self.standards = {kind: self._scales(view) for kind, view in views.items()}
        numbers = self._numbers(panel, self.kinds[0])
        training = Training(numbers, self.setting, self.inputs.flags, job)
        weights = spec.train(models, training)
        self.findings = training.findings
        self.models = tuple(model.eval().requires_grad_(False) for model in models)
        equal = np.full((panel.batch, len(models)), 1 / len(models))
        self.weights = equal if weights is None else weights

    def _build(self, seed: int) -> list[LatentModel]:
        with _BUILDING, torch.random.fork_rng(devices=[]):
            models = list(self.spec.build(self.setting))
        self._real = models[0].emission.support is constraints.real
        kinds = self.spec.transform
        if callable(kinds):
            self.kinds = tuple(kinds(self.setting))
        else:
            self.kinds = (kinds,) * len(models)
        if "log" in self.kinds and self.setting.least <= 0:
            raise TargetError(
                f"the log transform expects positive values, found {self.setting.least:g}; use "
                "transform='none'."
            )
        self.transforms = {kind: TRANSFORMS[kind](self.setting.least) for kind in self.kinds}
        for i, model in enumerate(models):
            model.to(self.spec.dtype)
            reinitialise(model, torch.Generator().manual_seed(1000 * seed + i))
        return models

    def _note(self, panel: Panel) -> None:
        """Says what is there and not read, and which series do not say where they stand."""
        unread = [
            what
            for what, there, read in (
                ("static features", panel.real.shape[1] + panel.codes.shape[1], self.spec.statics),
                ("past covariates", panel.past.shape[1], self.spec.past),
            )
            if there and not read
        ]
        self.notes = {None: f"{' and '.join(unread)} are not read"} if unread else {}
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
        if panel.clock.kind == "irregular" and not model.transition.handles_gaps:
            raise TimeError(
                f"{self.spec.name} expects times at regular steps, found irregular ones; use "
                "'srnn', 'deep_markov', 'latent_ode' or 'naive', or give the times a freq, which "
                "makes missing rows of the gaps."
            )

    def _code_sizes(self, panel: Panel) -> tuple[int, ...]:
        if self.spec.own:
            return (panel.batch + 1,)
        if not self.spec.statics:
            return ()
        return tuple(int(x) + 1 for x in panel.codes.max(0))

    def _codes(self, panel: Panel) -> np.ndarray:
        if self.spec.own:
            new = self.setting.series
            return np.array([[self.rows.get(_key(id), new)] for id in panel.ids], dtype=np.int64)
        sizes = np.array(self.setting.code_sizes, dtype=np.int64)
        codes = panel.codes[:, : len(sizes)]
        return np.where(codes < sizes, codes, 0)

    def _view(self, panel: Panel, kind: str) -> Panel:
        """The panel after a transform."""
        return replace(panel, y=self.transforms[kind].forward(panel.y))

    def _scales(self, panel: Panel, usual: Scales | None = None) -> Scales:
        return scales(
            panel,
            self._scaling,
            season=self.setting.season,
            rows=self._context,
            usual=usual,
            digits=500 * torch.finfo(self.spec.dtype).eps,
        )

    @property
    def _scaling(self) -> str:
        kind = self.spec.scaling
        # counts and other positive families have no shift
        if self._real:
            return kind
        return "counts" if kind == "local" else "magnitude"

    @property
    def _context(self) -> int | None:
        """Rows that are filtered before a forecast."""
        context = self.spec.context
        return context(self.setting) if callable(context) else context

    def _numbers(self, panel: Panel, kind: str) -> Numbers:
        panel = self._view(panel, kind)
        shift, scale = self._scales(panel, self.standards[kind])
        codes = self._codes(panel)
        if self.spec.own:  # parameters are relative to the scale that they were fitted on
            known = codes[:, 0] < self.setting.series
            row = np.where(known, codes[:, 0], 0)
            own = self.standards[kind]
            shift = np.where(known[:, None], own[0][row], shift)
            scale = np.where(known[:, None], own[1][row], scale)
        held = panel if self.spec.past else replace(panel, past=panel.past[:, :0])
        u = self.inputs.of_panel(held)
        local = self._scaling if self._scaling in LOCAL else None
        season = self.setting.season
        return Numbers(panel, u, codes, shift, scale, self.spec.dtype, local, season)

    def _check_range(self, panel: Panel) -> None:
        """Names the row that is out of the range of single precision."""
        if self.spec.dtype == torch.float64:
            return
        for d in range(panel.y.shape[1]):
            wrong = out_of_range(panel.y[:, d], panel.owner, panel.batch, SINGLE)
            if wrong.any():
                r = int(np.argmax(wrong))
                i = int(panel.owner[r])
                raise TargetError(
                    f"{self.spec.name} computes in single precision: {panel.name(i)}, row "
                    f"{int(panel.row[r])}: {range_of(panel.y[r, d], SINGLE)}",
                    id=panel.ids[i],
                    row=int(panel.row[r]),
                )

    def _check_support(self, model: LatentModel, panel: Panel) -> None:
        """Names the row that an emission cannot take."""
        support = model.emission.support
        y = torch.from_numpy(np.nan_to_num(panel.y))
        wrong = (~support.check(y)).numpy() & ~np.isnan(panel.y)
        if wrong.any():
            r, d = (int(i) for i in np.argwhere(wrong)[0])
            i = int(panel.owner[r])
            raise TargetError(
                f"{type(model.emission).__name__} expects {_words(support)}, found "
                f"{panel.y[r, d]:g} for {panel.name(i)} in row {int(panel.row[r])}; correct the "
                "value, set it to NaN, or choose another emission.",
                id=panel.ids[i],
                row=int(panel.row[r]),
            )

    def expected(self, panel: Panel) -> np.ndarray:
        """Weights of the members for series that may be new."""
        if not self.spec.own:
            return np.full((panel.batch, len(self.models)), 1 / len(self.models))
        table = np.concatenate([self.weights, self.weights.mean(0, keepdims=True)])
        return table[self._codes(panel)[:, 0]]

    def start(self, panel: Panel, seed: int) -> State:
        numbers = self.prepared(panel)
        order, parts = [], []
        generator = torch.Generator().manual_seed(seed)
        lengths = read(panel, self._context)
        for index in batches(lengths, self._cells()):
            data = {k: whole(view, index, self._context) for k, view in numbers.items()}
            end = torch.from_numpy(lengths[index] - 1)
            parts.append(
                [
                    model.belief(data[kind], end=end, generator=generator)
                    for model, kind in zip(self.models, self.kinds, strict=True)
                ]
            )
            order.append(index)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        beliefs = tuple(Belief.join(member).select(back) for member in zip(*parts, strict=True))
        last = panel.offsets[1:] - 1
        return State(beliefs, self.expected(panel), panel.real, panel.past[last])

    def _cells(self) -> int:
        """Rows of a batch, fewer where a state has a covariance."""
        width = max(m.transition.latent_dim for m in self.models)
        exact = any(isinstance(m.inference, Kalman) for m in self.models)
        return max(_CELLS // max(width * width // 8, 1), 1) if exact else _CELLS // 4

    def update(self, state: State, panel: Panel, seed: int) -> State:
        before = np.array(panel.past)
        before[1:] = panel.past[:-1]
        before[panel.offsets[:-1]] = state.past
        held = before if self.spec.past else before[:, :0]
        u = self.inputs.rows(
            panel.clock,
            panel.t,
            panel.future,
            held,
            panel.real[panel.owner][:, : self.inputs.real_dim],
        )
        numbers = {kind: replace(view, u=u) for kind, view in self.prepared(panel).items()}
        generator = torch.Generator().manual_seed(seed)
        order, parts = [], []
        for count in np.unique(panel.lengths):
            index = np.flatnonzero(panel.lengths == count)
            place = torch.from_numpy(index)
            data = {kind: whole(view, index) for kind, view in numbers.items()}
            members = zip(self.models, self.kinds, state.beliefs, strict=True)
            parts.append(
                [
                    model.update(belief.select(place), data[kind], generator=generator)
                    for model, kind, belief in members
                ]
            )
            order.append(index)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        beliefs = tuple(Belief.join(member).select(back) for member in zip(*parts, strict=True))
        return replace(state, beliefs=beliefs, past=panel.past[panel.offsets[1:] - 1])

    def select(self, state: State, index: np.ndarray) -> State:
        place = torch.from_numpy(np.asarray(index, dtype=np.int64))
        return State(
            tuple(b.select(place) for b in state.beliefs),
            state.weights[index],
            state.real[index],
            state.past[index],
        )

    def join(self, states: Sequence[State]) -> State:
        beliefs = zip(*(s.beliefs for s in states), strict=True)
        return State(
            tuple(Belief.join(member) for member in beliefs),
            *(
                np.concatenate([getattr(s, name) for s in states])
                for name in ("weights", "real", "past")
            ),
        )

    def _known(self, state: State, future: Future) -> tuple[Tensor, Tensor]:
        u = self.inputs.of_future(
            self.clock, future, state.real, state.past if self.spec.past else state.past[:, :0]
        )
        return torch.from_numpy(u).to(self.spec.dtype), torch.from_numpy(future.t)

    def paths(self, state: State, future: Future, n: int, seed: int) -> np.ndarray:
        u, t = self._known(state, future)
        generator = torch.Generator().manual_seed(seed)
        owner = mixture.allot(state.weights, n, generator)
        out = np.empty((n, *future.t.shape, self.setting.obs_dim))
        for m, (model, belief) in enumerate(zip(self.models, state.beliefs, strict=True)):
            mine, back = owner == m, self.transforms[self.kinds[m]].inverse
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
                out[slot, index[series]] = back(drawn[nth, series])
        return self.bounded(out)

    def law(
        self, state: State, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Law:
        if not self.exact:
            return super().law(state, future, levels, n, seed)
        u, t = self._known(state, future)
        parts = [
            moments(model, belief, future.horizon, u=u, t=t)
            for model, belief in zip(self.models, state.beliefs, strict=True)
        ]
        mean = np.stack([m.numpy() for m, _ in parts]).astype(np.float64)
        scale = np.stack([v.sqrt().numpy() for _, v in parts]).astype(np.float64)
        weights = state.weights.T[:, :, None, None]
        laws = [self.transforms[kind] for kind in self.kinds]
        quantiles = mixture.quantiles(weights, mean, scale, np.asarray(levels), laws)
        means = [law.mean(mean[m], scale[m]) for m, law in enumerate(laws)]
        average = (weights * np.stack(means)).sum(0)
        return Law(self.bounded(quantiles), self.bounded(average))

    def bounded(self, y: np.ndarray) -> np.ndarray:
        """Values that were never negative are not forecast to be."""
        return np.maximum(y, 0.0) if self.spec.bounded and self.setting.least >= 0 else y

    @property
    def exact(self) -> bool:
        """Whether predictive laws are mixtures of normals, known in closed form."""
        return all(
            isinstance(m.inference, Kalman) and not m.memory.reads_values for m in self.models
        )

    @property
    def named(self) -> bool:  # type: ignore[override]
        """Whether all members have named components, inferred exactly."""
        return all(components.has_components(model) for model in self.models)

    @property
    def burn(self) -> int:  # type: ignore[override]
        """Coordinates of the first state whose law is vague, and not learned."""
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
        forms: bool,
    ) -> tuple[Panel, list[contributions.Contributions]]:
        found = components.decompose(self, panel, future, filtered=filtered)
        if forms:
            return found.panel, list(contributions.by_form(found, self.transforms, levels))
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

    def prepared(self, panel: Panel) -> dict[str, Numbers]:
        """A panel as the models read it, by the kind of transform."""
        self._check_range(panel)
        self._check_support(self.models[0], panel)
        return {kind: self._numbers(panel, kind) for kind in dict.fromkeys(self.kinds)}

    def groups(self, panel: Panel, draws: int) -> list[np.ndarray]:
        """Series to take together, so that memory stays bounded."""
        return list(batches(panel.lengths, max(4 * self._cells() // (draws + 4), 1)))

    def sequences(self, numbers: Numbers, index: np.ndarray) -> Sequences:
        """All rows of some series."""
        return whole(numbers, index)

    def save(self, folder: Path) -> dict[str, Any]:
        for i, model in enumerate(self.models):
            write_tensors(folder / f"weights-{i}.safetensors", dict(model.state_dict()))
        arrays = {"weights": self.weights}
        for kind, (shift, scale) in self.standards.items():
            arrays |= {f"shift.{kind}": shift, f"scale.{kind}": scale}
        write_tensors(
            folder / "series.safetensors", {k: torch.from_numpy(v) for k, v in arrays.items()}
        )
        return {
            "spec": self.spec.config or {"name": self.spec.name, "options": None},
            "setting": self.setting.to_dict(),
            "findings": self.findings,
            "inputs": self.inputs.to_dict(),
            "clock": self.clock.to_dict(),
            "members": len(self.models),
            "ids": list(self.rows),
        }

    @classmethod
    def load(
        cls, folder: Path, config: dict[str, Any], specs: Sequence[Spec] = ()
    ) -> "LatentEngine":
        wanted = config["spec"]
        given = [s for s in specs if s.name == wanted["name"]]
        if wanted["options"] is None and not given:
            raise ValueError(
                f"the model {wanted['name']!r} was made from a Spec of your own: pass it as "
                "Forecaster.load(folder, specs=[spec])."
            )
        spec = given[0] if given else spec_of(wanted["name"], **wanted["options"])
        engine = cls(spec)
        engine.setting = Setting.from_dict(config["setting"])
        engine.findings = config.get("findings", {})
        engine.inputs = Inputs.from_dict(config["inputs"])
        engine.clock = Clock.from_dict(config["clock"])
        engine.rows = {_key(id): i for i, id in enumerate(config["ids"])}
        arrays = read_tensors(folder / "series.safetensors")
        models = engine._build(0)
        engine.weights = arrays["weights"].numpy()
        engine.standards = {
            kind: (arrays[f"shift.{kind}"].numpy(), arrays[f"scale.{kind}"].numpy())
            for kind in dict.fromkeys(engine.kinds)
        }
        if len(models) != config["members"]:
            raise ValueError(
                f"the folder holds {config['members']} members of {spec.name!r}, its spec builds "
                f"{len(models)}."
            )
        for i, model in enumerate(models):
            model.load_state_dict(read_tensors(folder / f"weights-{i}.safetensors"))
            model.eval().requires_grad_(False)
        engine.models = tuple(models)
        return engine

    def save_state(self, state: State, path: Path) -> None:
        for i, belief in enumerate(state.beliefs):
            belief.save(path.with_name(f"{path.name}-{i}.safetensors"))
        write_tensors(
            path.with_name(f"{path.name}.safetensors"),
            {name: torch.from_numpy(getattr(state, name)) for name in ("weights", "real", "past")},
        )

    def load_state(self, path: Path) -> State:
        arrays = read_tensors(path.with_name(f"{path.name}.safetensors"))
        beliefs = tuple(
            Belief.load(path.with_name(f"{path.name}-{i}.safetensors"))
            for i in range(len(self.models))
        )
        return State(beliefs, *(arrays[name].numpy() for name in ("weights", "real", "past")))


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
