"""Columns, the names under which a frame holds series, times, targets and covariates."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of the frames that go in and come out.

    Args:
        id: Series identifier.
        time: Time stamp: datetime or integer.
        target: What to forecast; several names make a joint model of several targets.
        future: Covariates known ahead. None stands for every column that has no other role.
        past: Covariates known only up to the present.
        sample: Number of a sample path, in what ``sample`` and ``impute`` return.
        cutoff: Last time that a backtest showed to the model, in what ``cross_validation`` returns.

    Raises:
        TypeError: If a name is no string.
        ValueError: If a name is empty or has two roles.

    Example:
        >>> from seqlatent.forecasting import Columns
        >>> Columns(id="item_id", time="timestamp", target="demand").targets
        ('demand',)
    """

    id: str = "unique_id"
    time: str = "ds"
    target: str | Sequence[str] = "y"
    future: Sequence[str] | None = None
    past: Sequence[str] = ()
    sample: str = "sample_id"
    cutoff: str = "cutoff"
    targets: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("target", "future", "past"):
            value = getattr(self, name)
            if value is None or isinstance(value, str):
                continue
            if not isinstance(value, Iterable):
                kind = "a column name" if name == "target" else "a list of column names"
                raise TypeError(f"{name} must be {kind}, found {value!r}.")
            object.__setattr__(self, name, tuple(value))
        for name in ("future", "past"):
            if isinstance(getattr(self, name), str):
                raise TypeError(
                    f"{name} must be a list of column names, found the string "
                    f"{getattr(self, name)!r}; write [{getattr(self, name)!r}]."
                )
        if self.target is None:
            raise TypeError("target must be a column name, found None.")
        target = (self.target,) if isinstance(self.target, str) else tuple(self.target)
        object.__setattr__(self, "targets", target)
        if not target:
            raise ValueError("target must name at least one column, found none.")
        roles = {
            "id": (self.id,),
            "time": (self.time,),
            "target": target,
            "future": self.future or (),
            "past": self.past,
            "sample": (self.sample,),
            "cutoff": (self.cutoff,),
        }
        owner: dict[str, str] = {}
        for role, names in roles.items():
            for name in names:
                if not isinstance(name, str) or not name:
                    raise TypeError(f"{role} must be a column name, found {name!r}.")
                if name in owner:
                    raise ValueError(
                        f"every column has one role, found {name!r} as {owner[name]} and as {role}."
                    )
                owner[name] = role
