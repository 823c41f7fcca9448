"""Weighted draws of the parameters of each series, and what is exact given each of them."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from seqlatent.model import LatentModel, moments
from seqlatent.sequences import Sequences
from seqlatent.training.likelihood.many_parameters import repeated, widened
from seqlatent.training.likelihood.natural_parameters import natural
from seqlatent.training.likelihood.parameter_vectors import Vectors
from seqlatent.training.likelihood.series_problems import Tables

__all__ = ["ParameterPosterior", "written"]

_BISECTIONS = 60
_PAIRS = 4096  # of a series and a draw that are filtered at once

Result = TypeVar("Result")
Task = Callable[[LatentModel, Sequences, Tensor], Result]


@dataclass(frozen=True)
class ParameterPosterior:
    r"""Weighted draws of the parameters of each series, given its rows.

    .. math::
        p(y_{T+h} \mid y_{1:T}) = \int p(y_{T+h} \mid y_{1:T}, \theta)\,
            p(\theta \mid y_{1:T})\, d\theta
            \approx \sum_s w_s\, p(y_{T+h} \mid y_{1:T}, \theta_s)

    What is exact given parameters, a forecast or a state, becomes a mixture over draws of them, as
    wide as they are uncertain.

    Args:
        model: The fitted model, whose rows are the modes.
        theta: Draws ``(S, B, P)``, as the model holds them.
        log_weights: Logarithms of their weights ``(S, B)``, which sum to one over S.
        shape: k-hat of each series ``(B,)``, the shape of the tail of its weights before they were
            smoothed; above .7 they are not to be trusted. See
            :func:`seqlatent.distributions.pareto_smoothed`.
        effective: Draws from the posterior that would say as much as the weighted ones ``(B,)``.
        log_evidence: Log evidence of each series ``(B,)``, integrated over its parameters.
        rounds: 1 where the first proposal would do, 2 where one with its moments was needed, 0
            where no weights could be trusted and the draws are those of a normal approximation
            ``(B,)``.
    """

    model: LatentModel = field(repr=False)
    theta: Float[Tensor, "S B P"] = field(repr=False)
    log_weights: Float[Tensor, "S B"] = field(repr=False)
    shape: Float[Tensor, " B"]
    effective: Float[Tensor, " B"]
    log_evidence: Float[Tensor, " B"]
    rounds: Int[Tensor, " B"]
    row: Int[Tensor, " B"] = field(repr=False)

    def expect(self, values: Float[Tensor, " S B *D"]) -> Float[Tensor, " B *D"]:
        """Posterior mean of what has a value for each draw."""
        return _expected(self.log_weights, values)

    def natural(self, data: Sequences) -> dict[str, Float[Tensor, "S B"]]:
        """Draws of variances, dampings, periods and coefficients, by their names.

        Args:
            data: The series of the fit.
        """

        def read(wide: LatentModel, many: Sequences, index: Tensor) -> dict[str, Tensor]:
            every = torch.ones_like(many.observed)  # whichever cells there are
            vectors = Vectors(wide, replace(many, observed=every), "natural")
            scale = natural(vectors)
            with torch.no_grad():
                columns = scale.map(vectors.read()).unbind(-1)
            shape = (len(self.theta), len(index))
            return {n: x.reshape(shape) for n, x in zip(scale.names, columns, strict=True)}

        found = self._in_parts(data, read)
        return {name: torch.cat([part[name] for part in found], 1) for name in found[0]}

    def marginals(self, levels: Sequence[float]) -> Float[Tensor, "Q B P"]:
        """Quantiles of each parameter as the model holds it, between the middles of the weights.

        Args:
            levels: Levels in (0, 1).
        """
        order = self.theta.argsort(0)
        theta = self.theta.gather(0, order)
        weights = self.log_weights.exp()[..., None].expand_as(theta).gather(0, order)
        middle = weights.cumsum(0) - weights / 2
        found = []
        for level in check_levels(levels):
            above = (middle < level).sum(0).clamp(1, len(theta) - 1)[None]
            low, high = (theta.gather(0, above + i)[0] for i in (-1, 0))
            start, end = (middle.gather(0, above + i)[0] for i in (-1, 0))
            width = (end - start).clamp_min(torch.finfo(theta.dtype).tiny)
            found.append(low + (high - low) * ((level - start) / width).clamp(0, 1))
        return torch.stack(found)

    def moments(
        self,
        data: Sequences,
        horizon: int,
        *,
        u: Float[Tensor, "B H U"] | None = None,
        t: Float[Tensor, "B H"] | None = None,
        end: bool = True,
    ) -> tuple[Float[Tensor, "S B H D"], Float[Tensor, "S B H D"]]:
        """Means and variances of future observations under each draw, which are normal.

        Args:
            data: Rows of the series, those of the fit or more.
            horizon: Steps ahead.
            u: Covariates of the future.
            t: Times of the future.
            end: Whether the past ends at the last step of the data, observed or not; False for
                each series' last observation.
        """

        def ahead(wide: LatentModel, many: Sequences, index: Tensor) -> tuple[Tensor, ...]:
            belief, times = wide.belief(many, end=end), len(self.theta)
            known = {"u": _often(u, index, times), "t": _often(t, index, times)}
            found = moments(wide, belief, horizon, **known)
            return tuple(x.reshape(times, -1, *x.shape[1:]) for x in found)

        mean, variance = zip(*self._in_parts(data, ahead), strict=True)
        return torch.cat(mean, 1), torch.cat(variance, 1)

    def predictive(
        self,
        data: Sequences,
        horizon: int,
        *,
        u: Float[Tensor, "B H U"] | None = None,
        t: Float[Tensor, "B H"] | None = None,
        end: bool = True,
    ) -> MixtureSameFamily:
        """The distribution ``(B, H, D)`` of each future observation, parameters integrated out.

        Args:
            data: Rows of the series, those of the fit or more.
            horizon: Steps ahead.
            u: Covariates of the future.
            t: Times of the future.
            end: Whether the past ends at the last step of the data, observed or not; False for
                each series' last observation.
        """
        mean, variance = self.moments(data, horizon, u=u, t=t, end=end)
        logits = self.log_weights[..., None, None].expand_as(mean)
        parts = Normal(mean.movedim(0, -1), variance.sqrt().movedim(0, -1))
        return MixtureSameFamily(Categorical(logits=logits.movedim(0, -1)), parts)

    def quantiles(
        self,
        data: Sequences,
        horizon: int,
        levels: Sequence[float],
        *,
        u: Float[Tensor, "B H U"] | None = None,
        t: Float[Tensor, "B H"] | None = None,
        end: bool = True,
    ) -> Float[Tensor, "Q B H D"]:
        """Quantiles of future observations, parameters integrated out.

        Args:
            data: Rows of the series, those of the fit or more.
            horizon: Steps ahead.
            levels: Levels in (0, 1).
            u: Covariates of the future.
            t: Times of the future.
            end: Whether the past ends at the last step of the data, observed or not; False for
                each series' last observation.
        """
        found = self.predictive(data, horizon, u=u, t=t, end=end)
        parts = found.component_distribution
        level = torch.tensor(
            check_levels(levels), dtype=found.mean.dtype, device=found.mean.device
        ).reshape(-1, *[1] * found.mean.ndim)
        each = parts.mean + parts.stddev * torch.special.ndtri(level)[..., None]
        low, high = each.amin(-1), each.amax(-1)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            under = found.cdf(middle) < level
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return (low + high) / 2

    def paths(
        self,
        data: Sequences,
        horizon: int,
        *,
        n: int = 100,
        u: Float[Tensor, "B H U"] | None = None,
        t: Float[Tensor, "B H"] | None = None,
        end: bool = True,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n B H D"]:
        """Joint futures, each under parameters of its own.

        Args:
            data: Rows of the series, those of the fit or more.
            horizon: Steps ahead.
            n: How many.
            u: Covariates of the future.
            t: Times of the future.
            end: Whether the past ends at the last step of the data, observed or not; False for
                each series' last observation.
            generator: Source of randomness.
        """
        check_count("n", n)
        batch = self.log_weights.shape[1]
        start = torch.rand(batch, generator=generator, dtype=torch.float64)
        owner = systematic(self.log_weights.exp(), n, start.to(self.theta))
        order = torch.randperm(n, generator=generator)  # the k-th path does not tell its parameters
        owner = owner[order.to(owner.device)]

        def drawn(wide: LatentModel, many: Sequences, index: Tensor) -> Tensor:
            size = len(index)
            place = torch.arange(size, device=owner.device)
            belief = wide.belief(many, end=end).select((owner[:, index] * size + place).reshape(-1))
            u_many, t_many = (_often(x, index, n) for x in (u, t))
            y = wide.forecast(belief, horizon, n=1, u=u_many, t=t_many, generator=generator).y[0]
            return y.reshape(n, size, *y.shape[1:])

        return torch.cat(self._in_parts(data, drawn), 1)

    def smooth(self, data: Sequences) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T K K"]]:
        """Means and covariances of the states given all rows, parameters integrated out.

        Args:
            data: Rows of the series, those of the fit or more.
        """

        def pooled(wide: LatentModel, many: Sequences, index: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                states = wide.smooth(many)
            cov = states.marginals.covariance_matrix  # pyright: ignore
            times, some = len(self.theta), self.log_weights[:, index]
            mean, cov = (x.reshape(times, -1, *x.shape[1:]) for x in (states.mean, cov))
            centre = _expected(some, mean)
            away = mean - centre
            return centre, _expected(some, cov + away[..., :, None] * away[..., None, :])

        mean, cov = zip(*self._in_parts(data, pooled), strict=True)
        return torch.cat(mean), torch.cat(cov)

    def models(self, n: int, *, seed: int = 0) -> list[LatentModel]:
        """Models of equal weight, whose rows stand for the weighted draws.

        The draws of a series are halved along the direction in which they differ most, the halves
        along the next one and so on, and models taken from all parts, so that few still span them.

        Args:
            n: How many.
            seed: Seed of one uniform number, which places all of them.
        """
        return written(self.model, self.row, self.representatives(n, seed=seed))

    def representatives(self, n: int, *, seed: int = 0) -> Float[Tensor, "n B P"]:
        """Draws of equal weight that stand for the weighted ones: the rows of :meth:`models`.

        Args:
            n: How many.
            seed: Seed of one uniform number, which places all of them.
        """
        check_count("n", n)
        weights, order = self.log_weights.exp(), self._order(n)
        generator = torch.Generator().manual_seed(seed)
        start = torch.rand((), generator=generator, dtype=torch.float64).to(self.theta)
        place = systematic(weights.gather(0, order), n, start.expand(weights.shape[1]))
        chosen = order.gather(0, place)[..., None].expand(-1, -1, self.theta.shape[-1])
        return self.theta.gather(0, chosen)

    def _order(self, parts: int) -> Int[Tensor, "S B"]:
        """Draws in an order in which those of so many parts of it are alike."""
        draws, size = len(self.theta), self.theta.shape[-1]
        away = self.theta - self.expect(self.theta)
        cov = self.expect(away[..., :, None] * away[..., None, :])
        along = torch.einsum("sbp,bpq->sbq", away, torch.linalg.eigh(cov)[1].flip(-1))
        place = torch.zeros_like(self.log_weights)
        for i in range(math.ceil(math.log2(parts)) + 1):
            rank = along[..., i % size].argsort(0).argsort(0)
            group = (place * 2**i / draws).floor()
            place = (group + rank / draws).argsort(0).argsort(0).to(place)
        return place.argsort(0)

    def _in_parts(self, data: Sequences, task: Task[Result]) -> list[Result]:
        """What a task finds for all draws of a few series at a time.

        The draws are rows of one model, draw after draw, and the series come as often.
        """
        draws, batch = self.log_weights.shape
        if data.batch != batch:
            raise ValueError(
                f"the posterior is of {batch} series, found data of {data.batch}; pass the series "
                "of the fit, in their order."
            )
        found = []
        for index in torch.arange(batch, device=self.row.device).split(max(1, _PAIRS // draws)):
            owner = index.repeat(draws)
            wide = widened(self.model, self.row[owner])
            place = torch.arange(len(owner), device=owner.device)
            Tables(wide).write(place, self.theta[:, index].flatten(0, 1))
            found.append(task(wide, repeated(data, owner), index))
        return found


def written(
    model: LatentModel, row: Int[Tensor, " B"], theta: Float[Tensor, "n B P"]
) -> list[LatentModel]:
    """Copies of a model, with a draw of the parameters of each series in its row."""
    found = []
    for one in theta:
        drawn = copy.deepcopy(model)
        Tables(drawn).write(row, one)
        found.append(drawn)
    return found


def _often(x: Tensor | None, index: Tensor, times: int) -> Tensor | None:
    """What is known of the future of some series, as often as they come."""
    return None if x is None else x[index].repeat(times, *[1] * (x.ndim - 1))


def _expected(log_weights: Float[Tensor, "S B"], values: Tensor) -> Tensor:
    weights = log_weights.exp()
    return (weights.reshape(*weights.shape, *[1] * (values.ndim - 2)) * values).sum(0)


def systematic(weights: Float[Tensor, "S B"], n: int, start: Float[Tensor, " B"]) -> Tensor:
    """Draws ``(n, B)`` in proportion to their weights, as evenly as whole numbers allow."""
    place = (torch.arange(n, device=weights.device)[:, None] + start) / n
    bounds = weights.cumsum(0)
    bounds = bounds / bounds[-1]
    return torch.searchsorted(bounds.mT.contiguous(), place.mT.contiguous()).mT.clamp_max(
        len(weights) - 1
    )


def check_levels(levels: Sequence[float]) -> list[float]:
    found = [float(level) for level in levels]
    if not all(0 < level < 1 for level in found):
        raise ValueError(f"levels must lie in (0, 1), found {tuple(levels)}.")
    return found


def check_count(name: str, value: int, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, found {value!r}.")
