"""Posteriors of the parameters of each series, by importance sampling with the exact likelihood."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from seqlatent.distributions import pareto_smoothed
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training.likelihood.many_parameters import Densities
from seqlatent.training.likelihood.per_series import EachHistory
from seqlatent.training.likelihood.population_prior import Pool
from seqlatent.training.likelihood.proposals import SplitStudent
from seqlatent.training.likelihood.weighted_draws import (
    ParameterPosterior,
    check_count,
    systematic,
)

__all__ = ["posterior_each", "posterior_in_parts"]

_TRUSTED = 0.7  # largest shape of the tail of weights that are of use
_INSIDE = 1e-9  # least distance of a probability from 0 and 1
_ROUNDS = 3
_PAIRS = 2**17  # of a series and a draw that are held at once; a pair takes about 1 KiB


@dataclass
class _Sampled:
    """Draws of some series, from a mixture of proposals that grows.

    Args:
        densities: The densities of their parameters.
        index: Which series.
        proposals: The proposals.
        theta: Draws of all of them, as many of each.
        target: Log densities there.
    """

    densities: Densities
    index: Tensor
    proposals: list[SplitStudent]
    theta: Tensor
    target: Tensor
    log_weights: Tensor = field(init=False)
    shape: Tensor = field(init=False)
    effective: Tensor = field(init=False)
    log_evidence: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # each draw against the mixture of all proposals, whichever it came from
        each = torch.stack([proposal.log_prob(self.theta) for proposal in self.proposals])
        raw = self.target - each.logsumexp(0) + math.log(len(self.proposals))
        found = pareto_smoothed(raw)
        self.log_weights, self.shape, self.effective = *found, found.effective
        self.log_evidence = raw.logsumexp(0) - math.log(len(raw))

    @classmethod
    def of(
        cls, densities: Densities, index: Tensor, proposal: SplitStudent, u: Tensor
    ) -> "_Sampled":
        """Draws of one proposal."""
        theta = proposal.at(u)
        return cls(densities, index, [proposal], theta, densities(theta, index))

    def select(self, index: Tensor) -> "_Sampled":
        """Some of the series."""
        return _Sampled(
            self.densities,
            self.index[index],
            [proposal.select(index) for proposal in self.proposals],
            self.theta[:, index],
            self.target[:, index],
        )

    def more(self, proposal: SplitStudent, u: Tensor) -> "_Sampled":
        """The same with as many draws of one more proposal."""
        fresh = proposal.at(u)
        return _Sampled(
            self.densities,
            self.index,
            [*self.proposals, proposal],
            torch.cat([self.theta, fresh]),
            torch.cat([self.target, self.densities(fresh, self.index)]),
        )

    def thinned(self, draws: int) -> tuple[Tensor, Tensor]:
        """So many draws and logarithms of their weights, equal ones where there were more."""
        if len(self.theta) == draws:
            return self.theta, self.log_weights
        owner = systematic(self.log_weights.exp(), draws, torch.full_like(self.shape, 0.5))
        kept = self.theta.gather(0, owner[..., None].expand(-1, -1, self.theta.shape[-1]))
        return kept, torch.full_like(self.log_weights[:draws], -math.log(draws))


def posterior_each(
    model: LatentModel, data: Sequences, history: EachHistory, *, draws: int = 128, seed: int = 0
) -> ParameterPosterior:
    r"""Samples the posterior of each series' parameters under the prior that a fit used or learned.

    .. math::
        w_s \propto \frac{p(y_b \mid \theta_s)\, N(\theta_s; \mu, \Sigma)}{q_b(\theta_s)},
        \qquad \theta_s \sim q_b

    The proposal stands at the mode and follows the density along each of its axes; points of a
    Sobol sequence, the same for all series, are its draws, and all are filtered in one batch. The
    tails of the weights are smoothed, and their shape is reported. Series whose weights are not to
    be trusted are proposed to once more, from the moments of their first draws; where that does not
    help, their draws are those of a normal approximation, as of :func:`draws_each`.

    Args:
        model: The model that was fitted, which is left as it is.
        data: The series.
        history: What :func:`fit_each` returned.
        draws: How many; 128 are enough for forecasts, thousands for a posterior to be read.
        seed: Seed of the points.

    Raises:
        ValueError: If the fit had no prior, or there are not 8 draws or more.

    Example:
        >>> from seqlatent.model import per_series
        >>> from seqlatent.training import fit_each
        >>> model = per_series(seqlatent.zoo.structural(), 2)
        >>> y = torch.randn(2, 30, 1).cumsum(1)
        >>> data = Sequences.of(y, codes=torch.arange(2)[:, None])
        >>> posterior = posterior_each(model, data, fit_each(model, data))
        >>> posterior.quantiles(data, 3, [0.1, 0.9]).shape
        torch.Size([2, 2, 3, 1])

    References:
        Bayesian Inference in Econometric Models Using Monte Carlo Integration (Geweke, 1989).
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024).
        Adaptive Multiple Importance Sampling (Cornuet et al., 2012).
    """
    mode = history.mode
    theta = mode.new_empty(draws, *mode.shape)
    log_weights = mode.new_empty(draws, len(mode))
    told = mode.new_empty(3, len(mode))
    rounds = torch.ones(len(mode), dtype=torch.long, device=mode.device)
    row = torch.empty_like(rounds)
    for at, part in posterior_in_parts(model, data, history, draws=draws, seed=seed):
        theta[:, at], log_weights[:, at] = part.theta, part.log_weights
        told[:, at] = torch.stack([part.shape, part.effective, part.log_evidence])
        rounds[at], row[at] = part.rounds, part.row
    shape, effective, evidence = told
    return ParameterPosterior(model, theta, log_weights, shape, effective, evidence, rounds, row)


def posterior_in_parts(
    model: LatentModel, data: Sequences, history: EachHistory, *, draws: int = 128, seed: int = 0
) -> Iterator[tuple[Tensor, ParameterPosterior]]:
    """The posteriors of :func:`posterior_each`, of some series after the other.

    The draws of a series do not depend on which others come with it, so that what is not kept of a
    part takes no memory when the next one comes, however many series there are.

    Args:
        model: The model that was fitted, which is left as it is.
        data: The series.
        history: What :func:`fit_each` returned.
        draws: How many.
        seed: Seed of the points.

    Yields:
        Which series, and their posteriors.

    Raises:
        ValueError: If the fit had no prior, or there are not 8 draws or more.

    Example:
        >>> from seqlatent.model import per_series
        >>> from seqlatent.training import fit_each
        >>> model = per_series(seqlatent.zoo.structural(), 3)
        >>> y = torch.randn(3, 30, 1).cumsum(1)
        >>> data = Sequences.of(y, codes=torch.arange(3)[:, None])
        >>> history = fit_each(model, data)
        >>> [len(index) for index, _ in posterior_in_parts(model, data, history)]
        [3]
    """
    check_count("draws", draws, least=8)
    if history.pool is None:
        raise ValueError(
            "a posterior needs the prior that fit_each learned or was given, found a history "
            "without a pool; fit with pooled=True."
        )
    everyone = torch.arange(len(history.mode), device=history.mode.device)
    for index in everyone.split(max(1, _PAIRS // draws)):
        part = replace(
            history,
            mode=history.mode[index],
            cov=history.cov[index],
            evidence=history.evidence[index],
        )
        yield index, _together(model, data.select(index), part, history.pool, draws, seed)


def _together(
    model: LatentModel, data: Sequences, history: EachHistory, pool: Pool, draws: int, seed: int
) -> ParameterPosterior:
    densities = Densities(model, data, pool)
    mode = history.mode
    value = history.evidence + pool.log_prob(mode)
    value = torch.where(value.isfinite(), value, densities(mode[None])[0])
    first = SplitStudent.around(densities, mode, value, history.cov)
    u = _points(_ROUNDS * draws, mode.shape[1] + 1, seed, mode)[:, None].split(draws)
    everyone = torch.arange(len(mode), device=mode.device)
    found = _Sampled.of(densities, everyone, first, u[0])
    theta, log_weights = found.thinned(draws)
    told = torch.stack([found.shape, found.effective, found.log_evidence])
    rounds = torch.ones_like(everyone)
    for i in range(1, _ROUNDS):
        found = found.select((found.shape > _TRUSTED).nonzero()[:, 0])
        if not len(found.index):
            break
        found = found.more(_next(found, i), u[i])
        at = found.index
        theta[:, at], log_weights[:, at] = found.thinned(draws)
        told[:, at] = torch.stack([found.shape, found.effective, found.log_evidence])
        rounds[at] = i + 1
    lost = (told[0] > _TRUSTED).nonzero()[:, 0]
    theta[:, lost] = _normal(first.select(lost), u[0])
    log_weights[:, lost], rounds[lost] = -math.log(draws), 0
    shape, effective, evidence = told
    parameters = pool.parameters(theta)
    return ParameterPosterior(
        model, parameters, log_weights, shape, effective, evidence, rounds, densities.row
    )


def _next(found: _Sampled, i: int) -> SplitStudent:
    """What is proposed where weights are not to be trusted: first the prior, then its moments."""
    if i % 2:
        return found.proposals[0].spanning(found.densities.prior)
    return found.proposals[0].moved(found.theta, found.log_weights.exp())


def _normal(proposal: SplitStudent, u: Tensor) -> Tensor:
    """Draws from the normal distribution of the curvature at a mode."""
    x = torch.special.ndtri(u[..., :-1])
    return proposal.centre + (proposal.axes @ x[..., None])[..., 0]


def _points(n: int, size: int, seed: int, like: Tensor) -> Tensor:
    """Points ``(n, size)`` that fill the unit cube evenly, of the type of another tensor."""
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    least = max(_INSIDE, torch.finfo(like.dtype).eps)
    return engine.draw(n, dtype=torch.float64).to(like).clamp(least, 1 - least)
