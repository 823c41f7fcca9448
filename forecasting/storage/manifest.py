"""Manifest of a model folder: who wrote it, what it holds, and how each file is verified."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqlatent.forecasting.errors import FolderError

__all__ = []

CONFIG = "config.json"
DATA = re.compile(r"[a-z_]+(-\d+)?-[0-9a-f]{32}\.safetensors")
"""Names of files of tensors: their group and the start of their sha256."""
FORMAT = 4
_KIND = "seqlatent forecaster"
_OLD = "forecaster"  # the kind of formats 1 and 2
_AGAIN = "it is damaged or was edited: copy the folder again, or save the model again."


@dataclass(frozen=True)
class Entry:
    """A file of tensors as the manifest knows it.

    Args:
        group: What the tensors are.
        file: Name of the file.
        sha256: Of its content.
        size: Bytes.
        tensors: Type and shape of each tensor.
    """

    group: str
    file: str
    sha256: str
    size: int
    tensors: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, group: str, tensors: Mapping[str, Tensor]) -> tuple["Entry", bytes]:
        """The entry of some tensors, and the content of their file."""
        from safetensors.torch import save

        content = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        file = f"{group}-{digest[:32]}.safetensors"
        return cls(group, file, digest, len(content), _kinds(tensors)), content

    def tensors_of(self, folder: Path, content: bytes) -> dict[str, Tensor]:
        """Tensors of the file, verified.

        Raises:
            FolderError: If the content is not what was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = folder / self.file
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise FolderError(f"{path}: expected sha256 {self.sha256}, found {digest}; {_AGAIN}")
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise FolderError(f"{path}: expected tensors, found {error}; {_AGAIN}") from error
        if (found := _kinds(tensors)) != dict(self.tensors):
            raise FolderError(f"{path}: expected {self.tensors}, found {found}; {_AGAIN}")
        return tensors


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, Sequence[Any]]:
    return {k: [str(v.dtype).removeprefix("torch."), list(v.shape)] for k, v in tensors.items()}


def manifest(config: dict[str, Any], entries: Sequence[Entry]) -> bytes:
    """Content of the manifest.

    Args:
        config: What the forecaster has to say.
        entries: Files of tensors.
    """
    import seqlatent

    head = {"kind": _KIND, "format": FORMAT}
    head |= {"version": seqlatent.__version__, "torch": torch.__version__}
    whole = head | config | {"files": [asdict(entry) for entry in entries]}
    whole = json.loads(json.dumps(whole))  # as it will be read: keys are text, tuples are lists
    return json.dumps(whole | {"sha256": _digest(whole)}, indent=1).encode()


def _digest(config: dict[str, Any]) -> str:
    """Checksum of what a manifest says, but for the checksum itself."""
    rest = {k: v for k, v in config.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def config_of(folder: Path, content: bytes) -> dict[str, Any]:
    """Reads a manifest, and verifies that it is ours, of this format, and as it was written.

    Raises:
        FolderError: If it is not.
    """
    path = folder / CONFIG
    try:
        config = json.loads(content.decode("utf-8"))
        digest = _digest(config) if isinstance(config, dict) else ""
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested without end
        raise FolderError(f"{path}: expected JSON, found none: {error}; {_AGAIN}") from error
    if not isinstance(config, dict) or config.get("kind") not in (_KIND, _OLD):
        raise FolderError(f"{path}: expected a manifest that Forecaster.save wrote, found another.")
    found = config.get("format")
    if type(found) is not int or found < 1:
        raise FolderError(f"{path}: expected format {FORMAT}, found {found!r}; {_AGAIN}")
    if found > FORMAT:
        raise FolderError(
            f"{path}: this version reads format {FORMAT}, found {found}; upgrade seqlatent."
        )
    if found < FORMAT:
        raise FolderError(
            f"{path}: this version reads format {FORMAT}, found {found}, whose parts have other "
            "names; fit the forecaster again, and save it at another place."
        )
    if config.get("sha256") != digest:
        raise FolderError(f"{path}: expected the checksum of its content, found another; {_AGAIN}")
    return config


def written(folder: Path, config: dict[str, Any]) -> list[Entry]:
    """Files that a manifest names.

    Raises:
        FolderError: If they are not called as files of a model are.
    """
    try:
        entries = [Entry(**entry) for entry in config["files"]]
        wrong = [e.file for e in entries if not DATA.fullmatch(e.file)]
    except (KeyError, TypeError) as error:
        raise FolderError(f"{folder / CONFIG}: expected a list of files; {_AGAIN}") from error
    if wrong:
        raise FolderError(f"{folder / CONFIG}: expected names of files, found {wrong}; {_AGAIN}")
    return entries
