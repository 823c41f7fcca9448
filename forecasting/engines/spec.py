"""Specs, what a forecaster needs to know of a latent model: how to build, feed and train it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial, wraps
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
import torch

from seqlatent.emissions import ByTarget, Emission
from seqlatent.forecasting.arguments import flag, real, whole
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.engines.laws import EMISSIONS, Law
from seqlatent.forecasting.engines.parameters import Marginals
from seqlatent.forecasting.errors import ArgumentError, FolderError
from seqlatent.forecasting.features.windows import ModelData
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.values import scalar, several
from seqlatent.model import LatentModel
from seqlatent.spelling import meant
from seqlatent.training import Deadline

__all__ = [
    "DataSummary",
    "Members",
    "Seeded",
    "Spec",
    "Trainer",
    "Training",
    "emission_of",
    "register",
    "spec_of",
]


@dataclass(frozen=True)
class DataSummary:
    """What is known of the data when a model is built.

    Args:
        obs_dim: Targets ``D``.
        covariate_dim: Covariates ``U``, calendar and season phases included.
        code_sizes: Categories of each static code.
        season_lengths: Steps of each season, shortest first.
        series: Series in the training panel.
        rows: Rows of a typical series (the median).
        irregular: Whether gaps between rows differ.
        longest: Values of the series that has most.
        laws: The law that each target calls for; see
            :mod:`seqlatent.forecasting.engines.laws`. None for real values of any sign.
        least: Least value of all.
        varied: Whether a series varies by more than a small part of its level, so that logarithms
            say something else than the values.
    """

    obs_dim: int = 1
    covariate_dim: int = 0
    code_sizes: tuple[int, ...] = ()
    season_lengths: tuple[int, ...] = ()
    series: int = 1
    rows: int = 100
    irregular: bool = False
    longest: int = 100
    laws: tuple[Law, ...] = ()
    least: float = 1.0
    varied: bool = True

    @property
    def season(self) -> int:
        """The shortest season, 1 where there is none."""
        return self.season_lengths[0] if self.season_lengths else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "DataSummary":
        """Reads what :meth:`to_dict` wrote."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        counts = plain.pop("counts", False)  # of folders from before there were other laws
        laws = [Law(**law) for law in plain.pop("laws", [])]
        laws = laws or [Law("negative_binomial")] * (plain["obs_dim"] if counts else 0)
        return cls(**plain, laws=tuple(laws))


@dataclass(frozen=True)
class Training:
    """What a trainer gets.

    Args:
        model_data: The panel as the first model reads it.
        data_summary: What the models were built for.
        flags: Where past covariates and their flags lie in ``u``.
        fit_options: Seed, time limit, progress, device.
        panel: The rows before any transform.
        summary: Where a trainer leaves what it found, as plain values for JSON.
        each: Seconds that each member costs after training, where there is a deadline; that of the
            fit leaves time for all of them.
        steps: Steps that members made, and were to make, in each stage; by their place in memory.
        said: What a trainer left undone for want of time, in words.
        spared: The same, of what leaves a model that is good enough.
        views: The panel as each model reads it, by its place in memory.
        of_series: What a trainer has to say of single series, by their places in the panel.
        marginals: Where it leaves the posteriors of the parameters of each series, a mixture of
            specifications.
    """

    model_data: ModelData
    data_summary: DataSummary
    flags: slice
    fit_options: FitOptions
    panel: Panel
    summary: dict[str, Any] = field(default_factory=dict)
    each: float = 0.0
    steps: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    views: Mapping[int, ModelData] = field(default_factory=dict)
    of_series: dict[int, str] = field(default_factory=dict)
    marginals: list[Marginals] = field(default_factory=list)

    def view(self, model: LatentModel) -> ModelData:
        """The panel as a model reads it, through its transform."""
        return self.views.get(id(model), self.model_data)

    def affordable(self, members: int) -> tuple[int, Deadline]:
        """How many of the members there is time for, and until when they train."""
        deadline = self.fit_options.deadline
        if deadline.never:
            return members, deadline
        left = deadline.left + members * self.each
        count = max(1, min(members, int(left / (self.each + _LEAST))))
        return count, deadline.sooner(-(members - count) * self.each)


_LEAST = 1.0  # seconds in which a network learns too little for another to begin


class Members(NamedTuple):
    """What a trainer made in the place of the members that it was given.

    Attributes:
        models: As many as there were, in their order.
        weights: Weight of each member for each series ``(N, M)``, zero for what is not to be used.
    """

    models: Sequence[LatentModel]
    weights: np.ndarray


