"""Random linear Gaussian systems of every kind that `seqlatent.kalman` takes, each by its seed.

A case says in words what it is. Chosen shapes and models find what one thought of; these find the
rest: combinations of a start, a pattern of missing cells, what series share and what they do not.
"""

import math
import os
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from mpmath import mp
from reference import LinearGaussian
from torch import Tensor

from seqlatent.kalman import LinearGaussianSystem


class Case(NamedTuple):
    """A system with its data; ``kind`` says what it is made of."""

    seed: int
    kind: str
    model: LinearGaussian
    y: Tensor
    observed: Tensor
    diffuse: Tensor | None

    @property
    def arguments(self) -> tuple[LinearGaussianSystem, Tensor, Tensor]:
        """What the functions of `seqlatent.kalman` take before their options."""
        return LinearGaussianSystem(*self.model, diffuse=self.diffuse), self.y, self.observed

    def to(self, dtype: torch.dtype) -> "Case":
        """The same in another precision."""
        model = LinearGaussian(*(x.to(dtype) for x in self.model))
        return self._replace(model=model, y=self.y.to(dtype))

    def nudged(self, size: float, seed: int = 0) -> "Case":
        """The same with numbers that are off by a relative ``size``; what is zero stays zero.

        A singular covariance becomes regular by as much, as rounding may make it. With a diffuse
        start the transition is off by one factor, so that it stays as undetermined as it is.
        """
        g = torch.Generator().manual_seed(seed)

        def factor(*shape: int) -> Tensor:
            return 1 + size * (2 * torch.rand(*shape, dtype=torch.float64, generator=g) - 1)

        parts = {}
        for name, x in self.model._asdict().items():
            if name in ("Q", "P0", "R"):
                variances = x.diagonal(dim1=-2, dim2=-1)
                scale = factor(*x.shape[:-1])
                more = torch.diag_embed(variances * (factor(*x.shape[:-1]) - 1 + size))
                parts[name] = x * (scale.unsqueeze(-1) * scale.unsqueeze(-2)) + more
            elif name == "F" and self.diffuse is not None:
                parts[name] = x * factor(1)
            else:
                parts[name] = x * factor(*x.shape)
        y = self.y * factor(*self.y.shape)
        return self._replace(model=LinearGaussian(**parts), y=y)

    def series(self) -> list["Case"]:
        """Each series by itself, with all axes written out."""
        *lead, steps, _ = self.y.shape
        full = self.model.full(tuple(lead), steps)
        flat = [x.reshape(-1, *x.shape[len(lead) :]) for x in full]
        y, observed = (x.reshape(-1, *x.shape[len(lead) :]) for x in (self.y, self.observed))
        return [
            Case(
                self.seed,
                self.kind,
                LinearGaussian(*(x[i] for x in flat)),
                y[i],
                seen,
                self.diffuse,
            )
            for i, seen in enumerate(observed)
        ]


