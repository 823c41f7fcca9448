"""Parameters to start from: read off the data, where the objective has several maxima."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from seqlatent.inference import ForwardBackward, Kalman
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training.gradient.surface import Surface

__all__ = []

_WINDOW, _ROUNDS, _CLUSTERINGS = 5, 30, 2
# The most noises that are tried near zero one by one, and the most cells.
_NOISES, _CELLS = 6, 100_000


def starts(model: nn.Module, surface: Surface, seed: int) -> list[Tensor]:
    """Vectors of parameters to start from, of which the first is that of the model itself.

    Standard deviations of a linear Gaussian model are brought to the scale of the data together,
    and each is tried near zero: a likelihood may have one maximum where a component moves and
    another where it stands still.
    The regimes of a hidden Markov model are fitted to clusters of values, of local levels with
    local spreads, and of deviations.
    """
    inference = model.inference if isinstance(model, LatentModel) else None
    x = surface.read()
    if isinstance(inference, Kalman):
        x = _scaled(surface, x)
    found = [x, *(_still(surface, x) if isinstance(inference, Kalman) else [])]
    if isinstance(model, LatentModel) and isinstance(inference, ForwardBackward):
        data = surface.batch.sequences
        generator = torch.Generator().manual_seed(seed)
        for regimes in _partitions(data, model.transition.latent_dim, generator):
            surface.write(x)
            _fit_regimes(model, data, regimes)
            found.append(surface.read())
        surface.write(x)
    return found


def _scaled(surface: Surface, x: Tensor) -> Tensor:
    """Parameters with the common factor of all noises that suits the data, roughly."""
    if bool(surface.logarithmic.any()):
        for decades in ([0.0, *(i for i in range(-6, 9) if i)], [0.0, -0.5, 0.5]):
            points = [x + math.log(10) * i * surface.logarithmic for i in decades]
            values = [surface.value(point) for point in points]
            x = points[max(range(len(points)), key=values.__getitem__)]
    surface.write(x)
    return x


def _still(surface: Surface, x: Tensor) -> list[Tensor]:
    """Points at which one noise is next to none; none of them where there are many data."""
    columns = surface.logarithmic.nonzero()[:, 0].tolist()
    if not 1 < len(columns) <= _NOISES or surface.batch.cells > _CELLS:
        return []
    least, points = float(x[columns].max()) + math.log(1e-3), []
    for j in columns:
        there = x.clone()
        there[j] = least
        points.append(there)
    return points


@torch.no_grad()
def _partitions(
    data: Sequences, states: int, generator: torch.Generator
) -> list[Int[Tensor, "B T"]]:
    """A regime for every step, by several views of the values."""
    seen = data.observed.any(-1)
    y = torch.where(data.observed, data.normalised, torch.nan)
    y = torch.where(y.isnan(), y[seen].nanmean(0), y)
    spread = y[seen].std(0, correction=0)
    y = (y - y[seen].mean(0)) / torch.where(spread > 0, spread, 1.0)
    level, far = _averaged(y), (y - y[seen].median(0).values).abs()
    near = (_averaged((y - level).square()) + 1e-4).log()
    views = [y, torch.cat([level, near], -1), (far + 1e-2).log()]
    found: list[Tensor] = []
    for view in views:
        for _ in range(_CLUSTERINGS):
            regimes = _clustered(view, seen, states, generator)
            if not any(torch.equal(regimes, other) for other in found):
                found.append(regimes)
    return found


def _averaged(y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    half = _WINDOW // 2
    padded = functional.pad(y.mT, (half, half), mode="replicate") if y.shape[1] else y.mT
    return functional.avg_pool1d(padded, _WINDOW, 1).mT


def _clustered(
    view: Float[Tensor, "B T D"], seen: Tensor, states: int, generator: torch.Generator
) -> Int[Tensor, "B T"]:
    """Clusters by Lloyd's algorithm from far points, numbered in the order of their first axis."""
    points = view[seen]
    points = (points - points.mean(0)) / points.std(0, correction=0).clamp_min(1e-12)
    first = torch.randint(len(points), (), generator=generator)
    centres = points[first][None]
    for _ in range(states - 1):
        away = torch.cdist(points, centres).amin(-1).square() + 1e-12
        draw = torch.rand((), generator=generator, dtype=torch.float64) * away.sum()
        index = torch.searchsorted(away.cumsum(0).double().cpu(), draw).clamp_max(len(points) - 1)
        centres = torch.cat([centres, points[index][None]])
    for _ in range(_ROUNDS):
        own = functional.one_hot(torch.cdist(points, centres).argmin(-1), states).to(points)
        count = own.sum(0)[:, None]
        centres = torch.where(count > 0, own.mT @ points / count.clamp_min(1), centres)
    order = centres[:, 0].argsort().argsort()
    found = torch.zeros(seen.shape, dtype=torch.long, device=seen.device)
    found[seen] = order[torch.cdist(points, centres).argmin(-1)]
    return found


def _fit_regimes(model: LatentModel, data: Sequences, regimes: Int[Tensor, "B T"]) -> None:
    """Maximises the likelihood of the emission as if the regimes were known."""
    inference, c = model.inference, model.context(data)
    assert isinstance(inference, ForwardBackward)
    learned = [p for p in model.emission.parameters() if p.requires_grad]
    if not learned:
        return
    optimizer = torch.optim.LBFGS(learned, max_iter=50, line_search_fn="strong_wolfe")
    cells = max(int(data.observed.sum()), 1)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        each = inference.likelihoods(model, data, c)
        loss = -each.gather(-1, regimes[..., None]).sum() / cells
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    optimizer.zero_grad(set_to_none=True)
