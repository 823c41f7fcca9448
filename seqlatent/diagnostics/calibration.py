"""Simulation-based calibration: whether posterior draws are as uncertain as they ought to be."""

from collections.abc import Sequence as Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.sizes import whole

__all__ = ["Ranks", "simulation_based_calibration"]


@dataclass(frozen=True)
class Ranks:
    r"""Ranks of true latents among posterior draws, from :func:`simulation_based_calibration`.

    Args:
        ranks: How many of the draws lie below the truth ``(N, steps, K)``, between 0 and ``draws``.
        draws: Posterior draws per simulated series.
        at: Which steps were looked at.
        bins: Cells of the histogram that the test uses.
    """

    ranks: Tensor
    draws: int
    at: tuple[int, ...]
    bins: int

    @property
    def counts(self) -> Tensor:
        """Histogram of the ranks ``(bins, steps, K)``."""
        cell = self.ranks * self.bins // (self.draws + 1)
        return torch.stack([(cell == i).sum(0) for i in range(self.bins)])

    @property
    def p_values(self) -> Tensor:
        r"""Probability of a histogram at least as uneven if ranks are uniform ``(steps, K)``.

        .. math:: \chi^2 = \sum_i (n_i - N/m)^2 / (N/m), \quad
            p = Q\big(\tfrac{m - 1}{2}, \tfrac{\chi^2}{2}\big)

        with ``m`` bins and :math:`Q` the regularised upper incomplete gamma function.
        """
        counts = self.counts.double()
        expected = len(self.ranks) / self.bins
        chi2 = (counts - expected).square().sum(0) / expected
        return torch.special.gammaincc(torch.full_like(chi2, (self.bins - 1) / 2), chi2 / 2)

    @property
    def spread(self) -> Tensor:
        """Variance of the ranks relative to uniform ones ``(steps, K)``; over-confident above 1."""
        relative = (self.ranks.double() + 0.5) / (self.draws + 1) - 0.5
        return 12 * relative.square().mean(0)

    def uniform(self, level: int | float = 0.01) -> bool:
        """Whether no histogram is too uneven, at a false-alarm rate of ``level`` for all together.

        Args:
            level: Chance of rejecting a calibrated posterior (Bonferroni bound).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be a probability between 0 and 1, found {level}.")
        p = self.p_values
        return bool(p.min() * p.numel() >= level)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a report."""
        return {
            "simulations": len(self.ranks),
            "draws": self.draws,
            "at": list(self.at),
            "counts": self.counts.tolist(),
            "p_values": self.p_values.tolist(),
            "spread": self.spread.tolist(),
            "uniform": self.uniform(),
        }

    def __repr__(self) -> str:
        p, spread = self.p_values, self.spread
        return (
            f"Ranks(simulations={len(self.ranks)}, draws={self.draws}, at={list(self.at)}, "
            f"smallest p={p.min().item():.2g} of {p.numel()}, "
            f"spread={spread.min().item():.2f}..{spread.max().item():.2f}, "
            f"uniform={self.uniform()})"
        )


