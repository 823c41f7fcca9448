"""Files: tables written whole or not at all, and places tested before work begins."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqlatent import files
from seqlatent.forecasting.cli.messages import Failure, usage

if TYPE_CHECKING:
    import pandas as pd

__all__ = []

PARQUET = (".parquet", ".pq")
TABLES = (".csv", *PARQUET)
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")


def check_place(place: str | None, option: str, *, picture: bool = False) -> None:
    """Finds out before any work whether a file can be written.

    Raises:
        typer.BadParameter: If the suffix is none that is known.
        Failure: If the folder is missing, or the place is taken by one.
    """
    if place is None or (place == "-" and not picture):
        return
    path = Path(place)
    suffixes = PICTURES if picture else TABLES
    if path.suffix.lower() not in suffixes and _regular(path):
        raise usage(f"expected a name that ends in {_listed(suffixes)}, found {place!r}.", option)
    if path.suffix.lower() in PARQUET:
        check_parquet(place)
    if path.is_dir():
        raise Failure(f"{option} must name a file, found the folder {place}.")
    if not path.parent.is_dir():
        raise Failure(f"{option} {place}: there is no folder {path.parent}; make it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Failure(f"{option} {place}: permission denied.")


def check_apart(results: Mapping[str, str | None], sources: Mapping[str, str | None]) -> None:
    """Makes sure that no result replaces a table that is read, or another result.

    Args:
        results: Places of results, by their options.
        sources: Places of what is read, by their options.

    Raises:
        Failure: If two are one file.
    """
    seen: dict[str, str] = {}
    for kind in (sources, results):
        for option, place in kind.items():
            if (
                place is None
                or place == "-"
                or (os.path.exists(place) and not _regular(Path(place)))
            ):
                continue
            real = os.path.realpath(place)
            if kind is results and real in seen:
                raise Failure(
                    f"{option} {place} would replace what {seen[real]} names; choose another file."
                )
            seen[real] = option


def check_folder(place: str | None, option: str) -> None:
    """Finds out before any work whether a model can be saved in a folder.

    Raises:
        Failure: If something else is there.
    """
    if place is None:
        return
    from seqlatent.forecasting.errors import FolderError
    from seqlatent.forecasting.storage.folder import require_place

    path = Path(place).resolve()
    try:
        require_place(path)
    except FolderError as error:
        raise Failure(f"{option} {place}: {error}") from error
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise Failure(f"{option} {place}: permission denied.")


def check_parquet(place: str) -> None:
    """Makes sure that parquet can be read and written."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise Failure(
            f"{place} needs pyarrow, which is not installed; pip install 'seqlatent[parquet]', or "
            "use a .csv file."
        ) from error


def write_table(frame: Any, place: str) -> None:
    """Writes a frame as CSV or parquet by its suffix; ``-`` is CSV on stdout."""
    frame = _pandas(frame)
    if place == "-":
        frame.to_csv(sys.stdout, index=False)
        return
    with replacing(Path(place)) as draft:
        if Path(place).suffix.lower() in PARQUET:
            frame.to_parquet(draft, index=False)
        else:
            frame.to_csv(draft, index=False, compression=None)


def write_figure(figure: Any, place: str) -> None:
    """Writes a picture in the format of its suffix."""
    with replacing(Path(place)) as draft:
        figure.savefig(draft, format=Path(place).suffix.lower().removeprefix("."))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a place beside a file to write to, which becomes the file when all is well.

    What is no regular file, a pipe or a device, is written to as it is.

    Raises:
        Failure: If the file cannot be written; an older one is still there then.
    """
    path = Path(os.path.realpath(path))
    try:
        with files.replacing(path) if _regular(path) else nullcontext(path) as draft:
            yield draft
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}.") from error


def _regular(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _pandas(frame: Any) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        return frame
    return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
