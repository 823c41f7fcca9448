"""Parts, frames of components in the form in which states are drawn."""

from typing import Any

import narwhals as nw
import numpy as np

from seqlatent.forecasting.plots.named_frame import TARGET, NamedFrame, choose

__all__ = []


def as_states(rows: NamedFrame, specification: str | None, target: str | None) -> NamedFrame:
    """Components of one specification and target under names of states; else the rows themselves.

    Coefficients are states, which nobody draws unless they are named.
    """
    if "component" not in rows.names:
        return rows
    if "specification" in rows.names:
        rows = rows.where(
            "specification",
            choose(specification, rows.values("specification"), "specification", "components"),
        )
    if TARGET in rows.names:
        rows = rows.about(target)[0]
    name = nw.col("component")
    kind = (
        nw.when(name == "signal")
        .then(nw.lit("signal"))
        .otherwise(
            nw.when(name.str.starts_with("coefficient["))
            .then(nw.lit("state"))
            .otherwise(nw.lit("component"))
        )
    )
    frame = rows.frame.with_columns(name.alias("name"), kind.alias("kind"))
    return NamedFrame(frame, rows.columns, rows.what)


def observed(rows: NamedFrame) -> Any:
    """What was observed of one series: signal and irregular; None where they are no sum."""
    if "component" not in rows.names or "scale" not in rows.names:
        return None
    columns = rows.columns
    signal, rest = rows.where("name", "signal"), rows.where("name", "irregular")
    if (
        not len(rest.frame)
        or rest.values("scale") != ["data"]
        or signal.values("scale") != ["data"]
    ):
        return None
    keys = [columns.id, columns.time]
    both = signal.frame.select(*keys, "mean").join(
        rest.frame.select(*keys, nw.col("mean").alias("_rest")), on=keys, how="inner"
    )
    y = (nw.col("mean") + nw.col("_rest")).alias(columns.targets[0])
    return both.select(*keys, y).to_native()


def last_observed(rows: NamedFrame) -> float | None:
    """Time between the last row that was observed and the first one ahead; None without any."""
    if "component" not in rows.names:
        return None
    x = rows.where("name", "signal").times().x
    seen = rows.where("name", "irregular")
    if not len(seen.frame):
        return None
    last = float(seen.times().x.max())
    later = x[x > last]
    return (last + float(np.min(later))) / 2 if len(later) else None


def base(rows: NamedFrame) -> float:
    """Where a component does nothing: 1 of a factor, else 0."""
    return 1.0 if "scale" in rows.names and rows.values("scale") == ["factor"] else 0.0
