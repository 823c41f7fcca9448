"""Components, the named parts of a structural model, given the rows of a panel."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.emissions import LinearGaussian
from seqlatent.emissions.emission import LinearEmission
from seqlatent.forecasting.engines.latent.ensemble import Ensemble
from seqlatent.forecasting.engines.latent.posterior import judged, rows_of
from seqlatent.forecasting.engines.terms import Decomposed, Normals, Term
from seqlatent.forecasting.features.windows import ModelData
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.transitions import (
    AR,
    ContextualNoise,
    Cycle,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
)
from seqlatent.transitions.structural import Component

__all__ = ["components_of", "decompose", "described", "has_components", "named"]

_TRENDS = (LocalLevel, LocalLinearTrend, DampedTrend)


class _Direction(NamedTuple):
    """A linear function of the state: weights ``(B, T, D, K)`` and an offset ``(B, T, D)``."""

    weights: Tensor
    offset: Tensor

    def __add__(self, other: Any) -> "_Direction":
        return _Direction(self.weights + other.weights, self.offset + other.offset)


class _Part(NamedTuple):
    name: str
    kind: str
    own: _Direction
    base: _Direction | None


def decompose(
    ensemble: Ensemble, panel: Panel, future: Future | None, *, filtered: bool
) -> Decomposed:
    """Components of every row, exactly.

    Args:
        ensemble: The fitted ensemble.
        panel: Rows to read.
        future: Steps after them whose components are wanted too.
        filtered: Whether a row is seen given the rows up to it, rather than given all.

    Raises:
        TypeError: If a member has no components, or is not inferred exactly.
    """
    for model in ensemble.models:
        _require(ensemble, model)
    panel_read = panel
    model_data = ensemble.prepared(panel)
    if future is not None:
        panel = panel.extended(future)
        model_data = {
            kind: _longer(ensemble, view, panel, kind) for kind, view in model_data.items()
        }
    scales = ensemble.inputs.future_scale
    found: list[dict[str, Term]] = []
    for model, kind in zip(ensemble.models, ensemble.kinds, strict=True):
        terms: dict[str, Term] = {}
        for data, first, rows, inside in _read(
            ensemble, model_data[kind], panel, panel_read.lengths, filtered
        ):
            for name, term in _terms(model, data, scales, filtered):
                into = terms.setdefault(name, _empty(term, panel))
                for whole, part in zip(into[1:], term[1:], strict=True):
                    if whole is not None and part is not None:
                        whole.mean[rows] = part.mean[:, first:][inside]
                        whole.scale[rows] = part.scale[:, first:][inside]
        found.append(terms)
    return Decomposed(
        panel,
        tuple(described(m, k) for m, k in zip(ensemble.models, ensemble.kinds, strict=True)),
        ensemble.kinds,
        ensemble.expected(panel_read)[panel.owner],
        tuple(found),
    )


def _read(
    ensemble: Ensemble, model_data: ModelData, panel: Panel, lengths: np.ndarray, filtered: bool
) -> Iterator[tuple[Sequences, int, np.ndarray, np.ndarray]]:
    """Batches, and from which step on they say something of which rows of the panel.

    Who sees a row given those up to it does so in units that know no more.
    """
    if filtered:
        for piece in ensemble.pieces(panel, 0):
            data = model_data.piece(piece.spans, piece.steps, plain=True)
            yield data, piece.lead, *judged(panel, piece)
        return
    for index in ensemble.groups(panel, 0):
        data, _ = ensemble.sequences(model_data, index, stop=lengths[index], plain=True)
        yield data, 0, *rows_of(panel, index, data.steps)


def has_components(model: LatentModel) -> bool:
    """Whether a model has named components, inferred exactly."""
    linear = isinstance(model.inference, Kalman) and isinstance(model.emission, LinearEmission)
    return linear and isinstance(_inner(model), Component)


def _require(ensemble: Ensemble, model: LatentModel) -> None:
    inner = _inner(model)
    if not isinstance(inner, Component):
        raise TypeError(
            "components need a transition of named components, Sum([LocalLevel(), "
            f"Seasonal(12), ...]), found {type(inner).__name__} in {ensemble.spec.name}; use "
            "'structural' or 'deep_state', or smooth, which gives the states of any latent model."
        )
    if not has_components(model):
        raise TypeError(
            "components are exact and need Kalman and a linear emission, found "
            f"{type(model.inference).__name__} and {type(model.emission).__name__} in "
            f"{ensemble.spec.name}; use smooth, which gives the states of any latent model."
        )


def _longer(ensemble: Ensemble, view: ModelData, panel: Panel, kind: str) -> ModelData:
    """Numbers of a panel that goes on, scaled as they were before."""
    held = panel if ensemble.spec.past else replace(panel, past=panel.past[:, :0])
    seen = replace(panel, y=ensemble.transforms[kind].forward(panel.y))
    return replace(view, panel=seen, u=ensemble.inputs.of_panel(held))


def _empty(term: Term, panel: Panel) -> Term:
    def blank(distribution: Normals | None) -> Normals | None:
        nan = np.full(panel.y.shape, np.nan)
        return None if distribution is None else Normals(nan, nan.copy())

    return Term(term.kind, *(blank(distribution) for distribution in term[1:]))  # type: ignore[arg-type]


@torch.no_grad()
def _terms(
    model: LatentModel, data: Sequences, scales: Sequence[float], filtered: bool
) -> Iterator[tuple[str, Term]]:
    c = model.context(data)
    inference = model.inference
    states = (inference.filter if filtered else inference.smooth)(model, data, c=c)
    m, P = states.mean, states.marginals.covariance_matrix  # type: ignore[attr-defined]

    def distribution(way: _Direction) -> Normals:
        mean = (way.weights * m[..., None, :]).sum(-1) + way.offset
        variance = ((way.weights @ P) * way.weights).sum(-1)
        return Normals(mean.double().numpy(), variance.clamp_min(0).sqrt().double().numpy().copy())

    assert isinstance(model.emission, LinearEmission)
    H, d, _ = model.emission.matrices(c)
    scale = data.scale[:, None]
    shape = (data.batch, data.steps, data.y.shape[-1])
    H = H.expand(*shape, m.shape[-1]) * scale[..., None]
    d = (d * scale).expand(shape)
    for part in _parts(model, H, d, data, scales):
        if part.base is None:
            yield part.name, Term(part.kind, distribution(part.own))
        else:
            total = distribution(part.base + part.own)
            yield part.name, Term(part.kind, distribution(part.own), distribution(part.base), total)


def _parts(
    model: LatentModel, H: Tensor, d: Tensor, data: Sequences, scales: Sequence[float]
) -> Iterator[_Part]:
    """Directions of the components, that which has the level first."""
    shift, zero = data.shift[:, None].expand_as(d), torch.zeros_like(d)
    none = torch.zeros_like(H)
    emission = model.emission
    follows = not isinstance(emission, LinearGaussian) or emission.head is not None
    # an offset that is the same at all times belongs to the level
    start = shift if follows else shift + d
    parts = list(_flat(_inner(model)))
    parts.sort(key=lambda part: not isinstance(part[0], _TRENDS))
    total: _Direction | None = None
    later: list[_Part] = []
    names: dict[str, int] = {}

    def unique(name: str) -> str:
        names[name] = names.get(name, 0) + 1
        return name if names[name] == 1 else f"{name}_{names[name]}"

    def over(places: slice, weight: Tensor) -> Tensor:
        w = torch.zeros_like(H)
        w[..., places] = weight
        return w

    if not isinstance(parts[0][0], _TRENDS):
        total = _Direction(none, start)
        yield _Part("constant", "component", total, None)
    for part, places in parts:
        for name, s in _pieces(part, places):
            offset = start if total is None else zero
            own = _Direction(over(s, H[..., s]), offset)
            yield _Part(unique(name), "component", own, total)
            total = own if total is None else total + own
        if isinstance(part, LocalLinearTrend | DampedTrend):
            s = slice(places.start + 1, places.start + 2)
            own = _Direction(over(s, H[..., places.start : places.start + 1]), zero)
            yield _Part(unique("slope"), "state", own, total)
        if isinstance(part, Regression):
            for k, index in enumerate(part.loading.covariate):
                s = slice(places.start + k, places.start + k + 1)
                unit = data.scale[:, None, :, None] / (scales[index] if index < len(scales) else 1)
                later.append(
                    _Part(f"coefficient[{index}]", "state", _Direction(over(s, unit), zero), None)
                )
    assert total is not None
    if follows and bool((d != 0).any()):  # what a network reads off known inputs
        own = _Direction(none, d)
        yield _Part("known", "component", own, total)
        total = total + own
    for part in later:
        yield part._replace(name=unique(part.name), base=total)
    yield _Part("signal", "signal", total, None)


def components_of(model: LatentModel) -> list[Component]:
    """The components of a model that are no sums; none where they have no names."""
    inner = _inner(model)
    return [part for part, _ in _flat(inner)] if isinstance(inner, Component) else []


def _inner(model: LatentModel) -> Any:
    inner = model.transition
    return inner.inner if isinstance(inner, ContextualNoise) else inner


def _flat(part: Component, start: int = 0) -> Iterator[tuple[Component, slice]]:
    """Components that are no sums, and where their states lie."""
    if not isinstance(part, Sum):
        yield part, slice(start, start + part.latent_dim)
        return
    for one, places in zip(part.parts, part.slices, strict=True):
        yield from _flat(one, start + places.start)


def _pieces(part: Component, places: slice) -> list[tuple[str, slice]]:
    """What a component adds, by name: a regression something for each covariate."""
    if isinstance(part, Regression):
        return [
            (f"regression[{index}]", slice(places.start + k, places.start + k + 1))
            for k, index in enumerate(part.loading.covariate)
        ]
    return [(_title(part), places)]


def _title(part: Component) -> str:
    """Name of a component: what the field calls it."""
    if isinstance(part, _TRENDS):
        return "level"
    if isinstance(part, Seasonal | TrigonometricSeasonal):
        return f"season{part.period:g}"
    if isinstance(part, Cycle):
        return "cycle"
    return "autoregressive" if isinstance(part, AR) else type(part).__name__.lower()


def described(model: LatentModel, kind: str = "none") -> str:
    """The form of a structural model in words.

    Args:
        model: A model of named components.
        kind: Transform through which it sees the data.

    Example:
        >>> from seqlatent import zoo
        >>> described(zoo.structural(season_length=4), "log")
        'level+season4 of logarithms'
    """
    words = []
    for part, _ in _flat(_inner(model)):
        if isinstance(part, DampedTrend):
            words.append("damped")
        elif isinstance(part, LocalLinearTrend):
            words.append("drift" if part.log_slope_scale is None else "trend")
        elif not isinstance(part, Regression):
            words.append(_title(part))
    ending = {"none": "", "log": " of logarithms"}.get(kind, f" of {kind}")
    return ("+".join(words) or "regression") + ending


def named(label: str, covariates: Sequence[str]) -> str:
    """A label with the names of covariates instead of their numbers.

    Example:
        >>> named("regression[1]", ["price", "promo"])
        'regression[promo]'
    """

    def name(found: re.Match[str]) -> str:
        k = int(found[1])
        return f"[{covariates[k]}]" if k < len(covariates) else f"[input {k}]"

    return re.sub(r"\[(\d+)\]", name, label)
