"""Files that are there as a whole or not at all, after a power cut too."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DRAFT", "replacing", "synchronise", "write_whole"]

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
    draft = target.with_name(f".seqlatent-{secrets.token_hex(8)}.part")
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
    """Writes a file by :func:`replacing`.

    Args:
        path: The file.
        content: What is to be in it.
    """
    with replacing(path) as draft, draft.open("xb") as file:
        file.write(content)


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