def simulation_based_calibration(
    model: LatentModel,
    template: Sequences | tuple[int, int],
    *,
    draws: int = 99,
    replications: int = 20,
    at: Collection[int] | None = None,
    bins: int = 10,
    generator: torch.Generator | None = None,
) -> Ranks:
    r"""Checks a posterior against the model's own simulations.

    .. math:: z, y \sim p(z, y), \quad z^{1:L} \sim q(z \mid y) \;\Rightarrow\;
        \#\{l : z^l_{tk} < z_{tk}\} \sim \mathrm{Uniform}\{0, \dots, L\} \text{ if } q = p(z \mid y)

    A posterior that is too narrow puts truths outside its draws: a histogram in the shape of a U,
    and a :attr:`Ranks.spread` above 1. One that is too wide makes a hill, a biased one a slope. The
    draws of one series are independent of each other, so they need no thinning; ranks at
    neighbouring steps of a series are not, so only some steps are looked at.

    Args:
        model: Model whose inference is checked.
        template: Sequences whose times, covariates, codes, scales and missing cells the simulations
            take, or ``(batch, steps)`` for complete and regular ones.
        draws: Posterior draws per series ``L``; ``bins`` must divide ``draws + 1``.
        replications: Simulations of the whole template.
        at: Steps to look at; up to four, evenly spread, by default.
        bins: Cells of the histogram.
        generator: Source of randomness.

    Raises:
        ValueError: If there are fewer than five simulations per bin, steps lie outside, ``bins``
            does not divide ``draws + 1``, or a model with memory is given a template with missing
            cells.

    Example:
        >>> from seqlatent.zoo import structural
        >>> ranks = simulation_based_calibration(structural(), (50, 10), replications=4)
        >>> ranks.ranks.shape, ranks.uniform()
        (torch.Size([200, 4, 1]), True)

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al.,
        2018).
    """
    template = _template(model, template)
    at = _steps(at, template.steps)
    _check_counts(draws, replications, bins, template.batch)
    if model.memory.out_dim and not template.complete:
        raise ValueError(
            "the model's memory reads past observations, and would read fewer of a series with "
            "missing cells than it was simulated from: give a complete template."
        )
    index = torch.tensor(at, device=template.y.device)
    found = []
    with torch.no_grad():
        for _ in range(replications):
            y, z = model.rollout(template, generator=generator)
            y = torch.where(template.observed, y[0], torch.zeros_like(y[0]))
            simulated = replace(template, y=y)
            sample = model.posterior(simulated).rsample((draws,), generator)
            found.append(_ranks(z[0][:, index], sample[:, :, index], generator))
    return Ranks(torch.cat(found), draws, at, bins)


def _template(model: LatentModel, template: Sequences | tuple[int, int]) -> Sequences:
    if isinstance(template, Sequences):
        return template
    batch, steps = template
    if batch < 1 or steps < 1:
        raise ValueError(
            f"template must be Sequences or (batch, steps), each at least 1, found {template}."
        )
    like = next(model.parameters(), torch.zeros(()))
    shape = (batch, steps, model.emission.obs_dim)
    return Sequences.of(torch.zeros(shape, dtype=like.dtype, device=like.device))


def _steps(at: Collection[int] | None, steps: int) -> tuple[int, ...]:
    if at is None:
        return tuple(torch.linspace(0, steps - 1, min(4, steps)).round().long().tolist())
    chosen = tuple(at)
    if not chosen or any(not 0 <= t < steps for t in chosen):
        raise ValueError(f"at must name steps between 0 and {steps - 1}, found {chosen}.")
    return chosen


def _check_counts(draws: int, replications: int, bins: int, batch: int) -> None:
    for name, value, least in (
        ("draws", draws, 1),
        ("replications", replications, 1),
        ("bins", bins, 2),
    ):
        whole(name, value, least)
    if (draws + 1) % bins:
        raise ValueError(
            f"bins must divide draws + 1, the number of ranks, found bins={bins} and "
            f"draws={draws}; use draws={(draws // bins + 1) * bins - 1}."
        )
    if batch * replications < 5 * bins:
        raise ValueError(
            f"a histogram of {bins} bins needs {5 * bins} simulations or more, found "
            f"{replications} of {batch} series; use replications={-(-5 * bins // batch)}."
        )


def _ranks(truth: Tensor, draws: Tensor, generator: torch.Generator | None) -> Tensor:
    """Ranks ``(B, steps, K)``; equal values, as of a state that is known, rank at random."""
    width = 100 * torch.finfo(truth.dtype).eps * truth.abs().clamp_min(1)
    below = (draws < truth - width).sum(0)
    equal = ((draws - truth).abs() <= width).sum(0)
    device = truth.device if generator is None else generator.device
    u = torch.rand(truth.shape, dtype=torch.float64, device=device, generator=generator)
    return below + (u.to(truth.device) * (equal + 1)).long()
