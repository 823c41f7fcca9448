"""Files that are there as a whole or not at all, after a power cut too."""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["DRAFT", "alone", "replacing", "synchronise", "write_beside", "write_whole"]

DRAFT = re.compile(r"\.seqlatent-[0-9a-f]{16}\.part")
"""Names of files that are being written, or were when a process was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a place beside a file to write to, which becomes the file when all is well.

    The file then has the permissions of the one that it replaces, or those of any new file. Where
    the path is a symbolic link, the file that it leads to is replaced.

    Args:
        path: The file.

    Raises:
        OSError: If the file cannot be written; an older one is as it was then.
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".seqlatent-{_mark(target)}{secrets.token_hex(4)}.part")
    try:
        yield draft
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        synchronise(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    synchronise(target.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file by :func:`replacing`, and removes what calls that were killed left of it.

    Args:
        path: The file.
        content: What is to be in it.
    """
    target = Path(os.path.realpath(path))
    with alone(target.parent):
        # whoever else writes this file waits: these are nobody's
        for draft in target.parent.glob(f".seqlatent-{_mark(target)}*.part"):
            if DRAFT.fullmatch(draft.name):
                with suppress(OSError):
                    draft.unlink()
        write_beside(target, content)


def write_beside(path: Path, content: bytes) -> None:
    """Writes a file by :func:`replacing`, for whoever is alone in its folder already."""
    with replacing(path) as draft, draft.open("xb") as file:
        file.write(content)


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Lets one process at a time write whole files in a folder, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _mark(target: Path) -> str:
    """What names of drafts of a file have in common."""
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def synchronise(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # some file systems cannot wait for names
    finally:
        os.close(handle)
