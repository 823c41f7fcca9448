"""Sources: tables and where they came from, and errors about them in the words of a user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqlatent.forecasting.cli.dialect import NAMES, Dialect
from seqlatent.forecasting.cli.messages import Failure, usage
from seqlatent.forecasting.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from seqlatent.forecasting.frames.columns import Columns

__all__ = []

# What the library calls things, and what the command line does.
TERMS = (
    (r"Columns\(past=\['([^']*)'\]\)", r"--past \1"),
    (r"Columns\(future=\[\.\.\.\], past=\[\.\.\.\]\)", "--future and --past"),
    (r"Columns\(future=\[\]\)", "leave the columns out with --drop"),
    (r"predict\(df=\.\.\.\)", "a saved model with --load"),
    (r"([,;]) or drop it\.", r"\1 or leave it out with --drop."),
    (r", (df = )?(pd\.get_dummies|df\.to_dummies)\([^)]*\)", ""),
    (r" Make numbers of them, for example with pd\.to_numeric\.", ""),
    (r": df\.drop_duplicates, df\.groupby", ""),
    (r"\bX_df\b", "--x"),
    (r"\bstatic_df\b", "--static"),
    (r"\bfreq=", "--freq"),
    (r"\bfreq:", "--freq:"),
    (r"\bseason_length=", "--season-length"),
)


@dataclass(frozen=True)
class Source:
    """A table and where it came from.

    Args:
        frame: The table.
        name: File, as given.
        lines: Whether row ``i`` is line ``i + 2`` of the file.
        single: Whether it was taken for one series because no column named any.
        dialect: How its text was read; None for parquet.
    """

    frame: "pd.DataFrame"
    name: str
    lines: bool
    single: bool = False
    dialect: Dialect | None = None

    def place(self, row: int) -> str:
        """Words for a row."""
        return f"line {row + 2}" if self.lines else f"row {row}"

    @property
    def parted(self) -> str:
        """Words for what parts its columns."""
        if self.dialect is None or self.dialect.sep is None:
            return ""
        return f" (parted at {NAMES.get(self.dialect.sep, repr(self.dialect.sep))}; see --sep)"

    @property
    def taken(self) -> str:
        """What is unusual about its text, as a line to say; empty if nothing is."""
        words = "" if self.dialect is None else self.dialect.words
        return f"{self.name}: read with {words}" if words else ""


@dataclass(frozen=True)
class Sources:
    """The tables that a command works on.

    Args:
        data: The series.
        x: Covariates known ahead.
        static: Static features.
    """

    data: Source | None = None
    x: Source | None = None
    static: Source | None = None

    def frame(self, name: str) -> Any:
        """One of the tables, or None."""
        source = getattr(self, name)
        return None if source is None else source.frame

    @property
    def taken(self) -> list[str]:
        """What is unusual about the text of the tables, a line each."""
        return [s.taken for s in (self.data, self.x, self.static) if s is not None and s.taken]

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Puts files, lines and options in the place of frames, rows and arguments in errors."""
        try:
            yield
        except DataError as error:
            raise Failure(self.words(error)) from error

    def words(self, error: DataError) -> str:
        """What an error says, to who knows the files but not the library."""
        text = str(error)
        for frame, source in (("df", self.data), ("X_df", self.x), ("static_df", self.static)):
            if source is None or not text.startswith(f"{frame}: "):
                continue
            text = source.name + text.removeprefix(frame)
            if error.row is not None:
                text = text.replace(f", row {error.row}:", f", {source.place(error.row)}:", 1)
        for pattern, words in TERMS:
            text = re.sub(pattern, words, text)
        if self.data is not None and self.data.single:
            text += f" ({self.data.name} was read as one series; --id-col names those of several.)"
        return text


def columns_of(
    id: str | None,
    time: str | None,
    targets: list[str] | None,
    future: list[str] | None,
    past: list[str] | None,
) -> "Columns":
    """Names of the columns as options give them.

    Raises:
        typer.BadParameter: If a name is empty or has two roles.
    """
    from seqlatent.forecasting.frames.columns import Columns

    target = targets or ["y"]
    try:
        return Columns(
            id="unique_id" if id is None else id,
            time="ds" if time is None else time,
            target=target[0] if len(target) == 1 else target,
            future=future or None,
            past=past or (),
        )
    except (TypeError, ValueError) as error:
        raise usage(str(error), "--id-col, --time-col, --target-col, --future, --past") from error
