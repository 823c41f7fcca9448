"""What a panel must hold for a model to learn from it, or to fill it."""

import numpy as np

from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["check_training", "check_values"]


def check_training(panel: Panel, columns: Columns) -> None:
    """Verifies that there is something to learn from.

    Raises:
        TargetError: If a series has a single row, or a target no value at all.
    """
    short = np.flatnonzero(panel.lengths < 2)
    if len(short):
        i = int(short[0])
        raise TargetError(
            f"fit needs at least 2 rows of every series, found 1 for {panel.name(i)} (and "
            f"{len(short) - 1} more such series); give it more rows, or leave it out here and "
            "pass it to predict(df=...), which takes new series of any length.",
            id=panel.ids[i],
            row=int(panel.row[panel.offsets[i]]),
        )
    for d, name in enumerate(columns.targets):
        if np.isnan(panel.y[:, d]).all():
            raise TargetError(
                f"column {name!r} has no value at all, found only missing ones in "
                f"{panel.rows} rows; a model needs something to learn from.",
                column=name,
            )


def check_values(panel: Panel) -> None:
    """Verifies that every series has a value from which the others can be told.

    Raises:
        TargetError: If one has none.
    """
    some = np.add.reduceat((~np.isnan(panel.y)).any(1), panel.offsets[:-1])
    empty = np.flatnonzero(some == 0)
    if len(empty):
        i = int(empty[0])
        raise TargetError(
            f"impute needs at least one value of every series, found none for {panel.name(i)} (and "
            f"{len(empty) - 1} more such series): nothing says where it lies; leave it out, or "
            "draw from its own past with sample.",
            id=panel.ids[i],
        )
