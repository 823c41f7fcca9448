"""Ensemble: latent models, the weight of each, and how they read a panel."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.distributions import constraints

from seqlatent.emissions import Emission
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.engines.latent import checks
from seqlatent.forecasting.engines.latent.members import members_of
from seqlatent.forecasting.engines.laws import OUTSIDE, law_of, limits, supports_of
from seqlatent.forecasting.engines.series_state import Past
from seqlatent.forecasting.engines.spec import DataSummary, Spec
from seqlatent.forecasting.features.anchors import Anchors
from seqlatent.forecasting.features.covariates import Inputs
from seqlatent.forecasting.features.pieces import Piece, pieces
from seqlatent.forecasting.features.scaling import Reading, Units, span, varied
from seqlatent.forecasting.features.transforms import TRANSFORMS, Transform
from seqlatent.forecasting.features.windows import ModelData, Scale, batches, whole
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences

__all__ = []

_CELLS = 400_000  # rows of a padded batch that is filtered at once


@dataclass(frozen=True)
class Ensemble:
    """Latent models, the weight of each, and how they read a panel.

    Args:
        spec: How the models are built, fed and trained.
        data_summary: What they were built for.
        inputs: The covariates that they read.
        places: Place of each series of training, by its id.
        models: The members.
        kinds: Transform through which each member sees the data.
        transforms: The transforms by their kinds.
        context: Rows from which the units of a series follow; None for all.
        readings: How the values of each target are read.
        fixed: Whether series of training keep the units that they had there.
        settles: Whether a series of training, in these units, is filtered exactly.
        units: How the units of a series follow from its rows, by the kind of transform.
        since: Time of the row with which the distribution of each series of training begins
            ``(N,)``; infinity where there is none, for its state is not exact or its units follow
            its rows.
        weights: Weight of each member for each series of training ``(N, M)``.
    """

    spec: Spec
    data_summary: DataSummary = field(default_factory=DataSummary)
    inputs: Inputs = field(default_factory=Inputs)
    places: Mapping[Any, int] = field(default_factory=dict, repr=False)
    models: tuple[LatentModel, ...] = ()
    kinds: tuple[str, ...] = ()
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    context: int | None = None
    readings: tuple[Reading, ...] = ()
    fixed: bool = False
    settles: bool = False
    units: Mapping[str, Units] = field(default_factory=dict, repr=False)
    since: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), repr=False)

    @classmethod
    def of(cls, spec: Spec, panel: Panel, fit_options: FitOptions) -> "Ensemble":
        """Untrained members of equal weight, and the units of the series of a panel.

        Raises:
            DataError: If the models cannot take a row, or the times.
        """
        inputs = Inputs.of(
            panel if spec.past else replace(panel, past=panel.past[:, :0]),
            calendar=spec.calendar,
            season_lengths=fit_options.season_lengths if spec.calendar else (),
            reals=spec.statics,
        )
        data_summary = _summary(spec, panel, inputs, fit_options.season_lengths)
        places = {plain_id(id): i for i, id in enumerate(panel.ids)}
        found = cls.built(spec, data_summary, inputs, places, fit_options.seed)
        checks.check_training(spec, found.models, found.kinds, panel)
        units = {kind: found.measured(panel, kind) for kind in found.views}
        weights = np.full((panel.batch, len(found.models)), 1 / len(found.models))
        return replace(found, units=units, since=found.began(panel), weights=weights)

    @classmethod
    def built(
        cls,
        spec: Spec,
        data_summary: DataSummary,
        inputs: Inputs,
        places: Mapping[Any, int],
        seed: int,
    ) -> "Ensemble":
        """Untrained members, without units and weights."""
        models = members_of(spec, data_summary, seed)
        exact = all(isinstance(model.inference, Kalman) for model in models)
        context = spec.context(data_summary) if callable(spec.context) else spec.context
        # parameters of linear models are relative to the units that they were fitted in
        fixed = spec.own or (exact and context is None)
        one = spec.transform
        kinds = tuple(one(data_summary)) if callable(one) else (one,) * len(models)
        return cls(
            spec,
            data_summary,
            inputs,
            places,
            models,
            kinds,
            {kind: TRANSFORMS[kind](data_summary.least) for kind in kinds},
            context,
            readings=_readings(spec, models[0].emission),
            fixed=fixed,
            settles=fixed and exact,
        )

    def keep(self, kept: list[int]) -> "Ensemble":
        """Some of the members."""
        return replace(
            self,
            models=tuple(self.models[i] for i in kept),
            kinds=tuple(self.kinds[i] for i in kept),
            weights=self.weights[:, kept] if len(self.weights) else self.weights,
        )

    @property
    def exact(self) -> bool:
        """Whether predictive distributions are mixtures of normals, known in closed form."""
        return self.kalman and not any(m.memory.reads_values for m in self.models)

    @property
    def kalman(self) -> bool:
        """Whether all members are inferred exactly."""
        return all(isinstance(m.inference, Kalman) for m in self.models)

    @property
    def views(self) -> tuple[str, ...]:
        """The transforms through which members see the data, each once."""
        return tuple(dict.fromkeys(self.kinds))

    def measured(self, panel: Panel, kind: str) -> Units:
        """The units of the series of a panel, after a transform."""
        return Units.of(
            self.view(panel, kind),
            self.readings,
            season=self.data_summary.season,
            context=self.context,
            fixed=self.fixed,
        )

    def units_of(self, shift: np.ndarray, scale: np.ndarray) -> Units:
        """Units that were measured before: shift and scale of each series of training."""
        season = self.data_summary.season
        return Units(self.readings, season, self.context, shift, scale, self.fixed)

    def began(self, panel: Panel) -> np.ndarray:
        """Time of the row with which the distribution of each series of a panel begins ``(N,)``."""
        # irregular times do not count rows
        if not self.settles or (self.context and panel.time_index.kind == "irregular"):
            return np.full(panel.batch, np.inf)
        if self.context is None:
            return np.full(panel.batch, -np.inf)
        return panel.t[span(panel, self.context)[0]]

    def told(self, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
        """Static codes ``(N, C)``, and the place of each series in training, -1 for none."""
        known = np.array([self.places.get(plain_id(id), -1) for id in panel.ids], dtype=np.int64)
        if self.spec.own:
            return np.where(known < 0, self.data_summary.series, known)[:, None], known
        sizes = np.array(self.data_summary.code_sizes, dtype=np.int64)
        codes = panel.codes[:, : len(sizes)]
        return np.where(codes < sizes, codes, 0), known

    def check(self, panel: Panel) -> None:
        """Makes sure that the models can take all rows of a panel.

        Raises:
            DataError: If they cannot; it names the row.
        """
        checks.check_rows(self.spec, self.models[0], replace(panel, y=self.within(panel.y)))

    def past(self, panel: Panel) -> Past:
        """All rows of a panel, as a state holds them.

        Raises:
            DataError: If the models cannot take a row.
        """
        self.check(panel)
        return Past.of(panel, *self.told(panel))

    def view(self, panel: Panel, kind: str) -> Panel:
        """The panel after a transform, its values between the limits of their laws."""
        return replace(panel, y=self.transforms[kind].forward(self.within(panel.y)))

    def outside(self, panel: Panel) -> list[tuple[Any, str]]:
        """What is to be noted of series with values outside the limits of their laws."""
        moved = ((self.within(panel.y) != panel.y) & ~np.isnan(panel.y)).any(1)
        return [(plain_id(id), OUTSIDE) for id in panel.ids[np.unique(panel.owner[moved])]]

    def within(self, y: np.ndarray) -> np.ndarray:
        """Values between the limits of the laws that training called for."""
        laws = self.data_summary.laws
        if not laws or self.models[0].emission.supports != supports_of(laws):
            return y
        lower, upper = zip(*map(limits, laws), strict=True)
        return np.clip(y, lower, upper)

    def model_data(self, past: Past, kind: str) -> ModelData:
        """Rows as the members read them that see the data through a transform."""
        view = self.view(past.rows, kind)
        return ModelData(
            view,
            self.covariates(view),
            past.codes,
            past.known,
            self.units[kind],
            self.spec.dtype,
            self.inputs.flags,
        )

    def each_view(self, past: Past, ids: np.ndarray) -> list[ModelData]:
        """Rows as each member reads them, under identifiers for the errors of training."""
        found = {kind: self.model_data(past, kind) for kind in self.views}
        found = {k: replace(x, panel=replace(x.panel, ids=ids)) for k, x in found.items()}
        return [found[kind] for kind in self.kinds]

    def covariates(self, panel: Panel) -> np.ndarray:
        """Covariates of every row that the members read ``(R, U)``."""
        held = panel if self.spec.past else replace(panel, past=panel.past[:, :0])
        return self.inputs.of_panel(held)

    def prepared(self, panel: Panel) -> dict[str, ModelData]:
        """A panel as the members read it, by the kind of transform."""
        past = self.past(panel)
        return {kind: self.model_data(past, kind) for kind in self.views}

    def expected(self, panel: Panel) -> np.ndarray:
        """Weights of the members for series that may be new ``(N, M)``."""
        return self.weights_of(self.told(panel)[1])

    def weights_of(self, known: np.ndarray) -> np.ndarray:
        """Weights for series by their places in training, -1 for none ``(N, M)``."""
        if not self.spec.own:
            return np.full((len(known), len(self.models)), 1 / len(self.models))
        table = np.concatenate([self.weights, self.weights.mean(0, keepdims=True)])
        return table[known]

    def place(self, past: Past) -> tuple[np.ndarray, np.ndarray]:
        """Rows after which the units of each series were taken last, and where filtering begins."""
        known = past.known >= 0
        if self.fixed and known.all():
            return self._fixed_place(past)
        anchors = Anchors(self.context)
        anchor = anchors.before(past.reached)
        start = anchors.start(anchor)
        if not self.fixed:
            return anchor, start
        fixed = self._fixed_place(past)
        return np.where(known, fixed[0], anchor), np.where(known, fixed[1], start)

    def _fixed_place(self, past: Past) -> tuple[np.ndarray, np.ndarray]:
        """The place of series of training, whose units do not change."""
        begin = self._begin(past.known, past.seen, past.rows.last)
        return Anchors(self.context, fixed=True).place(past.reached, begin)

    def held(self, past: Past) -> Past:
        """The rows that a state still needs: the last one alone where a series has settled."""
        if not self.settles:
            return past
        begin = self._begin(past.known, past.seen, past.rows.last)
        settled = Anchors(self.context, fixed=True).settled(past.reached, begin)
        return past.since(np.where(settled, past.seen - 1, past.first))

    def _begin(self, known: np.ndarray, seen: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Row from which each series is filtered in the end, infinity for none ``(N,)``.

        Args:
            known: Place of each series in training, -1 where it was not there ``(N,)``.
            seen: Rows of each ``(N,)``.
            last: Time of the last one ``(N,)``.
        """
        since = np.where(known >= 0, self.since[known], np.inf)
        return np.maximum(np.rint(seen - 1 - (last - since)), 0.0)

    def cells(self) -> int:
        """Rows of a batch, fewer where a state has a covariance."""
        if not any(isinstance(m.inference, Kalman) for m in self.models):
            return _CELLS // 4
        return max(_CELLS // max(self.state_dim**2 // 8, 1), 1)

    @property
    def state_dim(self) -> int:
        """Dimensions of the largest latent state of a member."""
        return max((m.transition.latent_dim for m in self.models), default=0)

    def groups(self, panel: Panel, draws: int) -> list[np.ndarray]:
        """Series to take together, so that memory stays bounded."""
        return list(batches(panel.lengths, self._cells_of(draws)))

    def _cells_of(self, draws: int) -> int:
        return max(4 * self.cells() // (draws + 4), 1)

    def pieces(self, panel: Panel, draws: int) -> Iterator[Piece]:
        """Pieces of series that together speak of every row, to be taken together."""
        cells, drawn = self._cells_of(draws), not self.kalman
        if not self.fixed:
            yield from pieces(panel, Anchors(self.context), cells, drawn=drawn)
            return
        known = self.told(panel)[1]
        if (known < 0).any():
            yield from pieces(panel, Anchors(self.context), cells, some=known < 0, drawn=drawn)
        if (known >= 0).any():
            anchors, begin = (
                Anchors(self.context, fixed=True),
                self._begin(known, panel.lengths, panel.last),
            )
            yield from pieces(panel, anchors, cells, begin=begin, some=known >= 0)

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

    def bounded(self, y: np.ndarray) -> np.ndarray:
        """Values that were never negative are not forecast to be."""
        return np.maximum(y, 0.0) if self.spec.bounded and self.data_summary.least >= 0 else y


def _readings(spec: Spec, emission: Emission) -> tuple[Reading, ...]:
    """How values are read: those of a family without a shift from zero, counts as they are."""
    found = []
    for support, shifted in zip(emission.supports, emission.shifted, strict=True):
        real = support is constraints.real
        continuous = real or support in (constraints.positive, constraints.nonnegative)
        kind = "counts" if spec.scaling == "local" and support.is_discrete else "magnitude"
        found.append(Reading(spec.scaling if shifted else kind, continuous, real))
    return tuple(found)


def plain_id(id: Any) -> Any:
    """An id as a plain value, by which it is found whatever array it came from."""
    return id.item() if isinstance(id, np.generic) else id


def _summary(
    spec: Spec, panel: Panel, inputs: Inputs, season_lengths: tuple[int, ...]
) -> DataSummary:
    return DataSummary(
        obs_dim=panel.y.shape[1],
        covariate_dim=inputs.width(panel.time_index),
        code_sizes=_code_sizes(spec, panel),
        season_lengths=season_lengths,
        series=panel.batch,
        rows=int(np.median(panel.lengths)),
        irregular=panel.time_index.kind == "irregular",
        longest=int(np.bincount(panel.owner[~np.isnan(panel.y[:, 0])]).max()),
        laws=tuple(law_of(y) for y in panel.y.T) if spec.follows_data else (),
        least=float(np.nanmin(panel.y)),
        varied=varied(panel),
    )


def _code_sizes(spec: Spec, panel: Panel) -> tuple[int, ...]:
    if spec.own:
        return (panel.batch + 1,)
    if not (spec.statics and spec.categories):
        return ()
    return tuple(int(x) + 1 for x in panel.codes.max(0))
