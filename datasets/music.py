"""Polyphonic music: piano rolls as batches of binary sequences."""

import os
from typing import TYPE_CHECKING

import torch

from seqlatent.datasets.archive import load
from seqlatent.datasets.catalogue import Dataset, require_dataset
from seqlatent.sequences import Sequences

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "valid", "test")


def piano_rolls(
    name: str | Dataset,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    steps: int | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Sequences]:
    """Loads polyphonic music as binary sequences of 88 keys.

    The sets are ``"jsb_chorales"``, ``"nottingham"`` and ``"musedata"``. Each piece is a series, 1
    where a key sounds (A0 first, C8 last) and 0 where not; shorter pieces are padded with
    unobserved steps. Pieces of Nottingham and MuseData have up to 1793 and 4273 steps while most
    have a few hundred, so whole splits take up to 0.6 and 0.8 GB in float32: ``steps`` cuts long
    pieces into consecutive ones instead.

    Args:
        name: Name of the set.
        root: Folder to look in first, and to download to.
        download: Whether a set that is not found may be downloaded.
        steps: Longest piece; longer ones are cut into several, of which only the last may be
            shorter.
        dtype: Floating type of the values; torch's default by default.

    Shape:
        Values ``(B, T, 88)`` in each of ``"train"``, ``"valid"`` and ``"test"``.

    References:
        Modeling Temporal Dependencies in High-Dimensional Sequences (Boulanger-Lewandowski et al.,
            2012).
    """
    if steps is not None and steps < 1:
        raise ValueError(
            f"steps must be at least 1 or None, found {steps}; 200 keeps most pieces whole."
        )
    dataset = require_dataset(name)
    frame = load(dataset, root=root, download=download)
    keys = [c for c in frame.columns if c[0] == "p" and c[1:].isdigit()]
    if not keys or not {"split", "seq", "t"} <= set(frame.columns):
        raise ValueError(
            f"name must be a set of piano rolls, found {dataset.name!r}; use 'jsb_chorales', "
            "'nottingham' or 'musedata'."
        )
    return {part: _pad(frame.loc[frame["split"] == part], keys, steps, dtype) for part in SPLITS}


def _pad(
    frame: "pd.DataFrame", keys: list[str], steps: int | None, dtype: torch.dtype | None
) -> Sequences:
    import numpy as np

    t = frame["t"].to_numpy(np.int64)
    longest = int(t.max()) + 1
    limit = longest if steps is None else min(steps, longest)
    step = t % limit
    row = np.cumsum(step == 0) - 1  # every piece, and every part of one, begins with step 0
    where = torch.from_numpy(row), torch.from_numpy(step)
    values = torch.tensor(frame[keys].to_numpy(np.bool_))
    y = torch.zeros(int(row[-1]) + 1, limit, len(keys), dtype=dtype or torch.get_default_dtype())
    y[where] = values.to(y.dtype)
    observed = torch.zeros(y.shape, dtype=torch.bool)
    observed[where] = True
    return Sequences.of(y, observed=observed)
