"""Reading: tables of CSV and parquet, with time stamps made of text."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqlatent.forecasting.cli.dialect import (
    COMMA,
    POINT,
    Dialect,
    check_widths,
    decoded,
    dialect_of,
    formats_of,
)
from seqlatent.forecasting.cli.files import PARQUET, check_parquet
from seqlatent.forecasting.cli.messages import Failure, usage
from seqlatent.forecasting.cli.sources import Source, Sources
from seqlatent.forecasting.errors import ColumnError, TargetError, TimeError

if TYPE_CHECKING:
    import pandas as pd

    from seqlatent.forecasting.frames.columns import Columns

__all__ = []

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
TEXTS = (".csv", ".txt", ".tsv", ".tab")
ZONE = r"\d[Tt ]\d.*?([Zz]|[+-]\d\d(?::?\d\d)?)$"


@dataclass(frozen=True)
class Inputs:
    """The tables that a command reads: files, or ``-`` for CSV on stdin.

    Args:
        data: The series.
        x: Covariates known ahead.
        static: Static features.
        drop: Columns of the series to leave out.
        dialect: What is known of how a CSV is written.
    """

    data: str | None = None
    x: str | None = None
    static: str | None = None
    drop: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def places(self) -> dict[str, str | None]:
        """The files by their options."""
        return {"DATA": self.data, "--x": self.x, "--static": self.static}

    def check(self) -> None:
        """Makes sure that files exist, before anything slow.

        Raises:
            typer.BadParameter: If several are to come from stdin.
            Failure: If one does not exist.
        """
        piped = [option for option, place in self.places.items() if place == "-"]
        if len(piped) > 1:
            raise usage("only one table can come from stdin.", ", ".join(piped))
        for place in self.places.values():
            _check_there(place)

    def read(self, columns: "Columns", *, single: bool) -> Sources:
        """Reads the tables.

        Args:
            columns: Names of the columns.
            single: Whether a table without a column of identifiers is one series.
        """
        found = {}
        for name, option in (("data", "DATA"), ("x", "--x"), ("static", "--static")):
            place = getattr(self, name)
            found[name] = (
                None
                if place is None
                else read_table(
                    place,
                    columns,
                    option=option,
                    timed=name != "static",
                    single=single,
                    drop=self.drop if name == "data" else (),
                    dialect=self.dialect,
                )
            )
        return Sources(**found)


def _check_there(place: str | None) -> None:
    if place is None or place == "-":
        return
    if not Path(place).exists():
        raise Failure(f"{place}: no such file.")
    if Path(place).is_dir():
        raise Failure(f"{place}: expected a file, found a folder.")


def read_table(
    place: str,
    columns: "Columns",
    *,
    option: str = "DATA",
    timed: bool = True,
    single: bool = False,
    drop: Sequence[str] = (),
    dialect: Dialect = Dialect(),  # noqa: B008
) -> Source:
    """Reads a table of CSV or parquet.

    Identifiers of a CSV are text as it stands; its time stamps are integers, or ISO 8601 unless
    the dialect has another format. What parts its columns, and whether decimals follow a comma, is
    told by its first lines.

    Args:
        place: File, or ``-`` for CSV on stdin.
        columns: Names of the columns.
        option: Name of the option that gave the place, for errors.
        timed: Whether there is a column of time stamps.
        single: Whether a table without a column of identifiers is one series.
        drop: Columns to leave out.
        dialect: What is known of how a CSV is written.

    Raises:
        Failure: If the file is missing or no table.
        DataError: If columns or time stamps are not what they should be.
    """
    suffix = Path(place).suffix.lower()
    if suffix in PARQUET:
        source = _parquet(place)
    elif place == "-" or suffix in TEXTS or Path(place).is_fifo():
        source = _csv(place, columns, dialect)
    else:
        raise usage(f"expected a .csv or .parquet file, or -, found {place!r}.", option)
    frame = source.frame
    for name in drop:
        if name not in frame.columns:
            raise usage(f"{source.name} has no column {name!r} to drop.", "--drop")
    frame = frame.drop(columns=list(drop))
    held = ", ".join(repr(name) for name in frame.columns)
    alone = single and columns.id not in frame.columns
    if alone:
        frame = frame.assign(**{columns.id: columns.targets[0]})
    wanted = [columns.id]
    wanted += [columns.time] if timed else []
    wanted += columns.targets if option == "DATA" else ()
    for name in wanted:
        if name not in frame.columns:
            raise ColumnError(
                f"{source.name}: expected a column {name!r}, found {held}{source.parted}. Name "
                "yours with --id-col, --time-col and --target-col.",
                column=name,
            )
    source = replace(source, frame=frame, single=alone)
    source = _dated(source, columns.time, dialect.date_format) if timed else source
    return _numbered(source, [*columns.targets, *columns.past, *(columns.future or ())])


def _parquet(place: str) -> Source:
    import pandas as pd

    check_parquet(place)
    _check_there(place)
    try:
        return Source(pd.read_parquet(place), place, lines=False)
    except (ValueError, OSError) as error:  # pyarrow's errors are of both kinds
        raise Failure(f"{place} is no readable parquet file: {error}") from error


def _csv(place: str, columns: "Columns", given: Dialect) -> Source:
    import pandas as pd

    name = "stdin" if place == "-" else place
    _check_there(place)
    data = sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()
    text, encoding = decoded(data, name, given.encoding)
    known = [columns.id, columns.time, *columns.targets, *columns.past, *(columns.future or ())]
    dialect = dialect_of(text, given, known, [columns.id, columns.time])
    head = dialect.header
    again = next((c for i, c in enumerate(head) if c in head[:i]), None)
    if again is not None:
        raise ColumnError(f"{name}: expected every column once, found {again!r} twice.")
    check_widths(text, dialect, name)
    as_text = [columns.id] + ([columns.time] if given.date_format else [])
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=dialect.sep,
            decimal=dialect.decimal or ".",
            skipinitialspace=dialect.blanks,
            dtype={column: str for column in as_text if column in head},
            # NA and 007 are good names of a series, and stay as they stand
            na_values={name: [""] if name == columns.id else MISSING for name in head},
            keep_default_na=False,
            index_col=False,
            low_memory=False,
            header=0,
            names=list(head) or None,
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, csv.Error) as error:
        about = f", read with {dialect.words}" if dialect.words else ""
        raise Failure(f"{name} is no readable CSV{about}: {error}") from error
    dialect = replace(dialect, encoding=encoding)
    lines = text.rstrip("\r\n").count("\n") == len(frame)
    return Source(frame, name, lines=lines, dialect=dialect)


def _dated(source: Source, column: str, specification: str | None) -> Source:
    """The table with text as time stamps, ISO 8601 or of a format; numbers and stamps stay."""
    import pandas as pd

    text = source.frame[column]
    if not _is_text(text):
        return source
    there = pd.Series(text).notna()
    if specification is None:
        stamps = _iso(source, column)
    else:
        try:
            stamps = pd.to_datetime(text, format=specification, errors="coerce")
        except ValueError as error:
            raise usage(f"{specification!r}: {error}.", "--date-format") from error
    bad = stamps.isna() & there
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise TimeError(
            f"{source.name}: column {column!r}, {source.place(row)}: expected "
            f"{_expected(specification)}, found {text[row]!r}. "
            f"{_advice(pd.Series(text[there]), specification)}",
            column=column,
            row=row,
        )
    return replace(source, frame=source.frame.assign(**{column: stamps}))


def _iso(source: Source, column: str) -> "pd.Series":
    """Text of ISO 8601 as time stamps, NaT where it is none."""
    import pandas as pd

    text = source.frame[column]
    zones = text.str.extract(ZONE)[0]
    bare = text.notna() & zones.isna()
    if bare.any() and zones.notna().any():
        row = int(bare.to_numpy().argmax())
        raise TimeError(
            f"{source.name}: column {column!r}, {source.place(row)}: expected a time zone as in "
            f"other rows, found {text[row]!r}. Give all rows one, or none.",
            column=column,
            row=row,
        )
    utc = zones.nunique() > 1  # offsets that differ, as in summer and winter, meet in UTC
    return pd.to_datetime(text, format="ISO8601", errors="coerce", utc=utc)


def _expected(specification: str | None) -> str:
    if specification is not None:
        return f"a date written as {specification}"
    return "an integer or a date such as 2024-01-31 or 2024-01-31T12:00"


def _advice(dates: "pd.Series", specification: str | None) -> str:
    """What to do about dates that cannot be read."""
    ways = [
        f"--date-format '{way}'" for way in formats_of(dates.astype(str)) if way != specification
    ]
    if ways:
        return f"Say how dates are written, {' or '.join(ways[:2])}, or use ISO 8601."
    if specification is not None:
        return "Correct it, or give another --date-format."
    return "Write dates in this way (ISO 8601), or say how they are written with --date-format."


def _is_text(column: "pd.Series") -> bool:
    import narwhals as nw

    from seqlatent.forecasting.values import is_text

    return is_text(nw.from_native(column, series_only=True))


def _numbered(source: Source, names: list[str]) -> Source:
    """The table, if no column that must hold numbers holds words."""
    import pandas as pd

    for name in names:
        column = source.frame.get(name)
        if column is None or not _is_text(column):
            continue
        text = pd.Series(column)
        if source.dialect is not None and source.dialect.decimal == ",":
            text = text.where(~text.str.contains(".", regex=False)).str.replace(",", ".")
        numbers = pd.Series(pd.to_numeric(text, errors="coerce"))
        bad = numbers.isna() & column.notna()
        if not bad.any():
            continue
        row = int(bad.to_numpy().argmax())
        raise TargetError(
            f"{source.name}: column {name!r}, {source.place(row)}: expected a number"
            f"{_decimals(source)}, found {column[row]!r}. Correct it, or leave the cell empty if "
            f"the value is missing.{_hint(str(column[row]), source)}",
            column=name,
            row=row,
        )
    return source


def _decimals(source: Source) -> str:
    comma = source.dialect is not None and source.dialect.decimal == ","
    return " with a decimal comma as in other cells" if comma else ""


def _hint(cell: str, source: Source) -> str:
    """What to do about a number that is written in another way."""
    comma = source.dialect is not None and source.dialect.decimal == ","
    if not comma and COMMA.fullmatch(cell):
        return " If that is a decimal comma, say --decimal ','."
    if comma and POINT.fullmatch(cell):
        return " If that is a decimal point, say --decimal '.'."
    return ""