def cases(number: int) -> list[range]:
    """Seeds in twenty chunks, as many as asked for by SEQLATENT_FUZZ."""
    number = int(os.environ.get("SEQLATENT_FUZZ", number))
    chunk = -(-number // 20)
    return [range(i, min(i + chunk, number)) for i in range(0, number, chunk)]


def random_case(seed: int) -> Case:
    """A case with float64 numbers, the same for the same seed."""
    return _Draw(seed).case()


class _Draw:
    """Choices and numbers of one case."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        one = self.random
        self.K, self.D = one.choice([1, 2, 2, 3, 4, 5]), one.choice([1, 1, 1, 2, 3])
        self.steps = one.choice([1, 2, 3, 5, 8, 13, 13, 20, 20, 30, 45, 90])
        self.lead = one.choice([(), (1,), (3,), (3,), (5,), (2, 3)])
        self.own = one.random() < 0.4 and self.lead != ()
        self.varying = one.random() < 0.15
        self.words = [f"K={self.K} D={self.D} T={self.steps} lead={self.lead}"]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def choose(self, name: str, *options: str) -> str:
        word = self.random.choice(options)
        self.words.append(f"{name}={word}")
        return word

    def axes(self, name: str, varying: bool | None = None) -> tuple[int, ...]:
        """Leading axes of a matrix: of the series, of time, of both, or none."""
        own = self.own and self.random.random() < 0.5
        each = self.random.random() < 0.5 and (self.varying if varying is None else varying)
        if own or each:
            self.words.append(
                f"{name} by {'series' * own}{' and ' * (own and each)}{'step' * each}"
            )
        if own:
            return (*self.lead, self.steps if each else 1)
        return (self.steps,) if each else ()

    def each(self, axes: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        """A matrix for each place of the axes."""
        made = [make() for _ in range(math.prod(axes))]
        return torch.stack(made).reshape(*axes, *made[0].shape)

    def covariance(self, size: int, kind: str) -> Tensor:
        if kind == "zero":
            return torch.zeros(size, size, dtype=torch.float64)
        if kind == "diagonal":
            return torch.diag(0.2 + self.normal(size).square())
        if kind == "diagonal with zeros":
            kept = torch.rand(size, generator=self.generator) < 0.5
            return torch.diag(torch.where(kept, 0.2 + self.normal(size).square(), 0.0))
        rank = self.random.randint(1, max(size - 1, 1)) if kind == "low rank" else size
        G = self.normal(size, rank)
        P = G @ G.mT / rank
        return P if kind == "low rank" else P + 0.1 * torch.eye(size, dtype=torch.float64)

    def transition(self, kind: str) -> Tensor:
        K, size = self.K, self.random.uniform(0.2, 0.98)
        if kind == "zero":
            return torch.zeros(K, K, dtype=torch.float64)
        if kind == "walk":
            return torch.eye(K, dtype=torch.float64)
        if kind == "trend":
            return torch.eye(K, dtype=torch.float64) + torch.eye(K, dtype=torch.float64).roll(
                1, 1
            ).triu(1)
        if kind == "season":
            F = torch.eye(K, dtype=torch.float64).roll(1, 0)
            F[0] = -1.0
            return F
        if kind == "damped":
            low = torch.rand(K, dtype=torch.float64, generator=self.generator) * 0.6 + 0.05
            return torch.diag(low) + 0.3 * self.normal(K, K).triu(1)
        F = self.normal(K, K)
        if kind == "contraction":
            return size * F / torch.linalg.matrix_norm(F, 2)
        if kind == "explosive":
            size = min(self.random.uniform(1.01, 1.4), 1e6 ** (1 / self.steps))
        return size * F / torch.linalg.eigvals(F).abs().max()

    def case(self) -> Case:
        K, D, one = self.K, self.D, self.random
        kinds = ["stationary", "walk", "trend", "season", "damped", "explosive", "zero"]
        weights = [4, 2, 4, 2, 3, 3, 0.5]
        dynamics = "contraction" if self.varying else one.choices(kinds, weights)[0]
        self.words.append(f"F={dynamics}")
        F = self.each(self.axes("F"), lambda: self.transition(dynamics))
        shock = self.choose(
            "Q", "full", "full", "diagonal", "diagonal with zeros", "low rank", "zero"
        )
        exact = D <= K and shock in ("full", "diagonal") and one.random() < 0.15
        noise = (
            self.choose("R", "zero", "low rank") if exact else self.choose("R", "full", "diagonal")
        )
        spread = one.choices([1, 4, 8], [6, 3, 1])[0]
        ratio = 10 ** one.uniform(-spread, spread)
        self.words.append(f"Q/R={ratio:.1e}")
        Q = self.each(self.axes("Q"), lambda: self.covariance(K, shock))
        R = self.each(self.axes("R"), lambda: self.covariance(D, noise)) / ratio
        H = self.each(self.axes("H"), lambda: self.loading(exact))
        P0, diffuse = self.start(exact)
        b, d = (self.offset(name, size) for name, size in (("b", K), ("d", D)))
        m0 = self.normal(*(self.lead if self.own else ()), K) * one.choice([0.0, 1.0])
        model = LinearGaussian(F, b, Q, m0, P0, H, d, R)
        observed = self.pattern()
        y = self.data(model, diffuse)
        return Case(
            self.seed,
            ", ".join(self.words),
            model,
            torch.where(observed, y, 0.0),
            observed,
            diffuse,
        )

    def loading(self, exact: bool) -> Tensor:
        if exact or self.random.random() < 0.5:
            return self.normal(self.D, self.K)
        # the first coordinates, as of a structural model
        return torch.eye(self.K, dtype=torch.float64).repeat(self.D, 1)[: self.D]

    def start(self, exact: bool) -> tuple[Tensor, Tensor | None]:
        K = self.K
        kinds = ["proper", "large", "diffuse", "partly diffuse"]
        kind = self.choose("start", *kinds, *([] if exact else ["low rank", "zero"]))
        lead = self.lead if self.own and self.random.random() < 0.5 else ()
        inner = {"low rank": "low rank", "zero": "zero", "large": "diagonal"}.get(kind, "full")
        P0 = self.each(lead, lambda: self.covariance(K, inner))
        if kind == "large":
            P0 = P0 * 10 ** self.random.uniform(3, 8)
        if "diffuse" not in kind:
            return P0, None
        flat = torch.ones(K, dtype=torch.bool)
        if kind == "partly diffuse":
            flat[self.random.sample(range(K), self.random.randint(0, K - 1))] = False
        return P0, flat

    def offset(self, name: str, size: int) -> Tensor:
        if self.random.random() < 0.6:
            return torch.zeros(size, dtype=torch.float64)
        return self.normal(*self.axes(name, varying=True), size)

    def pattern(self) -> Tensor:
        """Which cells are observed."""
        steps, shape = self.steps, (*self.lead, self.steps, self.D)
        seen = torch.ones(shape, dtype=torch.bool)
        if self.random.random() < 0.35:
            return seen
        for _ in range(self.random.choice([1, 1, 2])):
            shared = self.random.random() < 0.4
            kind = self.choose(
                "missing",
                "leading",
                "trailing",
                "rows",
                "cells",
                "block",
                "column",
                "series",
                "all",
            )
            kind = self.random.choice(["rows", "cells"]) if kind == "all" and shared else kind
            lead = (1,) * len(self.lead) if shared else self.lead
            self.words.append("alike" * shared or "apart")
            first, last = (
                torch.randint(0, steps + 1, (*lead, 1, 1), generator=self.generator) for _ in "ab"
            )
            time_index = torch.arange(steps)[:, None]
            part = torch.rand(*lead, steps, self.D, generator=self.generator)
            missing = {
                "leading": time_index < first,
                "trailing": time_index >= first,
                "rows": part[..., :1] < 0.3,
                "cells": part < 0.3,
                "block": (time_index >= first) & (time_index < last),
                "column": part[..., :1, :] < 0.3,
                "series": part[..., :1, :1] < 0.4,
                "all": torch.ones(1, 1, dtype=torch.bool),
            }[kind]
            seen = seen & ~missing
        return seen

    def data(self, model: LinearGaussian, diffuse: Tensor | None) -> Tensor:
        """Mostly of the model itself; else a walk of which it knows nothing."""
        if self.choose("data", "own", "own", "own", "foreign") == "foreign":
            return self.normal(*self.lead, self.steps, self.D).cumsum(-2)
        F, b, Q, m0, P0, H, d, R = model.full(self.lead, self.steps)
        if diffuse is not None:
            level = 10 ** self.random.choice([0, 0, 2, 5])
            self.words.append(f"level={level:g}")
            P0 = torch.where(
                diffuse | diffuse[:, None], torch.eye(self.K, dtype=P0.dtype) * level**2, P0
            )
        z, path = m0 + self.noise(P0), []
        for t in range(self.steps):
            if t:
                z = (
                    (F[..., t, :, :] @ z.unsqueeze(-1))[..., 0]
                    + b[..., t, :]
                    + self.noise(Q[..., t, :, :])
                )
            mean = (H[..., t, :, :] @ z.unsqueeze(-1))[..., 0] + d[..., t, :]
            path.append(mean + self.noise(R[..., t, :, :]))
        return torch.stack(path, -2)

    def noise(self, P: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(P)
        scaled = values.clamp_min(0.0).sqrt() * self.normal(*P.shape[:-1])
        return (vectors @ scaled.unsqueeze(-1))[..., 0]


def precise_log_likelihood(case: Case) -> Tensor:
    """The log likelihood of each series by a plain filter in 150 digits.

    A diffuse coordinate has the variance 1e60; how many of them are determined is what a change
    of that variance changes.
    """
    with mp.workdps(150):
        found = [float(_limit(one, None, mp.mpf(0))) for one in case.series()]
    return torch.tensor(found, dtype=torch.float64).reshape(case.y.shape[:-2])


def precise_slopes(case: Case, direction: Case) -> tuple[float, float]:
    """First and second derivative of the sum over series along a direction.

    They are differences over 1e-100, in 420 digits.
    """
    first, second, h = mp.mpf(0), mp.mpf(0), mp.mpf(10) ** -100
    with mp.workdps(420):
        for one, way in zip(case.series(), direction.series(), strict=True):
            low, middle, high = (_limit(one, way, step) for step in (-h, mp.mpf(0), h))
            first += (high - low) / (2 * h)
            second += (high - 2 * middle + low) / h**2
        return float(first), float(second)


def _limit(case: Case, way: Case | None, step: mp.mpf) -> mp.mpf:
    if case.diffuse is None:
        return _filtered(case, mp.mpf(0), way, step)
    large = mp.mpf(10) ** 60
    a, b = (_filtered(case, variance, way, step) for variance in (large, large**2))
    return a + round(float(2 * (a - b) / mp.log(large))) * mp.log(large) / 2


def _filtered(case: Case, large: mp.mpf, way: Case | None, step: mp.mpf) -> mp.mpf:
    parts = [_exact(x) for x in (*case.model, case.y)]
    if way is not None:
        moves = (_exact(x) for x in (*way.model, way.y))
        parts = [_moved(x, u, step) for x, u in zip(parts, moves, strict=True)]
    F, b, Q, m, P, H, d, R, y = parts
    K = len(m)
    if case.diffuse is not None:
        flat = case.diffuse.tolist()
        P = [[mp.mpf(0) if flat[i] or flat[j] else P[i][j] for j in range(K)] for i in range(K)]
        for i in range(K):
            P[i][i] += large if flat[i] else 0
    total = mp.mpf(0)
    for t, seen in enumerate(case.observed.tolist()):
        if t:
            m = [
                sum(f * x for f, x in zip(row, m, strict=True)) + c
                for row, c in zip(F[t], b[t], strict=True)
            ]
            P = _sum(_product(_product(F[t], P), _turned(F[t])), Q[t])
        # rows one after the other, once their noise is that given the rows before
        noise = [list(row) for row in R[t]]
        rows, values = [list(row) for row in H[t]], [p - q for p, q in zip(y[t], d[t], strict=True)]
        kept = [i for i, s in enumerate(seen) if s]
        for i in kept:
            h, r, v = rows[i], noise[i][i], values[i]
            if r > 0:
                for j in [j for j in kept if j > i]:
                    f = noise[j][i] / r
                    noise[j] = [p - f * q for p, q in zip(noise[j], noise[i], strict=True)]
                    rows[j] = [p - f * q for p, q in zip(rows[j], h, strict=True)]
                    values[j] -= f * v
            Ph = [sum(p * q for p, q in zip(row, h, strict=True)) for row in P]
            S = sum(p * q for p, q in zip(h, Ph, strict=True)) + r
            e = v - sum(p * q for p, q in zip(h, m, strict=True))
            total -= (e * e / S + mp.log(S) + mp.log(2 * mp.pi)) / 2
            m = [x + k * e / S for x, k in zip(m, Ph, strict=True)]
            P = [[P[i][j] - Ph[i] * Ph[j] / S for j in range(K)] for i in range(K)]
    return total


def _exact(x: Tensor):
    return mp.mpf(x.item()) if x.dim() == 0 else [_exact(each) for each in x]


def _moved(x, u, step):
    if isinstance(x, list):
        return [_moved(p, q, step) for p, q in zip(x, u, strict=True)]
    return x + step * u


def _product(A, B):
    return [
        [sum(p * q for p, q in zip(row, column, strict=True)) for column in zip(*B, strict=True)]
        for row in A
    ]


def _turned(A):
    return [list(column) for column in zip(*A, strict=True)]


def _sum(A, B):
    return [[p + q for p, q in zip(*rows, strict=True)] for rows in zip(A, B, strict=True)]
