"""Reading: tables of CSV and parquet, with time stamps made of text."""

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqlatent.forecasting.cli.files import PARQUET, check_parquet
from seqlatent.forecasting.cli.messages import Failure, usage
from seqlatent.forecasting.cli.sources import Source
from seqlatent.forecasting.errors import ColumnError, TargetError, TimeError

if TYPE_CHECKING:
    from seqlatent.forecasting.columns import Columns

__all__ = ["check_there", "read_table"]

MISSING = [
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NAN",
    "null",
    "NULL",
    "None",
    "NaT",
]
ZONE = r"\d[Tt ]\d.*?([Zz]|[+-]\d\d(?::?\d\d)?)$"


def check_there(*places: str | None) -> None:
    """Makes sure that files exist, before anything slow.

    Raises:
        Failure: If one does not.
    """
    for place in places:
        if place not in (None, "-") and not Path(place).exists():
            raise Failure(f"{place}: no such file.")
        if place not in (None, "-") and Path(place).is_dir():
            raise Failure(f"{place}: expected a file, found a folder.")


def read_table(
    place: str,
    columns: "Columns",
    *,
    option: str = "DATA",
    timed: bool = True,
    single: bool = False,
    drop: list[str] | None = None,
) -> Source:
    """Reads a table of CSV or parquet.

    Identifiers of a CSV are text as it stands; its time stamps are integers or ISO 8601.

    Args:
        place: File, or ``-`` for CSV on stdin.
        columns: Names of the columns.
        option: Name of the option that gave the place, for errors.
        timed: Whether there is a column of time stamps.
        single: Whether a table without a column of identifiers is one series.
        drop: Columns to leave out.

    Raises:
        Failure: If the file is missing or no table.
        DataError: If columns or time stamps are not what they should be.
    """
    suffix = Path(place).suffix.lower()
    if suffix in PARQUET:
        source = _parquet(place)
    elif place == "-" or suffix in (".csv", ".txt") or Path(place).is_fifo():
        source = _csv(place, columns)
    else:
        raise usage(f"expected a .csv or .parquet file, or -, found {place!r}.", option)
    frame = source.frame
    for name in drop or []:
        if name not in frame.columns:
            raise usage(f"{source.name} has no column {name!r} to drop.", "--drop")
    frame = frame.drop(columns=drop or [])
    alone = single and columns.id not in frame.columns
    if alone:
        frame = frame.assign(**{columns.id: columns.targets[0]})
    wanted = [columns.id]
    wanted += [columns.time] if timed else []
    wanted += columns.targets if option == "DATA" else ()
    for name in wanted:
        if name not in frame.columns:
            raise ColumnError(
                f"{source.name}: expected a column {name!r}, found "
                f"{', '.join(map(str, frame.columns))}. Name yours with --id-col, --time-col and "
                "--target-col.",
                column=name,
            )
    source = replace(source, frame=frame, single=alone)
    source = _dated(source, columns.time) if timed else source
    return _numbered(source, [*columns.targets, *columns.past, *(columns.future or ())])


def _parquet(place: str) -> Source:
    import pandas as pd

    check_parquet(place)
    check_there(place)
    try:
        return Source(pd.read_parquet(place), place, lines=False)
    except (ValueError, OSError) as error:  # pyarrow's errors are of both kinds
        raise Failure(f"{place} is no readable parquet file: {error}") from error


def _csv(place: str, columns: "Columns") -> Source:
    import pandas as pd

    name = "stdin" if place == "-" else place
    check_there(place)
    data = sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()
    try:
        head = next(csv.reader(io.StringIO(data.split(b"\n", 1)[0].decode("utf-8-sig"))), [])
        again = next((c for i, c in enumerate(head) if c in head[:i]), None)
        if again is not None:
            raise ColumnError(f"{name}: expected every column once, found {again!r} twice.")
        frame = pd.read_csv(
            io.BytesIO(data),
            dtype={columns.id: str} if columns.id in head else None,
            # NA and 007 are good names of a series, and stay as they stand
            na_values={name: [""] if name == columns.id else MISSING for name in head},
            keep_default_na=False,
            index_col=False,
            low_memory=False,
        )
    except UnicodeDecodeError as error:
        raise Failure(f"{name} is no UTF-8 text: {error}. Save it as UTF-8.") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise Failure(f"{name} is no readable CSV: {error}") from error
    return Source(frame, name, lines=data.rstrip(b"\r\n").count(b"\n") == len(frame))


def _dated(source: Source, column: str) -> Source:
    """The table with ISO 8601 text as time stamps; numbers and time stamps stay."""
    import pandas as pd

    text = source.frame[column]
    if pd.api.types.is_numeric_dtype(text) or not pd.api.types.is_string_dtype(text):
        return source
    there = text.notna()
    zones = text.str.extract(ZONE)[0]
    bare = there & zones.isna()
    if bare.any() and zones.notna().any():
        row = int(bare.to_numpy().argmax())
        raise TimeError(
            f"{source.name}: column {column!r}, {source.place(row)}: expected a time zone as in "
            f"other rows, found {text[row]!r}. Give all rows one, or none.",
            column=column,
            row=row,
        )
    utc = zones.nunique() > 1  # offsets that differ, as in summer and winter, meet in UTC
    stamps = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=utc)
    bad = stamps.isna() & there
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise TimeError(
            f"{source.name}: column {column!r}, {source.place(row)}: expected an integer or a date "
            f"such as 2024-01-31 or 2024-01-31T12:00, found {text[row]!r}. Write dates in this "
            "way (ISO 8601).",
            column=column,
            row=row,
        )
    return replace(source, frame=source.frame.assign(**{column: stamps}))


def _numbered(source: Source, names: list[str]) -> Source:
    """The table, if no column that must hold numbers holds words."""
    import pandas as pd

    for name in names:
        column = source.frame.get(name)
        if column is None or not pd.api.types.is_string_dtype(column):
            continue
        numbers = pd.Series(pd.to_numeric(column, errors="coerce"))
        bad = numbers.isna() & column.notna()
        if not bad.any():
            continue
        row = int(bad.to_numpy().argmax())
        raise TargetError(
            f"{source.name}: column {name!r}, {source.place(row)}: expected a number, found "
            f"{column[row]!r}. Correct it, or leave the cell empty if the value is missing.",
            column=name,
            row=row,
        )
    return source
