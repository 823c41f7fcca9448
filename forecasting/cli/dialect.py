"""Dialect: how a table of text is written, given or told by its first lines."""

import codecs
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from seqlatent.forecasting.cli.messages import Failure, usage

__all__ = []

SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LOOKED_AT = 200  # lines from which a dialect is told
COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?|[+-]?\d+\.?(?:[eE][+-]?\d+)")
# How dates are often written elsewhere.
FORMATS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d",
    "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S", "%Y/%m/%d %H:%M", "%d %b %Y", "%b %d, %Y", "%b %Y", "%m/%Y", "%d.%m.%y",
    "%d/%m/%y", "%m/%d/%y",
)  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written; None is told by the table.

    Args:
        sep: What stands between columns.
        decimal: What stands before the decimals of a number.
        encoding: Encoding of the text.
        date_format: How dates are written, in the letters of ``strftime``; None is ISO 8601.
        blanks: Whether blanks follow the separators.
        header: Names of the columns.
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    date_format: str | None = None
    blanks: bool = False
    header: tuple[str, ...] = ()

    def check(self) -> "Dialect":
        """Makes sure that options are what they should be.

        Raises:
            typer.BadParameter: If one is not.
        """
        sep = {"\\t": "\t", "tab": "\t"}.get(self.sep or "", self.sep)
        if sep is not None and len(sep) != 1:
            raise usage(f"expected one character, or tab, found {sep!r}.", "--sep")
        if self.decimal not in (None, ".", ","):
            raise usage(f"expected . or , found {self.decimal!r}.", "--decimal")
        if sep is not None and sep == self.decimal:
            raise usage(f"expected two characters that differ, found {sep!r}.", "--sep, --decimal")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError as error:
            raise usage(f"{error}.", "--encoding") from error
        return replace(self, sep=sep)

    @property
    def words(self) -> str:
        """What it says where that is not what CSV usually is; empty if it is."""
        found = []
        if self.sep not in (None, ","):
            found.append(f"{NAMES.get(self.sep, repr(self.sep))} between columns")
        if self.decimal == ",":
            found.append("decimal commas")
        if self.encoding not in (None, "utf-8", "utf-8-sig"):
            found.append(f"encoding {self.encoding}")
        if self.blanks:
            found.append("blanks after separators, which were left out")
        return ", ".join(found)


def decoded(data: bytes, name: str, encoding: str | None) -> tuple[str, str]:
    """Text and its encoding: the one that was given, that of a byte order mark, or UTF-8.

    Raises:
        Failure: If it is not in this encoding, or its lines end as they did on old Macs.
    """
    mark = next((code for bom, code in BOMS if data.startswith(bom)), None)
    code = encoding or mark or "utf-8"
    if encoding is not None and codecs.lookup(encoding).name == "utf-8":
        code = "utf-8-sig"
    try:
        text = data.decode(code)
    except UnicodeDecodeError as error:
        which = "UTF-8" if encoding is None else encoding
        raise Failure(
            f"{name} is no {which} text: {error}. Say what it is, for example --encoding cp1252 "
            "(Windows in western Europe), or save it as UTF-8."
        ) from error
    if "\r" in text and "\n" not in text:
        raise Failure(
            f"{name}: expected lines that end with a line feed, found carriage returns alone, the "
            "line ends of old Macs. Save it with line ends of today."
        )
    return text, code


def dialect_of(text: str, given: Dialect, wanted: Sequence[str], words: Sequence[str]) -> Dialect:
    """What the first lines of a table tell, where options do not.

    Args:
        text: The table.
        given: Options.
        wanted: Columns that it should have.
        words: Those of them that hold no numbers.
    """
    lines = [line for line in text.splitlines()[:LOOKED_AT] if line.strip()]
    sep = given.sep or _separator(lines, wanted)
    table = _split(lines, sep)
    raw = table[0] if table else []
    header = tuple(name.strip() or f"Unnamed: {i}" for i, name in enumerate(raw))
    header = header if len(set(header)) == len(header) else tuple(raw)
    blanks = any(name != name.lstrip() for name in raw[1:])
    decimal = given.decimal
    if decimal is None and sep != ",":
        keep = [i for i, name in enumerate(header) if name not in words]
        cells = [row[i].strip() for row in table[1:] for i in keep if i < len(row)]
        decimal = "," if _commas(cells) else None
    return replace(given, sep=sep, decimal=decimal, blanks=blanks, header=header)


def check_widths(text: str, dialect: Dialect, name: str) -> None:
    """Makes sure that no line has more cells than there are columns.

    Raises:
        Failure: If one has, as where decimal commas stand in a table with commas.
    """
    width, sep = len(dialect.header), dialect.sep or ","
    reader = csv.reader(text.splitlines(keepends=True), delimiter=sep)
    for row in reader:
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise Failure(
                f"{name}: line {reader.line_num}: expected {width} cells between "
                f"{NAMES.get(sep, repr(sep))}, as the header has, found {len(row)}. Quote cells "
                "that hold the separator, such as decimal commas, or give another --sep."
            )


def formats_of(cells: Iterable[str]) -> list[str]:
    """Formats in which all of some dates may be written."""
    import pandas as pd

    dates = pd.Series(list(cells), dtype=object)
    return [
        specification
        for specification in FORMATS
        if len(dates) and pd.to_datetime(dates, format=specification, errors="coerce").notna().all()
    ]


def _separator(lines: list[str], wanted: Sequence[str]) -> str:
    """What parts the header into the names that are wanted, or the lines into most columns."""

    def fit(sep: str) -> tuple[int, bool, int]:
        table = _split(lines, sep)
        widths = {len(row) for row in table}
        head = {name.strip() for name in table[0]} if table else set()
        columns = len(table[0]) if table else 0
        return len(head & set(wanted)), len(widths) == 1 and columns > 1, columns

    return max(SEPARATORS, key=fit)


def _split(lines: list[str], sep: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=sep, skipinitialspace=False))
    except csv.Error:
        return []


def _commas(cells: Sequence[str]) -> bool:
    """Whether numbers have decimal commas: some do, and none has a point."""
    commas = any(COMMA.fullmatch(cell) for cell in cells)
    return commas and not any(POINT.fullmatch(cell) for cell in cells)