Trainer = Callable[[Sequence[LatentModel], Training], "Members | np.ndarray | None"]


@dataclass(frozen=True)
class Seeded:
    """A build whose members start from what the seed draws, not from what they were built with.

    Every part of them says how, as :func:`seqlatent.networks.reinitialise` asks for: layers of
    torch, and modules with a method ``reset_parameters(generator)``. That makes a member a function
    of the seed and its place alone.

    Args:
        build: From a summary of the data to the members.
    """

    build: Callable[[DataSummary], Sequence[LatentModel]]

    def __call__(self, data_summary: DataSummary) -> Sequence[LatentModel]:
        return self.build(data_summary)


@dataclass(frozen=True)
class Spec:
    """A latent model as a forecaster sees it.

    Args:
        name: Name of the columns that it fills.
        build: From a summary of the data to the members of the ensemble, untrained. It is
            called in a private fork of torch's global generator, which starts from the seed of the
            fit: parameters that are drawn follow from the seed and differ between members, and
            those that are set or loaded are kept. What it returns is copied, not trained itself.
            Members of :class:`Seeded` builds are drawn anew.
        train: Trains the members in place; returns the weight of each member for each series
            ``(N, M)``, or None for equal weights. :class:`Members` where it made others.
        scaling: ``"magnitude"``, ``"level"``, ``"standard"``, ``"local"`` or ``"differences"``: see
            :mod:`seqlatent.forecasting.features.scaling`.
        calendar: Whether the models read calendar features and season phases.
        statics: Whether they read static features.
        categories: Whether they read static categories, the codes of a batch, beside numbers.
        past: Whether they read past covariates.
        own: Whether each series has parameters of its own, a row of a table that its first code
            names; the last row serves new series.
        transform: ``"none"`` or ``"log"``: what is done to targets before anything else, or a
            function of that summary that says so for each member.
        bounded: Whether what was never negative is not forecast to be.
        context: Rows from which the units of a series follow, and from the first of which it is
            filtered, or a function of that summary that says how many; None for all, which a state
            then keeps. Series of training that are inferred exactly, with parameters of their own
            or from all rows, are filtered from the first row that ``fit`` read, and forget nothing.
        samples: Paths from which quantiles are computed unless they are exact.
        dtype: Type of parameters and data.
        calibrate: Whether all noises of models that are inferred exactly, with a memory that reads
            no values, are multiplied by what a block asks for that is held out of a second fit.
        config: Name and arguments of the factory that made it; empty for a spec of your own, which
            has to be given again to ``Forecaster.load``.
    """

    name: str
    build: Callable[[DataSummary], Sequence[LatentModel]]
    train: Trainer
    scaling: str = "magnitude"
    calendar: bool = True
    statics: bool = True
    categories: bool = True
    past: bool = True
    own: bool = False
    transform: str | Callable[[DataSummary], Sequence[str]] = "none"
    bounded: bool = False
    context: int | Callable[[DataSummary], int] | None = None
    samples: int = 200
    dtype: torch.dtype = torch.float32
    calibrate: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def follows_data(self) -> bool:
        """Whether the family of the observations is what the data call for, and was not asked."""
        if not self.config or "emission" in self.config["options"]:
            return False
        return "emission" in inspect.signature(_FACTORIES[self.config["name"]]).parameters

    def to_dict(self) -> dict[str, Any]:
        """How to make it again, for JSON: a factory, its options, and what was replaced since.

        Functions and classes cannot be told: the factory is None where others than the factory's
        own were put in.
        """
        untold = {"name": self.name, "factory": None}
        if not self.config:
            return untold
        made = spec_of(self.config["name"], **self.config["options"])
        changes = {}
        for name in (f.name for f in fields(self) if f.name != "config"):
            value = getattr(self, name)
            if _alike(value, getattr(made, name)):
                continue
            if not (value is None or isinstance(value, bool | int | float | str | torch.dtype)):
                return untold
            changes[name] = str(value) if isinstance(value, torch.dtype) else value
        factory, options = self.config["name"], self.config["options"]
        return {"name": self.name, "factory": factory, "options": options, "changes": changes}

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "Spec":
        """Reads what :meth:`to_dict` wrote.

        Raises:
            FolderError: If that was not enough to make it.
        """
        if config["factory"] is None:
            raise FolderError(
                f"the model {config['name']!r} was made from a Spec with functions or classes of "
                "your own, which are not saved: pass the Spec, as Forecaster.load(folder, "
                "specs=[spec])."
            )
        changes = dict(config["changes"])
        if "dtype" in changes:
            changes["dtype"] = getattr(torch, changes["dtype"].removeprefix("torch."))
        return replace(spec_of(config["factory"], **config["options"]), **changes)


