"""What a fitted latent model says of rows that it has: states, missing cells, one-step scores."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from seqlatent.distributions import sample, standard_normal
from seqlatent.emissions.emission import LinearEmission
from seqlatent.forecasting.engines import mixture
from seqlatent.forecasting.engines.engine import Scores, Smoothed
from seqlatent.forecasting.engines.latent.ensemble import Ensemble
from seqlatent.forecasting.features.pieces import Piece
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.inference import Amortised, Particles
from seqlatent.linalg import factor
from seqlatent.model import LatentModel, one_step
from seqlatent.sequences import Context, Sequences

__all__ = ["completed", "impute", "judged", "rows_of", "score", "smooth"]

_DRAWS = 100  # states per step where a distribution has no closed form


def rows_of(panel: Panel, index: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the panel of some series, and where they lie in their padded batch."""
    lengths = panel.lengths[index]
    inside = np.arange(steps) < lengths[:, None]
    rows = panel.offsets[index][:, None] + np.arange(steps)
    return rows[inside], inside


def judged(panel: Panel, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the panel that pieces speak of, and where they lie in their padded batch.

    The batch counts from the first step at which any piece may speak.
    """
    spans = piece.spans
    steps = np.arange(piece.lead, piece.steps)
    nth = spans.start[:, None] + steps
    inside = (nth >= piece.first[:, None]) & (nth < piece.stop[:, None])
    rows = panel.offsets[spans.series][:, None] + nth
    return rows[inside], inside


def _members(ensemble: Ensemble, panel: Panel) -> list[tuple[int, np.ndarray]]:
    """Which member speaks for which series: the one of greatest weight."""
    best = ensemble.expected(panel).argmax(1)
    return [(int(m), np.flatnonzero(best == m)) for m in np.unique(best)]


def score(ensemble: Ensemble, panel: Panel, seed: int) -> Scores:
    """One-step scores of every row, from the mixture of the members."""
    model_data = ensemble.prepared(panel)
    weights = ensemble.expected(panel)[panel.owner]
    density = np.zeros((panel.rows, len(ensemble.models)))
    missing = np.isnan(panel.y)
    below, equal = np.zeros(panel.y.shape), np.zeros(panel.y.shape)
    within = ensemble.within(panel.y)
    drawn = False
    for m, (model, kind) in enumerate(zip(ensemble.models, ensemble.kinds, strict=True)):
        draws = _DRAWS if model.transition.latent_dim else 0
        massive = np.zeros(panel.y.shape, dtype=bool)
        for piece in ensemble.pieces(panel, draws):
            data, (rows, inside) = (
                model_data[kind].piece(piece.spans, piece.steps),
                judged(panel, piece),
            )
            generator = torch.Generator().manual_seed(seed + piece.number + 104_729 * m)
            found = one_step(model, data, samples=_DRAWS, first=piece.lead, generator=generator)
            density[rows, m] = found.log_prob.numpy()[inside]
            below[rows] += weights[rows, m, None] * found.below.numpy()[inside]
            equal[rows] += weights[rows, m, None] * found.equal.numpy()[inside]
            massive[rows] = found.equal.numpy()[inside] > 0
            drawn = drawn or found.drawn
        jacobian = ensemble.transforms[kind].log_jacobian(within) - np.log(
            ensemble.units[kind].unit
        )
        # a probability is the same in all units
        density[:, m] += np.where(missing | massive, 0.0, jacobian).sum(1)
    with np.errstate(divide="ignore"):  # a weight of zero hides what alone foresaw a row
        log_score = np.logaddexp.reduce(density + np.log(weights), axis=1)
    log_score[missing.all(1)] = np.nan
    uniform = np.random.default_rng(seed).random(panel.y.shape)
    pit = below + uniform * equal
    if drawn:  # a value beyond all draws is not impossible
        pit = (_DRAWS * pit + uniform) / (_DRAWS + 1)
    return Scores(log_score, np.where(missing, np.nan, pit))


def impute(ensemble: Ensemble, panel: Panel, n: int, seed: int) -> np.ndarray:
    """Joint draws of every cell given all rows; observed cells stay as they are.

    Each draw of a series comes from one member of the ensemble, as sample paths do. With ``Kalman``
    the draws are exact: a path of the state from its posterior chain, then the missing cells of
    each row given the state and the cells observed beside them, whose noise may be correlated.
    """
    model_data = ensemble.prepared(panel)
    generator = torch.Generator().manual_seed(seed)
    out = np.broadcast_to(panel.y, (n, *panel.y.shape)).copy()
    owner = mixture.allot(ensemble.expected(panel), n, generator)
    wanted = _incomplete(panel)
    for member, model in enumerate(ensemble.models):
        mine = owner == member
        for index in ensemble.groups(panel, n):
            most = mine.sum(0)
            index = index[wanted[index] & (most[index] > 0)]
            if not len(index):
                continue
            data, scale = ensemble.sequences(model_data[ensemble.kinds[member]], index)
            drawn = _draws(model, data, int(most[index].max()), generator).numpy()
            drawn = ensemble.bounded(ensemble.outwards(member, drawn, scale.shift[:, None]))
            for series, i in enumerate(index):
                start, stop = panel.offsets[i], panel.offsets[i + 1]
                slots = np.flatnonzero(mine[:, i])
                hole = np.isnan(panel.y[start:stop])
                cells = drawn[: len(slots), series, : stop - start]
                out[slots, start:stop] = np.where(hole, cells, out[slots, start:stop])
    return out


def completed(
    ensemble: Ensemble, panel: Panel, levels: Collection[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``(R, D)`` and quantiles ``(Q, R, D)`` of every cell given all rows, in closed form.

    The distribution of a missing cell is a mixture of normals, one of each member, carried to the
    units of the data. Observed cells are themselves.
    """
    model_data = ensemble.prepared(panel)
    weights = ensemble.expected(panel)[panel.owner].T[:, :, None]
    wanted = _incomplete(panel)
    mean = np.zeros((len(ensemble.models), *panel.y.shape))
    scale = np.ones_like(mean)
    for member, model in enumerate(ensemble.models):
        for index in ensemble.groups(panel, 0):
            index = index[wanted[index]]
            if not len(index):
                continue
            units = ensemble.units[ensemble.kinds[member]]
            data, own = ensemble.sequences(model_data[ensemble.kinds[member]], index)
            rows, inside = rows_of(panel, index, data.steps)
            m, s = (x.numpy() for x in _cells(model, data))
            mean[member, rows] = units.outwards(m, own.shift[:, None])[inside]
            scale[member, rows] = (units.unit * s)[inside]
    distributions = [ensemble.transforms[kind] for kind in ensemble.kinds]
    hole = np.isnan(panel.y)
    size = np.abs(mean).max(0) + scale.max(0)
    scale = np.maximum(scale, 1e-12 * size + 1e-290)  # a cell may be known without a doubt
    quantiles = mixture.quantiles(
        weights, mean, scale, np.asarray(levels, dtype=float), distributions
    )
    means = [distribution.mean(mean[m], scale[m]) for m, distribution in enumerate(distributions)]
    average = (weights * np.stack(means)).sum(0)
    return (
        np.where(hole, ensemble.bounded(average), panel.y),
        np.where(hole, ensemble.bounded(quantiles), panel.y),
    )


def _incomplete(panel: Panel) -> np.ndarray:
    """Which series lack a value ``(N,)``."""
    return np.add.reduceat(np.isnan(panel.y).any(1), panel.offsets[:-1]) > 0


def _draws(model: LatentModel, data: Sequences, n: int, generator: torch.Generator) -> Tensor:
    """Draws of the observations given all of them; what was observed is drawn anew."""
    c = model.context(data)
    inference = model.inference
    with torch.no_grad():
        if isinstance(inference, Amortised) and inference.causal:
            # what filters knows nothing of the rows after a hole; particles that look back do
            inference = Particles(max(n, _DRAWS), proposal=inference)
        z = inference(model, data, c).rsample((n,), generator)
        if not isinstance(model.emission, LinearEmission):
            return sample(model.emission(z, c), (), generator).double()
        H, d, R = _beside(model.emission, data, c)
        loc = (H @ z[..., None])[..., 0] + d
        noise = standard_normal(loc.shape, loc, generator)
        if model.emission.independent:
            y = loc + R.diagonal(dim1=-2, dim2=-1).sqrt() * noise
        else:
            y = loc + (factor(R, what="noise of missing cells") @ noise[..., None])[..., 0]
        return (c.shift + c.scale * y).double()


@torch.no_grad()
def _cells(model: LatentModel, data: Sequences) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each missing cell ``(B, T, D)`` given all observed ones."""
    assert isinstance(model.emission, LinearEmission)
    c = model.context(data)
    states = model.inference.smooth(model, data, c=c)
    H, d, R = _beside(model.emission, data, c)
    P = states.marginals.covariance_matrix  # type: ignore[attr-defined]
    loc = (H @ states.mean[..., None])[..., 0] + d
    spread = ((H @ P) * H).sum(-1) + R.diagonal(dim1=-2, dim2=-1)
    scale = c.scale * spread.clamp_min(0).sqrt()
    return (c.shift + c.scale * loc).double(), scale.expand(loc.shape).double()


def _beside(emission: LinearEmission, data: Sequences, c: Context) -> tuple[Tensor, Tensor, Tensor]:
    r"""Emission of the missing cells of each row given the cells that were observed in it.

    .. math:: y_m \mid z, y_o \sim N(H_m z + d_m + B (y_o - H_o z - d_o),\; R_{mm} - B R_{om}),
        \qquad B = R_{mo} R_{oo}^{-1}

    It is linear in the state again. Rows of observed cells are zero in the covariance.
    """
    H, d, R = emission.matrices(c)
    if emission.independent:
        return H, d, R
    seen = data.observed
    both, across = seen[..., :, None] & seen[..., None, :], ~seen[..., :, None] & seen[..., None, :]
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    within, beside = torch.where(both, R, eye), torch.where(across, R, 0.0)
    B = beside @ torch.linalg.pinv(within, hermitian=True)
    y = torch.where(seen, data.normalised, 0.0)
    offset = d + (B @ (y - d)[..., None])[..., 0]
    rest = R - B @ beside.mT
    missing = ~seen[..., :, None] & ~seen[..., None, :]
    return H - B @ H, offset, torch.where(missing, rest, 0.0)


def smooth(ensemble: Ensemble, panel: Panel, seed: int) -> Smoothed:
    """States given all rows, each series by its member of greatest weight."""
    if not any(model.transition.latent_dim for model in ensemble.models):
        raise NotImplementedError(
            f"{ensemble.spec.name} was fitted without a latent state; use 'structural', "
            "'deep_markov', or seqlatent.forecasting.spec_of('srnn', latent_dim=8)."
        )
    model_data = ensemble.prepared(panel)
    generator = torch.Generator().manual_seed(seed)
    names: dict[str, str] = {}
    found = []
    for member, series in _members(ensemble, panel):
        model = ensemble.models[member]
        for index in ensemble.groups(panel, _DRAWS):
            index = index[np.isin(index, series)]
            if not len(index):
                continue
            data, _ = ensemble.sequences(model_data[ensemble.kinds[member]], index)
            kind, distributions = _distributions(model, data, generator)
            names |= kind
            rows, inside = rows_of(panel, index, data.steps)
            found.append((rows, {k: (m[inside], s[inside]) for k, (m, s) in distributions.items()}))
    mean = np.full((panel.rows, len(names)), np.nan)
    scale = np.full((panel.rows, len(names)), np.nan)
    for rows, distributions in found:
        for k, name in enumerate(names):
            if name in distributions:
                mean[rows, k], scale[rows, k] = distributions[name]
    return Smoothed(tuple(names), tuple(names.values()), mean, scale)


Distributions = dict[str, tuple[np.ndarray, np.ndarray]]


def _distributions(
    model: LatentModel, data: Sequences, generator: torch.Generator
) -> tuple[dict[str, str], Distributions]:
    """Kinds, means and standard deviations ``(B, T)`` by name."""
    with torch.no_grad():
        inference = model.inference
        if isinstance(inference, Amortised) and inference.causal:
            inference = Particles(_DRAWS, proposal=inference)
        states = inference.smooth(model, data, generator=generator)
        mean, scale = states.mean.double().numpy(), states.variance.sqrt().double().numpy()
        names = [f"z{k + 1}" for k in range(mean.shape[-1])]
        distributions = {name: (mean[..., k], scale[..., k]) for k, name in enumerate(names)}
        return dict.fromkeys(names, "state"), distributions
