"""What benchmark sets there are, where they come from, and the tasks of the forecast scoreboard."""

import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from seqlatent.datasets.readers import READERS

if TYPE_CHECKING:
    import pandas as pd

REGISTRY = Path(__file__).with_name("registry.json")


@dataclass(frozen=True)
class Source:
    """A file of a public repository at a fixed commit, from which a set can be made.

    Args:
        repository: Owner and name.
        commit: Full hash of the commit.
        path: Path of the file.
        sha256: Checksum of the file.

    Example:
        >>> Source("me/data", "0f3c", "a b.csv", "00").url
        'https://raw.githubusercontent.com/me/data/0f3c/a%20b.csv'
    """

    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def url(self) -> str:
        """Address of the raw file."""
        from urllib.parse import quote

        return (
            f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{quote(self.path)}"
        )

    @property
    def file(self) -> str:
        """Name of the file without its folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Dataset:
    """A benchmark set: its file, its checksum and its origin.

    :func:`load` takes one in place of a name, so sets of your own can use the same search, checks
    and cache.

    Args:
        name: Name of the set.
        file: Name of its parquet file.
        sha256: Checksum of the parquet file.
        description: What it holds, in a sentence.
        freq: Sampling frequency as pandas writes it, 1 for integer times, None where there is no
            single one.
        season: Steps of the main season, where there is one.
        horizon: Usual forecast horizon in steps, where there is one.
        licence: Licence as its source states it.
        origin: Repository, commit and path that it was made from.
        sources: Files from which :attr:`reader` can make it; empty where none can.
        reader: Makes the frame from the bytes of the sources.

    Example:
        >>> catalogue()["etth1"].downloadable, catalogue()["m3"].downloadable
        (True, False)
    """

    name: str
    file: str
    sha256: str
    description: str = ""
    freq: str | int | None = None
    season: int | None = None
    horizon: int | None = None
    licence: str = ""
    origin: str = ""
    sources: tuple[Source, ...] = ()
    reader: Callable[[Sequence[bytes]], "pd.DataFrame"] | None = field(default=None, repr=False)

    @property
    def downloadable(self) -> bool:
        """Whether the set can be made from its sources here."""
        return bool(self.sources) and self.reader is not None


@dataclass(frozen=True)
class Task:
    """A task of the forecast scoreboard: the last ``horizon`` values of every series are the test.

    Args:
        name: Name of the task.
        dataset: Set that it is taken from.
        horizon: Steps to forecast.
        season: Season of the seasonal naive forecast and of the scale of MASE.
        freq: Frequency of ``ds`` as pandas writes it; 1 where ``ds`` counts steps.
        period: Which series of the set, by its column ``period``; all of them where empty.
        zero_fill: Whether missing values count as 0.
    """

    name: str
    dataset: str
    horizon: int
    season: int
    freq: str | int
    period: str = ""
    zero_fill: bool = False

    @property
    def file(self) -> str:
        """Name of the parquet file of the set."""
        return self.dataset + ".parquet"


TASKS = (
    Task("m4_hourly", "m4_hourly", 48, 24, 1),
    Task("m4_weekly", "m4_weekly", 13, 1, 1),
    Task("exchange_rate", "exchange_rate", 30, 5, 1),
    Task("m1_monthly", "m1", 18, 12, "MS", "MONTHLY"),
    Task("m1_quarterly", "m1", 8, 4, "QS", "QUARTERLY"),
    Task("m1_yearly", "m1", 6, 1, "YS", "YEARLY"),
    Task("m3_monthly", "m3", 18, 12, "MS", "MONTHLY"),
    Task("m3_quarterly", "m3", 8, 4, "QS", "QUARTERLY"),
    Task("m3_yearly", "m3", 6, 1, "YS", "YEARLY"),
    Task("car_parts", "car_parts", 12, 12, "MS", zero_fill=True),
)


def tasks() -> tuple[Task, ...]:
    """The ten tasks of the forecast scoreboard, whose published numbers are comparable with ours.

    Example:
        >>> [task.name for task in tasks() if task.horizon == 18]
        ['m1_monthly', 'm3_monthly']
    """
    return TASKS


@functools.cache
def catalogue() -> Mapping[str, Dataset]:
    """All benchmark sets by name.

    Example:
        >>> catalogue()["m4_hourly"].description
        '414 hourly series of the M4 competition'
        >>> len(catalogue())
        25
    """
    sets = {}
    for entry in json.loads(REGISTRY.read_text(encoding="utf-8")):
        sources = tuple(Source(**source) for source in entry.pop("sources"))
        sets[entry["name"]] = Dataset(**entry, sources=sources, reader=READERS.get(entry["name"]))
    return MappingProxyType(sets)


def require_dataset(name: object) -> Dataset:
    """The set of that name; a ValueError with near names where there is none."""
    if isinstance(name, Dataset):
        return name
    found = catalogue().get(name) if isinstance(name, str) else None
    if found is None:
        part = next((task for task in TASKS if task.name == name), None)
        if part is not None:
            hint = f"it is a part of {part.dataset!r}: use load_long({name!r}) or split({name!r})."
        else:
            hint = _near(name, list(catalogue())) + "catalogue() lists all sets."
        raise ValueError(f"name must be the name of a benchmark set, found {name!r}; {hint}")
    return found


def require_task(name: object) -> Task:
    """The task of that name; a ValueError with near names where there is none."""
    if isinstance(name, Task):
        return name
    found = next((task for task in TASKS if task.name == name), None)
    if found is None:
        hint = _near(name, [task.name for task in TASKS])
        raise ValueError(
            f"name must be the name of a task, found {name!r}; {hint}tasks() lists all tasks."
        )
    return found


def _near(name: object, names: list[str]) -> str:
    near = difflib.get_close_matches(str(name), names, n=3)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
