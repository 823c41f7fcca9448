"""Model folders: JSON beside safetensors, replaced whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from seqlatent.forecasting.errors import FolderError

__all__ = ["FORMAT", "read_config", "read_tensors", "write_folder", "write_tensors"]

FORMAT = 2
_CONFIG = "config.json"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads tensors, onto the CPU.

    Raises:
        FolderError: If the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FolderError(f"{path.parent} lacks {path.name}; it is incomplete, save it again.")
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise FolderError(f"{path} is damaged ({error}); save the model again.") from error


def write_folder(folder: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Writes a model folder; an older one stays until the new one is complete.

    Args:
        folder: Where to.
        write: Writes tensors into an empty folder, and returns what goes to ``config.json``.

    Raises:
        FolderError: If there is something at this place that is no model folder.
    """
    if folder.exists() and not (folder / _CONFIG).is_file() and not _empty(folder):
        raise FolderError(
            f"expected a model folder or nothing at {folder}, found other files; "
            "choose another place, or empty it first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        config = {"kind": "forecaster", "format": FORMAT} | write(draft)
        (draft / _CONFIG).write_text(json.dumps(config, indent=1))
        draft.chmod(0o755)
        for file in draft.rglob("*.safetensors"):
            file.chmod(0o644)  # as other files are, and not for their writer alone
        if folder.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            old = retired / "old"
            folder.rename(old)
            try:
                draft.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            finally:
                shutil.rmtree(retired, ignore_errors=True)
        else:
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``config.json`` and verifies that it is ours.

    Raises:
        FolderError: If the folder is missing, damaged, foreign, or of a newer version.
    """
    path = folder / _CONFIG
    if not path.is_file():
        raise FolderError(f"expected a model folder with {_CONFIG} at {folder}, found none.")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise FolderError(f"{path} is no JSON ({error}); it is damaged, save again.") from error
    if not isinstance(config, dict) or config.get("kind") != "forecaster":
        raise FolderError(f"{folder} was not written by Forecaster.save.")
    found = config.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise FolderError(
            f"{folder} has format {found!r}, this version reads up to {FORMAT}; upgrade seqlatent."
        )
    if found < FORMAT:
        raise FolderError(
            f"{folder} has format {found}, whose states carry no rows; this version reads "
            f"{FORMAT}: fit and save the forecaster again."
        )
    return config
