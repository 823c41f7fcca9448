"""Model folders: files of tensors, and a manifest that names them and is replaced in one step."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from seqlatent.files import DRAFT, alone, synchronise, write_beside
from seqlatent.forecasting.errors import FolderError
from seqlatent.forecasting.storage.manifest import CONFIG, DATA, Entry, config_of, manifest, written

__all__ = ["read_folder", "require_place", "write_folder"]

Groups = Mapping[str, Mapping[str, Tensor]]
"""Tensors by the group that goes to one file, and by their name in it."""


def write_folder(folder: Path, config: dict[str, Any], groups: Groups) -> None:
    """Writes a model folder; an older model is there until the new one is complete.

    Files of tensors are called after their content, so that they never replace one another; the
    manifest names those of the model, and replacing it is the only step that counts. Whatever stops
    this function, a power cut too, leaves the old model or the new one. What an earlier stop has
    left is removed by the next call.

    Args:
        folder: Where to; a symbolic link is followed.
        config: What goes to the manifest, as JSON takes it.
        groups: Tensors, a file for each group.

    Raises:
        FolderError: If something else is there, or the folder cannot be written.
    """
    place = Path(os.path.realpath(folder))
    require_place(folder)
    contents = {group: Entry.of(group, tensors) for group, tensors in groups.items()}
    text = manifest(config, [entry for entry, _ in contents.values()])
    made = [p for p in (place, *place.parents) if not p.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for parent in {p.parent for p in made}:
            synchronise(parent)
        with alone(place):
            before = set(require_place(folder))
            try:
                for entry, content in contents.values():
                    write_beside(place / entry.file, content)
                write_beside(place / CONFIG, text)
            except BaseException:
                _take_back(place, {e.file for e, _ in contents.values()} - before, text)
                raise
            for name in before - {CONFIG, *(e.file for e, _ in contents.values())}:
                with suppress(OSError):  # the next call removes it
                    (place / name).unlink()
    except OSError as error:
        raise FolderError(
            f"the model cannot be saved in {folder}: {error.strerror or error} "
            f"({error.filename or place}). What was there before is as it was; make room or "
            "choose another place."
        ) from error
    finally:
        for path in made:
            with suppress(OSError):  # not empty: all went well
                path.rmdir()


def _take_back(place: Path, names: set[str], text: bytes) -> None:
    """Removes new files of a model whose manifest did not come to be."""
    with suppress(OSError):
        if (place / CONFIG).read_bytes() == text:
            return
    for name in names:
        with suppress(OSError):
            (place / name).unlink(missing_ok=True)


def require_place(folder: Path) -> list[str]:
    """Makes sure that a model can be saved at a place without harm to anything else.

    Args:
        folder: The place.

    Returns:
        Names of the files of a model that are there, those of a stopped save too.

    Raises:
        FolderError: If there is something that ``Forecaster.save`` did not write.
    """
    place = Path(os.path.realpath(folder))
    advice = "choose another place, or move it away first."
    try:
        if not place.is_dir():
            if os.path.lexists(place):
                raise FolderError(
                    f"expected a model folder or nothing at {folder}, found a file; {advice}"
                )
            return []
        names = sorted(os.listdir(place))
        if CONFIG in names:
            _require_ours(place, any(DATA.fullmatch(name) for name in names), advice)
        for name in names:
            ours = name == CONFIG or DATA.fullmatch(name) or DRAFT.fullmatch(name)
            if not ours or not _plain(place / name):
                raise FolderError(
                    f"expected a model folder or nothing at {folder}, found {name!r}, which "
                    f"Forecaster.save did not write and does not delete; {advice}"
                )
    except OSError as error:
        raise FolderError(f"{folder} cannot be read: {error.strerror}; {advice}") from error
    return names


def _plain(path: Path) -> bool:
    """Whether something is a file, or is gone, removed by another process that saves here."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def _require_ours(place: Path, data: bool, advice: str) -> None:
    """Makes sure that the manifest, damaged or not, is one that may be replaced."""
    try:
        config_of(place, _content(place / CONFIG))
    except FolderError as error:
        if data:
            return  # nobody else calls files like that
        raise FolderError(
            f"expected a model folder or nothing at {place}, found a {CONFIG} that is not of a "
            f"model of this version ({error}); {advice}"
        ) from error


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Reads what :func:`write_folder` wrote, and verifies all of it before any of it is used.

    Args:
        folder: The folder.

    Returns:
        The manifest, and tensors on the CPU by their groups.

    Raises:
        FolderError: If anything is missing, damaged or foreign, or of another format; says which
            file, what was expected and what was found.
    """
    text = _content(folder / CONFIG)
    config = config_of(folder, text)
    try:
        found = {
            entry.group: entry.tensors_of(folder, _content(folder / entry.file, entry.size))
            for entry in written(folder, config)
        }
    except FolderError:
        if _content(folder / CONFIG) == text:
            raise
        return read_folder(folder)  # another process has saved a newer model meanwhile
    return config, found


def _content(path: Path, size: int | None = None) -> bytes:
    """Content of a file, which must be one, and of the right size."""
    advice = "; the folder is incomplete or damaged: copy it again, or save the model again."
    try:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            raise FolderError(
                f"{path}: expected a file, found {_KINDS.get(kind, 'a device')}{advice}"
            )
        if size is not None and status.st_size != size:
            raise FolderError(f"{path}: expected {size} bytes, found {status.st_size}{advice}")
        return path.read_bytes()
    except FileNotFoundError as error:
        if not path.parent.exists():
            raise FolderError(
                f"{path.parent}: expected a model folder, found none; name one that "
                "Forecaster.save wrote."
            ) from error
        what = f"a model folder with {CONFIG}" if path.name == CONFIG else "this file of the model"
        raise FolderError(f"{path}: expected {what}, found none{advice}") from error
    except OSError as error:
        raise FolderError(
            f"{path}: expected a file that can be read, found: {error.strerror}; correct its "
            "permissions, or copy the folder again."
        ) from error


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe"}
