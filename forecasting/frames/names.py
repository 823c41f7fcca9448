"""Naming, the columns that come out: no name of a frame or a model may meet another's."""

import re
from collections.abc import Collection, Iterable, Sequence

from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.frames.columns import Columns

__all__ = ["check_names", "check_words"]

# What is put behind the name of a model, or of a target.
DERIVED = re.compile(
    r"(?:-(?:lo|hi)-\d[\d.e+-]*|-mean|-median|-log_score|-pit|-innovation|-probability"
    r"|_ql\d[\d.e+-]*)$"
)
# Of these, what no covariate is called.
OURS = re.compile(r"(?:-(?:lo|hi)-\d[\d.e+-]*|-log_score|-pit|-innovation|_ql\d[\d.e+-]*)$")
# Columns of ours in frames of forecasts and scores, beside those of models.
OWN = ("target", "y", "metric", "step", "specification", "parameter")


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


def check_inputs(
    columns: Columns, found: Sequence[str], varying: Collection[str], *, tested: bool
) -> None:
    """Makes sure that what came out of a forecaster does not go in as covariates.

    Args:
        columns: Names of the columns.
        found: Columns that would be covariates only for having no other role.
        varying: Those of the columns of sample paths and cutoffs that hold several values.
        tested: Whether there is a column of cutoffs.

    Raises:
        ColumnError: If a column is one of ours.
    """
    what = {columns.sample: ("sample paths", "one of them"), columns.cutoff: ("windows", "one")}
    for name in varying:
        kind, one = what[name]
        role = "sample" if name == columns.sample else "cutoff"
        raise ColumnError(
            f"df: column {name!r}: expected rows that were observed, found {kind}, one below the "
            f"other, as sample() and cross_validation() return them. Take {one}, and drop the "
            f"column; or, if it is a covariate of yours, call ours otherwise: "
            f"Columns({role}={name + '_'!r}).",
            column=name,
        )
    means = {f"{target}-mean" for target in columns.targets}
    if tested:  # a backtest without levels has no other name of ours
        means |= {f"{name}-mean" for name in found}
    for name in found:
        if OURS.search(name) or name in means:
            raise ColumnError(
                f"df: column {name!r}: expected what was observed, found a column as forecasts, "
                "scores and imputed values have them, which would be read as a covariate known "
                f"ahead. Drop it and its like, or declare your covariates: Columns(future=[...]).",
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
