"""Amortised, networks that have learned from drawn series, adapted to the panel or as they are."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri

from seqlatent.amortised import (
    Adaptation,
    Forecast,
    Network,
    Rehearsal,
    Seasons,
    Typicality,
    adapted,
    context_of,
    load_networks,
    shipped_typicality,
    weights_hash,
)
from seqlatent.amortised.latents import LatentNetwork, latent_hash
from seqlatent.forecasting.engines import unread
from seqlatent.forecasting.engines.amortised import (
    covariates,
    options,
    packing,
    scoring,
    usual,
    windows,
)
from seqlatent.forecasting.engines.amortised.covariates import Covariates, PerTarget
from seqlatent.forecasting.engines.amortised.inspected import Inspected
from seqlatent.forecasting.engines.amortised.predictor import Pool, Predictor
from seqlatent.forecasting.engines.amortised.progress import Steps
from seqlatent.forecasting.engines.amortised.windows import State
from seqlatent.forecasting.engines.engine import (
    FitOptions,
    Marginals,
    Packed,
    Scores,
)
from seqlatent.forecasting.errors import ArgumentError
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = ["Amortised"]

_CELLS = 2**19  # cells whose distributions are held at once
_PAST = 50_000_000  # cells of the past that are held to adapt to


class Amortised(Inspected):
    """Networks that have learned from drawn series what follows from a past.

    They forecast series that they have never seen, in one pass, without a fit; a few steps on the
    panel's own past beside drawn series adapt copies of them to it. Forecasts are joint over leads;
    several targets are forecast one by one. What covariates that are known ahead did in the past
    they do again, if blocks held out at its end are forecast better so; they are read where there
    is an adaptation, be it of no steps. Past covariates and static features are not read.

    Args:
        adapt: Whether to adapt to the panel, or how.
        horizon: Leads that the networks adapt to; None for two seasons, and no more than a quarter
            of the rows of a series. Any others may be asked for.
        networks: Networks of one's own; None for those that ship with the package.
        rehearsal: Drawn series that networks of one's own learned from, which stand beside those of
            the panel when they are adapted, and whose seasons are those that may be asked for; None
            for series of the prior of the package.
        latents: Networks that tell components, holes, breaks and parameters; None for those of the
            package, which stand beside its own networks only.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting import Amortised, Forecaster
        >>> ds = pd.date_range("2024-01-01", periods=40, freq="D")
        >>> df = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 4.0, 3.0] * 10})
        >>> found = Forecaster(Amortised(adapt=False), season_length=4).fit(df).predict(3)
        >>> list(found.columns)[:4]
        ['unique_id', 'ds', 'amortised', 'amortised-mean']
    """

    alias: str = "amortised"
    exact = True

    def __init__(
        self,
        *,
        adapt: bool | Adaptation = True,
        horizon: int | None = None,
        networks: Sequence[Network] | None = None,
        rehearsal: Rehearsal | None = None,
        latents: Sequence[LatentNetwork] | None = None,
    ) -> None:
        options.check(adapt, horizon, networks, rehearsal, latents)
        self.adapt, self.horizon, self.rehearsal = adapt, horizon, rehearsal
        self.own = None if networks is None else tuple(networks)
        self.latents = None if latents is None else tuple(latents)
        self.networks: tuple[Network, ...] | None = None  # adapted to the panel
        self.width: tuple[float, ...] = (1.0,)
        self.leads, self.targets = 1, 0
        self.effects: PerTarget = ()
        self._test: Typicality | None = None

    def unfitted(self) -> "Amortised":
        """Another with the same options that has learned nothing."""
        return type(self)(
            adapt=self.adapt,
            horizon=self.horizon,
            networks=self.own,
            rehearsal=self.rehearsal,
            latents=self.latents,
        )

    # --- fit ---------------------------------------------------------------------------------

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        unread.require_grid(self.alias, panel)
        self.notes, self.stopped, self.networks = {}, "", None
        self.width, self.leads, self.targets = (1.0,), 1, panel.y.shape[1]
        self.effects = ()
        seasons = Seasons.of(fit_options.season_lengths)
        self._require_seasons(seasons)
        self.summary = {
            "weights": None if self.own else weights_hash(),
            "latents": None if self.own or self.latents else latent_hash(),
        }
        if self.adapt:
            self._adapt(panel, seasons, fit_options)
        self._ready(seasons, Pool.of(panel))
        self._note(panel, fit_options.season_lengths)
        if panel.batch * self.targets <= usual.NOTED and not fit_options.deadline.passed:
            self.note_each(usual.remarks(panel, self.typicality(panel)))

    def _adapt(self, panel: Panel, seasons: Seasons, fit_options: FitOptions) -> None:
        """Adapts the networks as far as there is time."""
        how = Adaptation() if self.adapt is True else self.adapt
        assert isinstance(how, Adaptation)
        self.leads = self.horizon or options.usual_leads(seasons, panel.lengths)
        y, observed, u = self._past(panel, context_of(seasons) + 4 * self.leads)
        if u.shape[2]:
            self.effects, y = covariates.learned(
                self._base, y, observed, u, seasons, self.leads, how.blocks
            )
            self.summary["effects"] = covariates.summary(self.effects)
        with Steps(fit_options) as steps:
            found = adapted(
                self._base,
                y,
                observed,
                seasons,
                self.leads,
                how=how,
                curriculum=self.rehearsal,
                seed=fit_options.seed,
                device=fit_options.device,
                going_on=steps,
            )
        self.width = found.width
        if not packing.same(found.networks, self._base):
            self.networks = tuple(found.networks)
        self.summary |= {
            "share": found.share,
            "width": list(found.width),
            "losses": [[share, loss] for share, loss in found.losses.items()],
        }
        if steps.left:
            done, count = steps.left
            self.stopped = f"adaptation stopped by time_limit after {done} of {count} steps"
        elif not found.losses and how.steps:
            few = "too few rows to adapt to and to hold out, so that the networks are as they were"
            self.notes[None] = few

    def _require_seasons(self, seasons: Seasons) -> None:
        """Refuses seasons that networks of one's own were not trained on."""
        if self.rehearsal is None or seasons == self.rehearsal.seasons:
            return
        known, asked = (
            list(dict.fromkeys(m for m in s if m)) for s in (self.rehearsal.seasons, seasons)
        )
        raise ArgumentError(
            f"these networks have learned from series of season_length={known}, found {asked}, "
            f"given or by the frequency; write Forecaster(..., season_length={known}), or train "
            f"others: amortise(prior, season_length={asked}).",
            name="season_length",
        )

    @property
    def _base(self) -> tuple[Network, ...]:
        """The networks before they are adapted."""
        return load_networks() if self.own is None else self.own

    def _past(self, panel: Panel, least: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values of all series and targets, where they are seen, and covariates of all series.

        Each is at the end of its row. Of many series some of the past is left out, but never the
        last ``least`` rows.
        """
        columns = self.targets + panel.future.shape[1]
        width = int(min(panel.lengths.max(), max(least, _PAST // (panel.batch * columns))))
        last = panel.offsets[1:] - 1
        y = np.concatenate([windows.cut(panel, column, last, width) for column in panel.y.T])
        u = np.nan_to_num(windows.cut(panel, panel.future, last, width), copy=False)
        tensors = np.nan_to_num(y), ~np.isnan(y), u
        return tuple(torch.from_numpy(x) for x in tensors)  # type: ignore[return-value]

    def _ready(self, seasons: Seasons, pool: Pool) -> None:
        networks = self._base if self.networks is None else self.networks
        double, single = (
            tuple(deepcopy(network).to(dtype).eval() for network in networks)
            for dtype in (torch.float64, torch.float32)
        )
        self.predictor = Predictor(
            double, single, seasons, pool, self.width, self.leads, self.effects
        )

    def _note(self, panel: Panel, season_lengths: tuple[int, ...]) -> None:
        ignored = unread.ignored(
            self.alias,
            panel,
            handles_covariates=bool(self.effects),
            ahead_by="adapt=True, 'sarimax' or a latent model",
        )
        said = [self.notes.get(None), self.stopped, ignored, covariates.note(self.effects)]
        if len(season_lengths) > 2:
            first, *between, last = season_lengths
            said.append(
                f"seasons of {first} and {last} steps are read, those between, "
                f"{', '.join(map(str, between))}, are not"
            )
        if self.targets > 1:
            said.append("each target is forecast by itself")
        text = "; ".join(filter(None, said))
        if text:
            self.notes[None] = text
        self.note_each(usual.short(panel))

    # --- state -------------------------------------------------------------------------------

    def start(self, panel: Panel, seed: int) -> State:
        self._require(panel)
        return windows.state_of(panel, self.predictor.length, self.predictor.reads_covariates)

    def update(self, state: State, panel: Panel, seed: int) -> State:
        self._require(panel)
        return windows.followed(state, panel, self.predictor.length)

    def join(self, states: Sequence[State]) -> State:
        return windows.join(states)

    # --- forecasts ---------------------------------------------------------------------------

    def _forecasts(
        self, state: State, future: Future, each: int = 1
    ) -> Iterator[tuple[slice, Forecast]]:
        """Distributions ``(S D, H)`` of some series at a time, of ``each`` numbers a cell."""
        targets = state["y"].shape[1]
        size = max(1, _CELLS // (each * future.horizon * targets))
        predictor = self.predictor.of(future.t.size * targets)
        steps = np.rint(future.t - state["last"][:, None]).astype(np.int64)
        for i in range(0, len(steps), size):
            part = slice(i, i + size)
            y, age = state["y"][part], state["age"][part]
            leads = (age[..., None] + steps[part, None]).reshape(-1, future.horizon)
            target, read = np.tile(np.arange(targets), len(y)), None
            if "u" in state:
                u = state["u"][part]
                read = Covariates(u.reshape(-1, *u.shape[2:]), future.u[part].repeat(targets, 0))
            yield part, predictor.forecast(y.reshape(-1, y.shape[2]), leads, target, read)

    def paths(self, state: State, future: Future, n: int, seed: int) -> np.ndarray:
        out = np.empty((n, *future.t.shape, self.targets))
        generator = torch.Generator().manual_seed(seed)
        for part, found in self._forecasts(state, future, n):
            out[:, part] = self._by_target(found.sample(n, generator))
        return out

    def marginals(
        self, state: State, future: Future, levels: Sequence[int | float], n: int, seed: int
    ) -> Marginals:
        scores = torch.from_numpy(ndtri(np.asarray(levels, dtype=np.float64)))
        quantiles = np.empty((len(scores), *future.t.shape, self.targets))
        mean = np.empty((*future.t.shape, self.targets))
        for part, found in self._forecasts(state, future, len(scores) + 1):
            shape = found.marginals.knots.shape[:2]
            quantiles[:, part] = self._by_target(
                found.marginals.at(scores[:, None, None].expand(-1, *shape))
            )
            mean[part] = self._by_target(found.marginals.mean()[None])[0]
        return Marginals(quantiles, mean)

    def _by_target(self, values: torch.Tensor) -> np.ndarray:
        """Values ``(K, S D, H)`` as ``(K, S, H, D)``."""
        k, _, h = values.shape
        return values.numpy().reshape(k, -1, self.targets, h).swapaxes(2, 3)

    def score(self, panel: Panel, seed: int) -> Scores:
        self._require(panel)
        return Scores(*scoring.scores(self.predictor, panel, seed))

    def typicality(self, panel: Panel) -> tuple[np.ndarray, np.ndarray] | None:
        self._require(panel)
        seasons = self.predictor.seasons
        if self.own is None:
            return usual.tested(shipped_typicality(seasons), panel)
        if self.rehearsal is None:  # nobody says what its networks learned from
            return None
        if self._test is None:
            self._test = Typicality(self.own, self.rehearsal)
        return usual.tested(self._test, panel)

    # --- files -------------------------------------------------------------------------------

    def packed(self) -> Packed:
        tensors = packing.pool_to_tensors(self.predictor.pool)
        tensors |= packing.networks_to_tensors("own", self.own or ())
        tensors |= packing.networks_to_tensors("adapted", self.networks or ())
        tensors |= packing.networks_to_tensors("latents", self.latents or ())
        tensors |= covariates.effects_to_tensors(self.effects)
        tensors |= packing.rehearsal_to_tensors(self.rehearsal)
        config: dict[str, Any] = {
            "adapt": packing.adapt_to_dict(self.adapt),
            "horizon": self.horizon,
            "own": packing.sizes_of(self.own),
            "adapted": packing.sizes_of(self.networks or None),
            "latents": packing.sizes_of(self.latents),
            "rehearsal": None if self.rehearsal is None else self.rehearsal.leads,
            "seasons": list(self.predictor.seasons),
            "targets": self.targets,
            "width": list(self.width),
            "leads": self.leads,
            "effects": len(self.effects),
            "summary": self.summary,
            "stopped": self.stopped,
            "networks": len(self.predictor.networks),
            "parameters": packing.size(self.predictor.networks),
            "notes": [[encoded(id), text] for id, text in self.notes.items()],
        }
        return Packed(config, tensors)

    @classmethod
    def unpacked(cls, packed: Packed) -> "Amortised":
        config, tensors = packed
        own, found = (
            None if config[name] is None else packing.networks_of(name, config[name], tensors)
            for name in ("own", "adapted")
        )
        adapt = packing.adapt_from_dict(config["adapt"])
        seasons = Seasons(*config["seasons"])
        kept = packing.rehearsal_of(config.get("rehearsal"), seasons, tensors)
        sizes = config.get("latents")
        told = sizes and packing.networks_of("latents", sizes, tensors, LatentNetwork)
        engine = cls(
            adapt=adapt, horizon=config["horizon"], networks=own, rehearsal=kept, latents=told
        )
        engine.networks, engine.targets = found, config["targets"]
        engine.width, engine.leads = tuple(config["width"]), config["leads"]
        engine.effects = covariates.effects_of_tensors(config["effects"], tensors)
        engine.summary, engine.stopped = config["summary"], config["stopped"]
        engine.notes = {decoded(code): text for code, text in config["notes"]}
        said = [engine.notes.get(None)]
        if own is None and found is None and engine.summary["weights"] != weights_hash():
            said.append(packing.CHANGED)
        if engine.summary.get("latents") not in (None, latent_hash()):
            said.append(packing.TOLD_OTHERWISE)
        if len(said) > 1:
            engine.notes[None] = "; ".join(dict.fromkeys(filter(None, said)))
        engine._ready(seasons, packing.pool_of(tensors))
        return engine
