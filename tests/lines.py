"""Random cases along a line through them, in double precision or as numbers of any precision."""

import torch
from mpmath import mp
from random_systems import Case
from reference import LinearGaussian
from torch import Tensor

COVARIANCES = ("Q", "P0", "R")


class Line:
    """A case along a line through it: multiplied entries, or added ones of what is free."""

    def __init__(self, case: Case, seed: int, *, added: bool) -> None:
        self.case, self.g = case, torch.Generator().manual_seed(seed)
        self.by = {name: self.normal(x) for name, x in case.model._asdict().items()}
        self.by |= {name: self.normal(getattr(case.model, name)[..., 0]) for name in COVARIANCES}
        self.by["y"], self.added = self.normal(case.y), added

    def normal(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, generator=self.g)

    def at(self, h: Tensor) -> tuple[LinearGaussian, Tensor]:
        parts = {}
        for name, x in (*self.case.model._asdict().items(), ("y", self.case.y)):
            e = self.by[name]
            if name in COVARIANCES:
                scale = 1 + h * e
                parts[name] = x * scale.unsqueeze(-1) * scale.unsqueeze(-2)
            else:
                free = name == "y" or (self.added and name in ("F", "H"))
                parts[name] = x + h * e * (1.0 if free else x)
        y = parts.pop("y")
        return LinearGaussian(**parts), y

    def precisely(self, h: mp.mpf) -> list[tuple[dict[str, list], list]]:
        """The same of each series, and which cells are observed, as numbers of any precision."""
        model = self.case.model._asdict()
        by = {k: self.by[k][..., None].expand_as(x) for k, x in model.items() if k in COVARIANCES}
        by = LinearGaussian(**({k: self.by[k] for k in model} | by))
        ways = self.case._replace(model=by, y=self.by["y"]).series()
        series = []
        for one, way in zip(self.case.series(), ways, strict=True):
            cells = {"y": moved(one.y.tolist(), way.y.tolist(), h, added=True)}
            for name, x in one.model._asdict().items():
                e, add = getattr(way.model, name).tolist(), self.added and name in ("F", "H")
                cells[name] = (
                    scaled(x.tolist(), e, h)
                    if name in COVARIANCES
                    else moved(x.tolist(), e, h, added=add)
                )
            series.append((cells, one.observed.tolist()))
        return series


def moved(x, e, h: mp.mpf, *, added: bool):
    """Numbers along a line, added to or multiplied."""
    if isinstance(x, list):
        return [moved(p, q, h, added=added) for p, q in zip(x, e, strict=True)]
    return x + h * e * (1 if added else x)


def scaled(x: list, e: list, h: mp.mpf) -> list:
    """Covariances along a line of multiples of standard deviations."""
    if isinstance(x[0][0], list):
        return [scaled(p, q, h) for p, q in zip(x, e, strict=True)]
    by = [1 + h * row[0] for row in e]
    return [[v * p * q for v, q in zip(row, by, strict=True)] for row, p in zip(x, by, strict=True)]
