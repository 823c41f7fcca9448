"""Belief, from which a rollout starts, and the rows that follow it."""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence as Collection
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from seqlatent.capacity import brief, shortage
from seqlatent.files import write_whole
from seqlatent.inference.base import Latest
from seqlatent.sequences import Sequences

__all__ = ["Belief"]

_FORMAT = 2


@dataclass(frozen=True)
class Belief:
    """All that the past says about the future: latent state, memory, time, last observation.

    Its size does not grow with the past. A fitted model turns it into forecasts, and into a newer
    belief when rows arrive.

    Args:
        latest: Latent state.
        memory: State of the memory, leading axis ``(B,)``.
        y: Last observation ``(B, D)``, in the units of the data.
        observed: Which cells of it were seen ``(B, D)``.
        t: Time of the last step ``(B,)``, float64.
        u: Covariates of the last step ``(B, U)``.
        codes: Static codes ``(B, C)``.
        shift: Location ``(B, D)``.
        scale: Scale ``(B, D)``.

    Example:
        >>> model = seqlatent.zoo.structural()
        >>> belief = model.belief(Sequences.of(torch.zeros(2, 5, 1)))
        >>> row = Sequences.of(torch.ones(2, 1, 1), t=torch.tensor([5.0]))
        >>> model.update(belief, row).t
        tensor([5., 5.], dtype=torch.float64)
    """

    latest: Latest
    memory: tuple[Tensor, ...]
    y: Tensor
    observed: Tensor
    t: Tensor
    u: Tensor
    codes: Tensor
    shift: Tensor
    scale: Tensor

    @property
    def batch(self) -> int:
        """Number of series ``B``."""
        return self.y.shape[0]

    def select(self, index: Tensor | slice) -> "Belief":
        """Picks series by index, mask or slice."""
        own = {name: getattr(self, name)[index] for name in _OWN}
        return Belief(self.latest.select(index), tuple(s[index] for s in self.memory), **own)

    @classmethod
    def join(cls, beliefs: Collection["Belief"]) -> "Belief":
        """Puts beliefs of one model behind one another, series after series.

        Args:
            beliefs: Beliefs with states of the same kind.

        Raises:
            ValueError: If there is none, or their states differ in kind.
        """
        if not beliefs:
            raise ValueError("join needs at least one belief, found none.")
        latest = Latest.join([b.latest for b in beliefs])
        own = {name: torch.cat([getattr(b, name) for b in beliefs]) for name in _OWN}
        memory = tuple(torch.cat(s) for s in zip(*(b.memory for b in beliefs), strict=True))
        return cls(latest, memory, **own)

    def tensors(self) -> dict[str, Tensor]:
        """All that it is made of, by name."""
        tensors = {name: getattr(self, name) for name in _OWN}
        tensors.update({f"memory.{i}": s for i, s in enumerate(self.memory)})
        tensors.update({f"encoder.{i}": s for i, s in enumerate(self.latest.encoder)})
        for name in _LATEST:
            value = getattr(self.latest, name)
            if value is not None:
                tensors[f"latest.{name}"] = value
        return tensors

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "Belief":
        """Reads what :meth:`tensors` gave.

        Args:
            tensors: Tensors by name.

        Raises:
            KeyError: If one is missing.
        """
        mean, cov, values, log_weights = (tensors.get(f"latest.{name}") for name in _LATEST[:-1])
        encoder = _numbered("encoder", tensors)
        return cls(
            latest=Latest(mean, cov, values, log_weights, tensors["latest.started"], encoder),
            memory=_numbered("memory", tensors),
            **{name: tensors[name] for name in _OWN},
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the belief as safetensors; an older file stays until the new one is complete.

        Args:
            path: File to write, usually ``belief.safetensors``; where it is a symbolic link, the
                file that it leads to is replaced.

        Raises:
            OSError: If it cannot be written.
        """
        from safetensors.torch import save

        tensors = {k: x.detach().cpu().contiguous().clone() for k, x in self.tensors().items()}
        header = {"kind": "belief", "format": _FORMAT, "sha256": _digest(tensors)}
        write_whole(Path(path), save(tensors, metadata={"seqlatent": json.dumps(header)}))

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str = "cpu") -> "Belief":
        """Reads a belief that :meth:`save` wrote.

        Args:
            path: File to read.
            device: Where to put it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, is no belief, or has a newer format.
        """
        from safetensors import SafetensorError, safe_open

        target = Path(path)
        if not target.is_file():
            raise FileNotFoundError(f"no belief at {target}; write one with Belief.save.")
        try:
            with safe_open(target, framework="pt") as file:
                header = (file.metadata() or {}).get("seqlatent")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{target} is no readable safetensors file ({error}); it is damaged or was cut "
                "short, save it again."
            ) from error
        digest = _require_header(target, header)
        missing = [name for name in (*_OWN, "latest.started") if name not in tensors]
        if missing:
            raise ValueError(f"{target} lacks {', '.join(missing)}; it is damaged, save it again.")
        if digest != _digest(tensors):
            raise ValueError(
                f"{target} does not have the checksum that it was saved with; it is damaged, save "
                "it again."
            )
        return cls.of_tensors({name: x.to(device) for name, x in tensors.items()})


_OWN = ("y", "observed", "t", "u", "codes", "shift", "scale")
_LATEST = ("mean", "cov", "values", "log_weights", "started")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Checksum of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        found.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        found.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _numbered(prefix: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    names = [name for name in tensors if name.startswith(f"{prefix}.")]
    return tuple(tensors[f"{prefix}.{i}"] for i in range(len(names)))


def _require_header(path: Path, header: str | None) -> str:
    """The checksum that the tensors must have."""
    try:
        found = json.loads(header) if header else {}
    except (ValueError, RecursionError):
        found = {}
    if not isinstance(found, dict) or found.get("kind") != "belief":
        raise ValueError(
            f"{path} holds no seqlatent belief; expected a file that Belief.save wrote."
        )
    if found.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has belief format {found.get('format')}, this version of seqlatent reads "
            f"format {_FORMAT}; upgrade seqlatent, or filter the data again."
        )
    return str(found.get("sha256"))


def continuing(belief: Belief, rows: Sequences) -> Sequences:
    """Rows under the belief's codes, shift and scale, checked to come after its last row."""
    if rows.batch != belief.batch:
        raise ValueError(
            f"the belief has {belief.batch} series, the rows have {rows.batch}; pick them with "
            "belief.select(...)."
        )
    if rows.steps < 1:
        raise ValueError("an update needs at least one row.")
    if rows.covariate_dim != belief.u.shape[1]:
        raise ValueError(
            f"the belief has {belief.u.shape[1]} covariates, the rows have {rows.covariate_dim}."
        )
    early = rows.t[:, 0] <= belief.t
    if bool(early.any()):
        b = int(early.nonzero()[0])
        raise ValueError(
            f"rows must come after the belief: series {b} stands at t={belief.t[b].item():g}, and "
            f"its first row has t={rows.t[b, 0].item():g}; give the rows their times with "
            "Sequences.of(..., t=...)."
        )
    return Sequences(
        rows.y, rows.observed, rows.t, rows.u, belief.codes, belief.shift, belief.scale
    )


def require_room(belief: Belief, horizon: int, numbers: int, n: int | None = None) -> None:
    """Makes sure that what is said of the future fits into memory.

    Args:
        belief: Where the past left off.
        horizon: Steps ahead.
        numbers: How many are held for each step of a series or, with ``n``, of a path.
        n: Paths.

    Raises:
        ValueError: If it does not; the text says how much it would take.
    """
    text = shortage(belief.y.element_size() * belief.batch * horizon * numbers * (n or 1))
    if text:
        name = "horizon" if n is None or horizon > n else "n"
        what = "states" if n is None else f"{brief(n)} paths"
        raise ValueError(
            f"{name} must leave {what} that fit into memory: {belief.batch} series x "
            f"{brief(horizon)} steps need at least {text}; ask for fewer steps"
            f"{'' if n is None else ' or paths'}, or for some of the series at a time."
        )


def upcoming(belief: Belief, horizon: int, u: Tensor | None, t: Tensor | None) -> Sequences:
    """Unobserved rows after the belief."""
    require_room(belief, horizon, belief.y.shape[1] + belief.u.shape[1] + 1)
    if u is None and belief.u.shape[1]:
        raise ValueError(
            f"the model was filtered with {belief.u.shape[1]} covariates: give those of the future "
            f"as u, shape ({belief.batch}, {horizon}, {belief.u.shape[1]})."
        )
    now = Sequences(
        belief.y[:, None],
        belief.observed[:, None],
        belief.t[:, None],
        belief.u[:, None],
        belief.codes,
        belief.shift,
        belief.scale,
    )
    return now.extend(horizon, u=u, t=t).window(1, horizon + 1)
