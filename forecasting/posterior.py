"""What a fitted latent model says of rows that it has: states, missing cells, one-step scores."""

from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqlatent.distributions import draw
from seqlatent.emissions.emission import LinearEmission
from seqlatent.forecasting.engine import Scores, Smoothed
from seqlatent.forecasting.panel import Panel
from seqlatent.inference import Amortised, Kalman, Particles
from seqlatent.model import LatentModel, one_step
from seqlatent.sequences import Sequences
from seqlatent.transitions import ContextualNoise, Sum
from seqlatent.transitions.structural import Component

if TYPE_CHECKING:
    from seqlatent.forecasting.latent import LatentEngine

__all__ = ["impute", "score", "smooth"]

_DRAWS = 100  # states per step where a law has no closed form


def _rows(panel: Panel, index: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the panel of some series, and where they lie in their padded batch."""
    lengths = panel.lengths[index]
    inside = np.arange(steps) < lengths[:, None]
    rows = panel.offsets[index][:, None] + np.arange(steps)
    return rows[inside], inside


def _members(engine: "LatentEngine", panel: Panel) -> list[tuple[int, np.ndarray]]:
    """Which member speaks for which series: the one of greatest weight."""
    best = engine.expected(panel).argmax(1)
    return [(int(m), np.flatnonzero(best == m)) for m in np.unique(best)]


def score(engine: "LatentEngine", panel: Panel, seed: int) -> Scores:
    """One-step scores of every row, from the mixture of the members."""
    numbers = engine.prepared(panel)
    generator = torch.Generator().manual_seed(seed)
    weights = engine.expected(panel)[panel.owner]
    density = np.zeros((panel.rows, len(engine.models)))
    missing = np.isnan(panel.y)
    below, equal = np.zeros(panel.y.shape), np.zeros(panel.y.shape)
    for m, model in enumerate(engine.models):
        for index in engine.groups(panel, _DRAWS):
            data = engine.sequences(numbers[engine.kinds[m]], index)
            found = one_step(model, data, samples=_DRAWS, generator=generator)
            rows, inside = _rows(panel, index, data.steps)
            density[rows, m] = found.log_prob.numpy()[inside]
            below[rows] += weights[rows, m, None] * found.below.numpy()[inside]
            equal[rows] += weights[rows, m, None] * found.equal.numpy()[inside]
        jacobian = engine.transforms[engine.kinds[m]].log_jacobian(panel.y)
        density[:, m] += np.where(missing, 0.0, jacobian).sum(1)
    top = density.max(1)
    log_score = np.log((weights * np.exp(density - top[:, None])).sum(1)) + top
    log_score[missing.all(1)] = np.nan
    uniform = torch.rand(panel.y.shape, generator=generator, dtype=torch.float64).numpy()
    pit = below + uniform * equal
    if not engine.exact:  # from draws: a value beyond them all is not impossible
        pit = (_DRAWS * pit + uniform) / (_DRAWS + 1)
    return Scores(log_score, np.where(missing, np.nan, pit))


def impute(engine: "LatentEngine", panel: Panel, n: int, seed: int) -> np.ndarray:
    """Draws of every cell given all rows; observed cells stay as they are."""
    numbers = engine.prepared(panel)
    generator = torch.Generator().manual_seed(seed)
    out = np.broadcast_to(panel.y, (n, *panel.y.shape)).copy()
    holes = np.isnan(panel.y).any(1)
    wanted = np.flatnonzero(np.add.reduceat(holes, panel.offsets[:-1]))
    for member, series in _members(engine, panel):
        model = engine.models[member]
        for index in engine.groups(panel, n):
            index = index[np.isin(index, series) & np.isin(index, wanted)]
            if not len(index):
                continue
            data = engine.sequences(numbers[engine.kinds[member]], index)
            back = engine.transforms[engine.kinds[member]].inverse
            drawn = back(_draws(model, data, n, generator).numpy())
            rows, inside = _rows(panel, index, data.steps)
            cells = drawn[:, inside]
            out[:, rows] = np.where(np.isnan(out[:, rows]), cells, out[:, rows])
    return out


def _draws(model: LatentModel, data: Sequences, n: int, generator: torch.Generator) -> Tensor:
    """Draws of the observations given all of them, as if each had been seen anew."""
    c = model.context(data)
    inference = model.inference
    with torch.no_grad():
        if isinstance(inference, Amortised) and inference.causal:
            # what filters knows nothing of the rows after a hole; particles that look back do
            inference = Particles(max(n, _DRAWS), proposal=inference)
        z = inference(model, data, c).rsample((n,), generator)
        return draw(model.emission(z, c), (), generator).double()


def smooth(engine: "LatentEngine", panel: Panel, seed: int) -> Smoothed:
    """States and components given all rows, each series by its member of greatest weight."""
    if not any(model.transition.latent_dim for model in engine.models):
        raise NotImplementedError(
            f"{engine.spec.name} was fitted without a latent state; use 'structural', "
            "'deep_markov', or seqlatent.forecasting.spec_of('srnn', latent_dim=8)."
        )
    numbers = engine.prepared(panel)
    generator = torch.Generator().manual_seed(seed)
    names: dict[str, str] = {}
    found = []
    for member, series in _members(engine, panel):
        model = engine.models[member]
        for index in engine.groups(panel, _DRAWS):
            index = index[np.isin(index, series)]
            if not len(index):
                continue
            data = engine.sequences(numbers[engine.kinds[member]], index)
            kind, laws = _laws(model, data, generator)
            names |= kind
            rows, inside = _rows(panel, index, data.steps)
            found.append((rows, {k: (m[inside], s[inside]) for k, (m, s) in laws.items()}))
    mean = np.full((panel.rows, len(names)), np.nan)
    scale = np.full((panel.rows, len(names)), np.nan)
    for rows, laws in found:
        for k, name in enumerate(names):
            if name in laws:
                mean[rows, k], scale[rows, k] = laws[name]
    return Smoothed(tuple(names), tuple(names.values()), mean, scale)


Laws = dict[str, tuple[np.ndarray, np.ndarray]]


def _laws(
    model: LatentModel, data: Sequences, generator: torch.Generator
) -> tuple[dict[str, str], Laws]:
    """Kinds, means and standard deviations ``(B, T)`` by name."""
    with torch.no_grad():
        inner = model.transition
        if isinstance(inner, ContextualNoise):
            inner = inner.inner
        if isinstance(model.inference, Kalman) and isinstance(inner, Component):
            return _components(model, inner, data)
        inference = model.inference
        if isinstance(inference, Amortised) and inference.causal:
            inference = Particles(_DRAWS, proposal=inference)
        states = inference.smooth(model, data, generator=generator)
        mean, scale = states.mean.double().numpy(), states.variance.sqrt().double().numpy()
        names = [f"z{k + 1}" for k in range(mean.shape[-1])]
        laws = {name: (mean[..., k], scale[..., k]) for k, name in enumerate(names)}
        return dict.fromkeys(names, "state"), laws


def _components(
    model: LatentModel, inner: Component, data: Sequences
) -> tuple[dict[str, str], Laws]:
    assert isinstance(model.emission, LinearEmission)
    c = model.context(data)
    states = model.inference.smooth(model, data, c=c)
    H, d, _ = model.emission.matrices(c)
    H = H.expand(*states.mean.shape[:-1], *H.shape[-2:])[..., 0, :]
    P = states.marginals.covariance_matrix  # type: ignore[attr-defined]
    parts = inner.parts if isinstance(inner, Sum) else (inner,)
    slices = inner.slices if isinstance(inner, Sum) else (slice(0, inner.latent_dim),)
    scale, shift = data.scale, data.shift
    offset = d[..., 0].expand(states.mean.shape[:-1])
    kinds: dict[str, str] = {}
    laws: Laws = {}
    numbered = count(2)

    def add(name: str, kind: str, mean: Tensor, variance: Tensor) -> None:
        if name in kinds:
            name = f"{name}_{next(numbered)}"
        kinds[name] = kind
        spread = variance.clamp_min(0).sqrt() * scale
        laws[name] = (mean.double().numpy(), spread.double().numpy())

    for i, (part, s) in enumerate(zip(parts, slices, strict=True)):
        h, m, V = H[..., s], states.mean[..., s], P[..., s, s]
        value = (h * m).sum(-1) * scale + (shift if i == 0 else 0.0)
        add(_title(part), "component", value, ((h[..., None, :] @ V)[..., 0, :] * h).sum(-1))
        if type(part).__name__ in ("LocalLinearTrend", "DampedTrend"):
            add("slope", "state", m[..., 1] * scale, V[..., 1, 1])
    if bool((offset != 0).any()):  # what a network reads off known inputs
        add("known", "component", offset * scale, torch.zeros_like(offset))
    total = ((H * states.mean).sum(-1) + offset) * scale + shift
    add("signal", "signal", total, ((H[..., None, :] @ P)[..., 0, :] * H).sum(-1))
    return kinds, laws


def _title(part: Component) -> str:
    """Name of a component: what the field calls it."""
    kind = type(part).__name__
    period = getattr(part, "period", None)
    plain = {
        "LocalLevel": "level",
        "LocalLinearTrend": "trend",
        "DampedTrend": "trend",
        "Regression": "regression",
        "Cycle": "cycle",
        "AR": "autoregression",
    }
    if period is not None and "Seasonal" in kind:
        return f"seasonal_{period:g}"
    return plain.get(kind, kind.lower())
