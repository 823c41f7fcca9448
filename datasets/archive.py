"""Loading benchmark sets: from a folder, the cache or the public source files; always checked."""

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from seqlatent.datasets.catalogue import Dataset, Source, require_dataset
from seqlatent.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "SEQLATENT_DATA"

Opener = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens an address for reading: ``urllib.request.urlopen`` and all that are called like it."""


def load(
    name: str | Dataset,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    opener: Opener | None = None,
) -> "pd.DataFrame":
    """Loads a benchmark set as it is stored, wide or long.

    A set is looked for in ``root``, then in the folder that the environment variable
    ``SEQLATENT_DATA`` names, then in :func:`cache_folder`; as its parquet file, or as its source
    files in a subfolder of its name. What is not found is downloaded from the public source files
    where these can be converted here, and stored in ``root`` where it is given, in the cache where
    it is not. Every file is checked against its sha256 before it is read or stored.

    Args:
        name: Name of a set in :func:`catalogue`, or a :class:`Dataset`.
        root: Folder to look in first, and to download to.
        download: Whether a set that is not found may be downloaded.
        opener: Opens an address, for proxies and mirrors; ``urllib.request.urlopen`` by default.

    Raises:
        FileNotFoundError: If the set is not found and cannot or may not be downloaded.
        ConnectionError: If the download fails; nothing is stored then.
        ValueError: If there is no such set, or a file does not have its checksum.
        ImportError: If the file is parquet and pyarrow is not installed.
    """
    dataset = require_dataset(name)
    folders = search_folders(root)
    for folder in folders:
        path = folder / dataset.file
        if path.is_file():
            content = path.read_bytes()
            _require_checksum(content, dataset.sha256, str(path), "delete it and load again")
            return _read_parquet(path, content)
        stored = [folder / dataset.name / source.file for source in dataset.sources]
        if dataset.reader is not None and stored and all(p.is_file() for p in stored):
            contents = [p.read_bytes() for p in stored]
            for content, source, p in zip(contents, dataset.sources, stored, strict=True):
                _require_checksum(content, source.sha256, str(p), "delete it and load again")
            return dataset.reader(contents)
    if dataset.reader is None or not dataset.sources or not download:
        raise FileNotFoundError(_not_found(dataset, folders))
    contents = [_download(dataset, source, folders, opener) for source in dataset.sources]
    target = folders[0] if root is not None else cache_folder()
    for content, source in zip(contents, dataset.sources, strict=True):
        path = target / dataset.name / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return dataset.reader(contents)


def cache_folder() -> Path:
    """The user's folder for downloads: ``$XDG_CACHE_HOME/seqlatent``, or ``~/.cache/seqlatent``.

    It is not created before something is stored in it.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "seqlatent"


def search_folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """Where sets are looked for, in order."""
    named = [os.fspath(root) if root is not None else "", os.environ.get(VARIABLE, "")]
    folders = [Path(name).expanduser() for name in named if name] + [cache_folder()]
    return list(dict.fromkeys(folders))


def _download(
    dataset: Dataset, source: Source, folders: list[Path], opener: Opener | None
) -> bytes:
    try:
        with (opener or _open)(source.url) as response:
            content = response.read()
    except (OSError, HTTPException) as error:
        raise ConnectionError(
            f"{_places(dataset, folders)}, and could not be downloaded from {source.url}: "
            f"{error!r}. Check the network and load again, or {_by_hand(dataset)}"
        ) from error
    _require_checksum(content, source.sha256, source.url, "nothing was stored; load again")
    return content


def _open(url: str) -> AbstractContextManager[BinaryIO]:
    from urllib.request import urlopen

    return urlopen(url, timeout=60)


def _read_parquet(path: Path, content: bytes) -> "pd.DataFrame":
    import pandas as pd

    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs pyarrow, which is not installed; run pip install "
            "'seqlatent[parquet]'."
        ) from error
    return pd.read_parquet(io.BytesIO(content), engine="pyarrow")


def _require_checksum(content: bytes, expected: str, where: str, remedy: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{where} must have sha256 {expected}, found {found} ({len(content)} bytes): "
            f"it is damaged, incomplete or another version; {remedy}."
        )


def _places(dataset: Dataset, folders: list[Path]) -> str:
    return f"{dataset.name} was looked for as {dataset.file} in {', '.join(map(str, folders))}"


def _by_hand(dataset: Dataset) -> str:
    return (
        f"put {dataset.file} (sha256 {dataset.sha256}) into one of these folders, or name its "
        f"folder by root=... or the environment variable {VARIABLE}."
    )


def _not_found(dataset: Dataset, folders: list[Path]) -> str:
    if dataset.downloadable:
        return f"{_places(dataset, folders)}; pass download=True, or {_by_hand(dataset)}"
    return (
        f"{_places(dataset, folders)}. It cannot be downloaded, because its source "
        f"({dataset.origin}) is not in a format that can be converted here: {_by_hand(dataset)}"
    )
