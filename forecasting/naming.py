"""Naming, the columns that come out: no name of a frame or a model may meet another's."""

import re
from collections.abc import Iterable, Sequence

from seqlatent.forecasting.columns import Columns
from seqlatent.forecasting.errors import ColumnError

__all__ = ["DERIVED", "check_names", "check_words"]

# What is put behind the name of a model, or of a target.
DERIVED = re.compile(
    r"(?:-(?:lo|hi)-\d[\d.e+-]*|-mean|-median|-log_score|-pit|-innovation|_ql\d[\d.e+-]*)$"
)
# Columns of ours in frames of forecasts and scores, beside those of models.
OWN = ("target", "y", "metric", "step")


def check_names(columns: Columns, aliases: Sequence[str]) -> None:
    """Makes sure that every column of what comes out has a name of its own.

    Args:
        columns: Names of the columns.
        aliases: Names of the models.

    Raises:
        ColumnError: If a column would be overwritten by another; it names both.
    """
    roles = {"id": (columns.id,), "time": (columns.time,), "target": columns.targets}
    roles |= {"sample": (columns.sample,), "cutoff": (columns.cutoff,)}
    for alias in aliases:
        if alias in OWN or DERIVED.search(alias):
            raise ColumnError(
                f"model names must leave other columns alone, found {alias!r}, which stands for "
                f"{'a column of its own' if alias in OWN else 'a column of another model'}; give "
                "the Spec another name with dataclasses.replace(spec, name=...).",
                column=alias,
            )
        for role, names in roles.items():
            for name in names:
                if _derived(name, alias):
                    raise ColumnError(
                        f"columns and models must differ in name, found the {role} column {name!r} "
                        f"and the model {alias!r}, whose forecasts would take its place. Rename "
                        f"the column: df.rename(columns={{{name!r}: {name + '_'!r}}}).",
                        column=name,
                    )
    several = len(columns.targets) > 1
    target = "y" if several else columns.targets[0]
    for role in ("id", "time", "sample", "cutoff"):
        (name,) = roles[role]
        if (name != target and _derived(name, target)) or (several and name in ("target", "y")):
            what = f"the {role} column {name!r} and a column that is made of the target"
            raise ColumnError(
                f"columns must differ in name, found {what}{'s' if several else f' {target!r}'}. "
                f"Rename the column: df.rename(columns={{{name!r}: {name + '_'!r}}}).",
                column=name,
            )


def check_words(columns: Columns, call: str, words: Iterable[str]) -> None:
    """Makes sure that identifiers and stamps do not have the name of a column of ours.

    Args:
        columns: Names of the columns.
        call: What makes the frame.
        words: Columns that it has beside those two.

    Raises:
        ColumnError: If one has.
    """
    words = set(words) - ({"target"} if len(columns.targets) == 1 else set())
    for role, name in (("id", columns.id), ("time", columns.time)):
        if name in words or re.fullmatch(r"(?:lo|hi)-\d[\d.e+-]*", name):
            raise ColumnError(
                f"{call} has a column {name!r} of its own, found the {role} column of that name. "
                f"Rename yours: df.rename(columns={{{name!r}: {name + '_'!r}}}), with "
                f"Columns({role}={name + '_'!r}).",
                column=name,
            )


def _derived(name: str, stem: str) -> bool:
    """Whether a name is a stem, or made of it."""
    return name == stem or (
        name.startswith(stem) and DERIVED.fullmatch(name, len(stem)) is not None
    )