def _alike(one: Any, other: Any) -> bool:
    """Whether two fields of specs are the same, functions with arguments by these."""
    if isinstance(one, partial) and isinstance(other, partial):
        return _alike([one.func, one.args, one.keywords], [other.func, other.args, other.keywords])
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return _alike([one.__func__, one.__self__], [other.__func__, other.__self__])
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if is_dataclass(one) and not isinstance(one, type):
        return all(_alike(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def emission_of(given: str | Callable[..., Emission] | None, data_summary: DataSummary) -> Any:
    """The emission class that was asked for, or the one that suits the data."""
    if given is None:
        names = [law.name for law in data_summary.laws] or ["student_t"]
        if len(set(names)) > 1:
            return partial(ByTarget, families=tuple(EMISSIONS[name] for name in names))
        given = names[0]
    return EMISSIONS[given] if isinstance(given, str) else given


_FACTORIES: dict[str, Callable[..., Spec]] = {}
# What options of the same name are everywhere, and the least that makes sense.
_SIZES = {
    "members": ("a number of networks", 1),
    "steps": ("a number of updates", 1),
    "latent_dim": ("a number of latent dimensions", 0),
    "hidden_dim": ("a width", 1),
    "batch_size": ("a number of windows", 1),
    "draws": ("a number of models", 1),
    "rows": ("a number of rows", 1),
}


def _read(option: str, value: Any) -> Any:
    """An option of a factory, None where it is left to the default."""
    if value is None:
        return None
    if option in _SIZES:
        return whole(option, value, *_SIZES[option])
    if option == "free_bits":
        return real(option, value, "a number of nats", 0)
    if option in ("bayes", "calibrate"):
        return flag(option, value)
    if option == "specifications":
        words = isinstance(value, Iterable) and not isinstance(value, str)
        return several(value) if words else value
    if option == "emission":
        return _family(scalar(value))
    return scalar(value)


def _family(emission: Any) -> Any:
    """A family of the observations: a name or a class."""
    if callable(emission) or (isinstance(emission, str) and emission in EMISSIONS):
        return emission
    raise ArgumentError(
        f"emission must be one of {', '.join(EMISSIONS)}, or a class, found {emission!r}."
        f"{meant(emission, EMISSIONS)}",
        name="emission",
    )


def register(name: str) -> Callable[[Callable[..., Spec]], Callable[..., Spec]]:
    """Registers a factory of specs under a name of the zoo, and notes what it was called with."""

    def register(factory: Callable[..., Spec]) -> Callable[..., Spec]:
        known = inspect.signature(factory).parameters

        @wraps(factory)
        def made(*given: Any, **options: Any) -> Spec:
            options = {**dict(zip(known, given, strict=False)), **options}
            for option in options:
                if option not in known:
                    raise TypeError(
                        f"{name} takes the options {', '.join(known)}, found {option!r}."
                        f"{meant(option, known)}"
                    )
            options = {k: _read(k, v) for k, v in options.items()}
            written = {k: v for k, v in options.items() if v is not None}
            for key, kind in EMISSIONS.items():
                if written.get("emission") is kind:
                    written["emission"] = key
            config = {"name": name, "options": written}
            if callable(written.get("emission")):
                config = {}
            spec = factory(**options)
            return replace(spec, name=name, build=Seeded(spec.build), config=config)

        _FACTORIES[name] = made
        return made

    return register


def spec_of(name: str, **options: Any) -> Spec:
    """Spec of a model of the zoo.

    Args:
        name: Name of the model.
        options: Arguments of its factory; None leaves the default.

    Raises:
        ArgumentError: If there is no such model, or an option is out of range.
    """
    if name not in _FACTORIES:
        raise ArgumentError(
            f"name must be one of {', '.join(_FACTORIES)}, which have a Spec, found {name!r}."
            f"{meant(name, _FACTORIES)}",
            name="name",
        )
    return _FACTORIES[name](**{k: v for k, v in options.items() if v is not None})


def zoo_names() -> tuple[str, ...]:
    """Names of the latent models."""
    return tuple(_FACTORIES)
