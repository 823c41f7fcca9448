"""Filters that keep mean and covariance, and what they read of an emission at a step."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.distributions import CovarianceNormal, masked_log_prob
from seqlatent.emissions.categorical import Categorical
from seqlatent.emissions.emission import Emission, LinearEmission
from seqlatent.emissions.signals import LinearSignal
from seqlatent.inference.approximate.sites import (
    Approximate,
    Dynamics,
    Sites,
    dynamics_of,
    exact_sites,
    support,
)
from seqlatent.inference.base import Generative, Latest, States, at, position
from seqlatent.linalg import condition, factor
from seqlatent.sequences import Context, Sequences

__all__ = []


class Match(NamedTuple):
    r"""A normal observation of standard normal coordinates, :math:`y = A \xi + b + N(0, V)`.

    It stands for what an emission says of them; ``log_evidence`` is the evidence of the emission's
    own observation.
    """

    A: Tensor
    b: Tensor
    V: Tensor
    y: Tensor
    log_evidence: Tensor


class View:
    r"""An emission at a step as a function of standard normal coordinates :math:`\xi`.

    With one signal, :math:`x = h^\top m + d + \sqrt{h^\top P h}\, \xi`; without, the whole state
    :math:`z = m + G \xi`.

    Attributes:
        size: Number of coordinates.
        y: What was observed ``(B, R)``.
        observed: Which of it counts ``(B, R)``.
    """

    def __init__(
        self,
        emission: Emission,
        c: Context,
        y: Tensor,
        observed: Tensor,
        m: Tensor,
        P: Tensor,
        rows: tuple[Tensor, Tensor] | None,
        cell: int = 0,
    ) -> None:
        self.emission, self.c, self.m, self.cell = emission, c, m, cell
        self._all, self._seen = y, observed
        self.y, self.observed = y, observed
        if rows is None:
            self.centre, self.G, self.h = m, factor(P, what="covariance of a state"), None
            self.size = self.G.shape[-1]
            return
        H, d = rows
        self.h = H[..., cell, :].expand_as(m)
        self.centre = (H @ m[..., None])[..., 0] + d
        variance = (self.h[..., None, :] @ P @ self.h[..., :, None])[..., 0]
        self.G = variance.clamp_min(1e-30).sqrt()
        self.size = 1
        self.y, self.observed = y[:, cell : cell + 1], observed[:, cell : cell + 1]

    def distribution(self, xi: Tensor) -> torch.distributions.Distribution:
        """Distribution of all cells given coordinates ``(..., B, M)``."""
        if self.h is None:
            return self.emission(self.centre + (self.G @ xi[..., None])[..., 0], self.c)
        assert isinstance(self.emission, LinearSignal)
        return self.emission.distribution(self._signal(xi), self.c)

    def _signal(self, xi: Tensor) -> Tensor:
        moved = self.centre[..., self.cell, None] + self.G * xi
        if self.centre.shape[-1] == 1:
            return moved
        others = self.centre.expand(*xi.shape[:-1], -1)
        return torch.cat([others[..., : self.cell], moved, others[..., self.cell + 1 :]], -1)

    def log_prob(self, xi: Tensor) -> Tensor:
        """Log density of what was observed ``(..., B)``."""
        distribution = self.distribution(xi)
        if self.h is None:
            return masked_log_prob(distribution, self._all, self._seen)
        found = distribution.log_prob(self._all)[..., self.cell]
        return torch.where(self.observed[..., 0], found, 0.0)

    def start(self) -> Tensor:
        """Coordinates ``(B, M)`` between the prediction and what the observation alone suggests."""
        zero = self.y.new_zeros(len(self.y), self.size)
        if self.h is None:
            return zero
        assert isinstance(self.emission, LinearSignal)
        guess = self.emission.guess(self._all, self.c)[..., self.cell, None]
        xi = (guess - self.centre[..., self.cell, None]) / self.G
        precision = self.derivatives(xi)[1].abs()
        xi = xi * precision / (1 + precision)
        return torch.where(self.observed & xi.isfinite(), xi, zero)

    def derivatives(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the log density in the one coordinate, and its curvature, the sign turned."""
        assert isinstance(self.emission, LinearSignal)
        found = self.emission.derivatives(self._all, self._signal(xi), self.c)
        slope, weight = (x[..., self.cell, None] for x in found[1:])
        slope, weight = (torch.where(self.observed, x, 0.0) for x in (slope, weight))
        return slope * self.G, weight * self.G.square()

    def moments(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of the observations ``(..., B, R)``."""
        distribution, tiny = self.distribution(xi), torch.finfo(xi.dtype).tiny
        mean, variance = distribution.mean, distribution.variance
        if self.h is not None:
            part = slice(self.cell, self.cell + 1)
            mean, variance = mean[..., part], variance[..., part]
        return mean, variance.clamp_min(tiny)

    def lift(self, match: Match) -> tuple[Tensor, Tensor]:
        """Loadings and offset in the state of what is linear in the coordinates."""
        if self.h is None:
            inverse = torch.linalg.pinv(self.G, rtol=1e-12) if self.G.numel() else self.G.mT
            C = match.A @ inverse
        else:
            C = match.A / self.G[..., None] * self.h[..., None, :]
        return C, match.b - (C @ self.m[..., None])[..., 0]


def posterior(match: Match, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the coordinates, and the log density of what stands for data."""
    rows, size = match.A.shape[-2:]
    if rows == size == 1:
        A, V = match.A[..., 0], match.V[..., 0]
        S, residual = A.square() + V, match.y - match.b
        terms = residual.square() / S + (2 * torch.pi * S).log()
        mean = torch.where(observed, A * residual / S, 0.0)
        cov = torch.where(observed, V / S, 1.0)[..., None]
        return mean, cov, -0.5 * torch.where(observed, terms, 0.0)[..., 0]
    eye = torch.eye(size, dtype=match.A.dtype, device=match.A.device)
    return condition(match.b.new_zeros(size), eye, *match[:4], observed)


class MomentFilter(Approximate):
    """A filter that replaces each observation by a normal one, around what the past says.

    What it infers has no gradient: it is for models that are fitted. The loop over steps is taken
    for all series at once, and dimensions of an observation enter one after the other where each
    has a linear signal of its own. Smoothing is the exact one of a linear Gaussian model that
    observes the replacements.
    """

    def check_emission(self, model: Generative) -> None:
        if model.emission.support.event_dim or isinstance(model.emission, Categorical):
            raise TypeError(
                f"{type(self).__name__} needs an emission with a mean and a variance, found "
                f"{type(model.emission).__name__}; use Particles."
            )

    @abstractmethod
    def match(self, view: View) -> Match:
        """The normal observation in place of what a view shows."""

    @torch.no_grad()
    def sites(self, model: Generative, sequences: Sequences, c: Context) -> Sites:
        return self._run(model, sequences, c, None)[2]

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        with torch.no_grad():
            c = model.context(sequences) if c is None else c
            mean, cov, _, log_evidence = self._run(model, sequences, c, None)
            return States(CovarianceNormal(mean, cov), log_evidence)

    @torch.no_grad()
    def latest(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        *,
        start: Latest | None = None,
        end: bool | Tensor = False,
        generator: torch.Generator | None = None,
    ) -> Latest:
        if start is not None and start.mean is None and bool(start.started.any()):
            raise ValueError(
                f"{type(self).__name__} continues from a belief with moments, found one with "
                "particles; filter the data again with this model."
            )
        means, covs, _, _ = self._run(model, sequences, c, start)
        index = position(sequences, end)
        started = index >= 0
        mean, cov = at(means, index), at(covs, index)
        if start is not None and start.mean is not None and start.cov is not None:
            mean = torch.where(started[:, None], mean, start.mean)
            cov = torch.where(started[:, None, None], cov, start.cov)
            started = started | start.started
        return Latest(mean, cov, None, None, started)

    def _run(
        self, model: Generative, sequences: Sequences, c: Context, start: Latest | None
    ) -> tuple[Tensor, Tensor, Sites, Tensor]:
        """Filtered moments, sites and evidence of every step."""
        prior, emission = dynamics_of(model, c), model.emission
        _, _, Q, m0, P0 = prior.moments
        y, observed = support(model, sequences), sequences.observed
        linear = exact_sites(model, sequences, c) if isinstance(emission, LinearEmission) else None
        rows = emission.rows(c) if isinstance(emission, LinearSignal) else None
        size = Q.shape[-1]
        m, P = m0.expand(len(y), size), P0.expand(len(y), size, size)
        record: list[tuple[Tensor, ...]] = []
        for t, now in enumerate(c.unbind()):
            before = (m, P) if t > 0 else _before(start)
            if before is not None:
                m, P = _moved(prior, Q, t, *before)
            if t == 0 and start is not None and before is not None:
                m = torch.where(start.started[:, None], m, m0)
                P = torch.where(start.started[:, None, None], P, P0)
            if linear is not None:
                site = tuple(step(x, t, n) for x, n in zip(linear[:3], (2, 1, 2), strict=True))
                m, P, log_evidence = condition(m, P, *site, linear.y[:, t], observed[:, t])
                log_evidence = log_evidence + linear.log_ratio[:, t]
                record.append((m, P, log_evidence))
                continue
            here = None if rows is None else (step(rows[0], t, 2), step(rows[1], t, 1))
            m, P, *site = self._update(emission, now, y[:, t], observed[:, t], m, P, here)
            record.append((m, P, *site))
        columns = [torch.stack(x, 1) for x in zip(*record, strict=True)]
        means, covs, log_evidence = columns[:3]
        if linear is None:
            H, d, R, stand_in, log_ratio = columns[3:]
            linear = Sites(H, d, R, stand_in, observed, log_ratio)
        return means, covs, linear, log_evidence

    def _update(
        self,
        emission: Emission,
        c: Context,
        y: Tensor,
        observed: Tensor,
        m: Tensor,
        P: Tensor,
        rows: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, ...]:
        """Moments after a step, its evidence, and its site with what that lacks of the evidence."""
        parts: list[tuple[Tensor, ...]] = []
        evidence, ratio = m.new_zeros(len(m)), m.new_zeros(len(m))
        for cell in range(1 if rows is None else y.shape[-1]):
            view = View(emission, c, y, observed, m, P, rows, cell)
            found = self.match(view)
            C, offset = view.lift(found)
            m, P, plain = condition(m, P, C, offset, found.V, found.y, view.observed)
            evidence, ratio = evidence + found.log_evidence, ratio + found.log_evidence - plain
            parts.append((C, offset, found.V, found.y))
        C, offset, V, stand_in = zip(*parts, strict=True)
        noise = V[0]
        if len(parts) > 1:
            noise = torch.cat([v[..., 0] for v in V], -1).diag_embed()
        site = torch.cat(C, -2), torch.cat(offset, -1), noise, torch.cat(stand_in, -1)
        return m, P, evidence, *site, ratio


def _before(start: Latest | None) -> tuple[Tensor, Tensor] | None:
    if start is None or start.mean is None or start.cov is None:
        return None
    return start.mean, start.cov


def _moved(prior: Dynamics, Q: Tensor, t: int, m: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    F, b, Q = step(prior.F, t, 2), step(prior.b, t, 1), step(Q, t, 2)
    m, P = (F @ m[..., None])[..., 0] + b, F @ P @ F.mT + Q
    return m, (P + P.mT) / 2


def step(x: Tensor, t: int, event: int) -> Tensor:
    """One step of what has steps ``(..., T, *)``, has one for all, or has no axis of steps."""
    if x.ndim == event:
        return x
    axis = x.ndim - event - 1
    return x.select(axis, t if x.shape[axis] > 1 else 0)
