"""Random hidden Markov models and switching linear systems of every kind, each by its seed."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.switching import SwitchingSystem

F64 = torch.float64
INF = float("inf")
PATHS = {"states": 700, "regimes": 81}  # of which there are to be no more


class Chain(NamedTuple):
    """A hidden Markov model with its likelihoods; ``kind`` says what it is made of."""

    seed: int
    kind: str
    log_initial: Tensor
    log_transition: Tensor
    log_likelihood: Tensor

    @property
    def model(self) -> tuple[Tensor, Tensor, Tensor]:
        return self[2:]

    def to(self, dtype: torch.dtype) -> "Chain":
        """The same in another precision."""
        return Chain(self.seed, self.kind, *(x.to(dtype) for x in self.model))


class Switching(NamedTuple):
    """In the order in which the functions of `seqlatent.switching` take them."""

    log_initial: Tensor
    log_transition: Tensor
    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor


# how many axes each has behind those of series and time, and whether it has one of time
AXES = {
    "log_initial": (1, False),
    "log_transition": (2, True),
    "F": (3, True),
    "b": (2, True),
    "Q": (3, True),
    "m0": (2, False),
    "P0": (3, False),
    "H": (3, True),
    "d": (2, True),
    "R": (3, True),
}


class System(NamedTuple):
    """A switching linear system with its data."""

    seed: int
    kind: str
    model: Switching
    y: Tensor
    observed: Tensor

    @property
    def arguments(self) -> tuple[SwitchingSystem, Tensor, Tensor]:
        """What the functions of `seqlatent.switching` take before their options."""
        return SwitchingSystem(*self.model), self.y, self.observed

    def to(self, dtype: torch.dtype) -> "System":
        """The same in another precision."""
        model = Switching(*(x.to(dtype) for x in self.model))
        return self._replace(model=model, y=self.y.to(dtype))

    def full(self) -> "System":
        """The same with all axes written out."""
        *lead, steps, _ = self.y.shape
        parts = {}
        for name, x in self.model._asdict().items():
            event, time = AXES[name]
            axes = (*lead, steps) if time else tuple(lead)
            parts[name] = x.expand(*axes, *x.shape[x.dim() - event :])
        return self._replace(model=Switching(**parts))

    def series(self) -> list["System"]:
        """Each series by itself."""
        lead, full = self.y.dim() - 2, self.full()
        flat = [x.reshape(-1, *x.shape[lead:]) for x in (*full.model, self.y, self.observed)]
        return [
            System(self.seed, self.kind, Switching(*(x[i] for x in flat[:-2])), y, flat[-1][i])
            for i, y in enumerate(flat[-2])
        ]

    def until(self, stop: int) -> "System":
        """The first steps."""
        full = self.full()
        parts = {}
        for name, x in full.model._asdict().items():
            event, time = AXES[name]
            parts[name] = x.narrow(x.dim() - event - 1, 0, stop) if time else x
        y, observed = self.y[..., :stop, :], self.observed[..., :stop, :]
        return full._replace(model=Switching(**parts), y=y, observed=observed)


def random_chain(seed: int) -> Chain:
    """A hidden Markov model with float64 numbers, the same for the same seed."""
    return _Draw(seed).chain()


def random_switching(seed: int, states: int | None = None) -> System:
    """A switching system with float64 numbers, the same for the same seed."""
    return _Draw(seed).switching(states)


class _Draw:
    """Choices and numbers of one case."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.lead = self.random.choice([(), (), (1,), (2,), (3,), (2, 2)])
        self.words: list[str] = []

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=self.generator)

    def chance(self, share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator) < share

    def choose(self, name: str, *options: str) -> str:
        word = self.random.choice(options)
        self.words.append(f"{name}={word}")
        return word

    def axes(self, steps: int | None) -> tuple[int, ...]:
        """Leading axes of a tensor: all, some of them, or none; with ``steps`` that of time."""
        kind = self.random.choice(["all", "some", "none", "none"])
        some = tuple(n if self.random.random() < 0.5 else 1 for n in self.lead)
        lead = {"all": self.lead, "some": some, "none": ()}[kind]
        if steps is None:
            return lead
        time = (steps,) if self.random.random() < 0.4 else (1,)
        return (*lead, *time) if lead or time != (1,) else ()

    def each(self, axes: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        """A tensor for each place of the axes."""
        made = [make() for _ in range(math.prod(axes))]
        return torch.stack(made).reshape(*axes, *made[0].shape)

    def shape(self, what: str, most: int, states: int | None = None) -> tuple[int, int]:
        """Numbers of states and steps of which there are not too many paths."""
        size = states or self.random.choice([1, 2, 2, 3, 3, 4])
        steps = self.random.randint(1, most)
        while size**steps > PATHS[what]:
            steps -= 1
        self.words.append(f"S={size} T={steps} lead={self.lead}")
        return size, steps

    def chain(self) -> Chain:
        size, steps = self.shape("states", 8)
        kinds = ["full", "full", "sticky", "forward", "identity", "cycle", "zeros", "rare", "large"]
        moves = self.choose("M", *kinds)
        M = self.each(self.axes(steps), lambda: self.transition(size, moves))
        opening = self.choose("start", "full", "one", "zeros", "rare")
        first = self.each(self.axes(None), lambda: self.distribution(size, opening))
        scale = 10.0 ** self.random.choice([-1, 0, 0, 1, 3, 5, 12])
        self.words.append(f"scale={scale:g}")
        ll = scale * self.normal(*self.lead, steps, size)
        if self.choose("missing", "no", "steps") == "steps":
            ll = torch.where(self.chance(0.3, *self.lead, steps, 1), 0.0, ll)
        impossible = self.choose("impossible", "no", "no", "cells", "steps")
        if impossible != "no":
            cells = (*self.lead, steps, size if impossible == "cells" else 1)
            ll = torch.where(self.chance(0.25, *cells), -INF, ll)
        return Chain(self.seed, " ".join(self.words), first, M, ll)

    def distribution(self, size: int, kind: str) -> Tensor:
        """Log probabilities; what is rare among them is so by hundreds of orders of magnitude."""
        x = self.normal(size)
        if kind in ("rare", "large"):
            x = x * {"rare": 200.0, "large": 5000.0}[kind]
        elif kind != "full":
            keep = self.chance(0.6, size) if kind == "zeros" else torch.zeros(size).bool()
            keep[self.random.randrange(size)] = True
            x = torch.where(keep, x, -INF)
        return x.log_softmax(-1)

    def transition(self, size: int, kind: str) -> Tensor:
        eye = torch.eye(size, dtype=F64)
        if kind == "identity":
            return eye.log()
        if kind == "cycle":
            return eye.roll(1, 1).log()
        if kind == "sticky":
            away = 10.0 ** -self.random.uniform(1, 14) / max(size - 1, 1)
            return (away + (1 - away * size) * eye).log()
        rows = torch.stack(
            [self.distribution(size, "full" if kind == "forward" else kind) for _ in eye]
        )
        if kind == "forward":
            rows = torch.where(torch.ones(size, size).triu() > 0, rows, -INF).log_softmax(-1)
        return rows

    def covariance(self, size: int, kind: str) -> Tensor:
        if kind == "zero":
            return torch.zeros(size, size, dtype=F64)
        rank = self.random.randint(1, max(size - 1, 1)) if kind == "low rank" else size
        G = self.normal(size, rank)
        P = G @ G.mT / rank
        return P if kind == "low rank" else P + 0.1 * torch.eye(size, dtype=F64)

    def switching(self, states: int | None) -> System:
        size, steps = self.shape("regimes", 5, states)
        K, D = self.random.choice([1, 2, 2, 3]), self.random.choice([1, 1, 2, 3])
        self.words.append(f"K={K} D={D}")
        moves = self.choose("M", "full", "full", "sticky", "forward", "identity", "zeros", "rare")
        opening = self.choose("start", "full", "one", "zeros", "rare")
        shock = self.choose("Q", "full", "full", "low rank", "zero")
        prior = self.choose("P0", "full", "full", "large", "low rank", "zero")
        ratio = 10 ** self.random.uniform(-3, 3)
        large = 10 ** self.random.uniform(2, 6) if prior == "large" else 1.0
        self.words.append(f"Q/R={ratio:.0e}")
        inner = "full" if prior == "large" else prior

        def regimes(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: torch.stack([make() for _ in range(size)])

        def move() -> Tensor:
            F = self.normal(K, K)
            return self.random.uniform(0.2, 1.1) * F / torch.linalg.matrix_norm(F, 2)

        model = Switching(
            self.each(self.axes(None), lambda: self.distribution(size, opening)),
            self.each(self.axes(steps), lambda: self.transition(size, moves)),
            self.each(self.axes(steps), regimes(move)),
            self.each(self.axes(steps), regimes(lambda: self.normal(K))),
            self.each(self.axes(steps), regimes(lambda: self.covariance(K, shock))),
            self.each(self.axes(None), regimes(lambda: self.normal(K))),
            self.each(self.axes(None), regimes(lambda: large * self.covariance(K, inner))),
            self.each(self.axes(steps), regimes(lambda: self.normal(D, K))),
            self.each(self.axes(steps), regimes(lambda: self.normal(D))),
            self.each(self.axes(steps), regimes(lambda: self.covariance(D, "full"))),
        )
        model = model._replace(R=model.R / ratio)
        far = self.choose("data", "near", "near", "near", "far", "absurd")
        y = {"near": 2.0, "far": 100.0, "absurd": 1e6}[far] * self.normal(*self.lead, steps, D)
        return System(self.seed, " ".join(self.words), model, y, self.pattern(steps, D))

    def pattern(self, steps: int, D: int) -> Tensor:
        """Which cells are observed."""
        seen = torch.ones(*self.lead, steps, D, dtype=torch.bool)
        kind = self.choose("missing", "no", "cells", "steps", "trailing", "series", "all")
        if kind == "all":
            return ~seen
        if kind == "trailing":
            return seen & (torch.arange(steps)[:, None] < self.random.randint(0, steps))
        cells = {"cells": (steps, D), "steps": (steps, 1), "series": (1, 1)}.get(kind)
        return seen if cells is None else seen & ~self.chance(0.35, *self.lead, *cells)
