"""Splits for music that brings none of its own: by artist, from the seed."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mert_core.data.tables import Rows, select
from mert_core.errors import MertError


def assign_splits(rows: Rows, seed: int, valid_fraction: float) -> tuple[pa.ChunkedArray, str]:
    """Divide a manifest's tracks into train and valid.

    Whole artists go to one side; only if there is a single artist, whole pieces do. They are walked in the order of
    a hash of (seed, name), and those that still fit into ``valid_fraction`` of the music are held out; if none
    fits, the shortest is. So the seed decides, a new artist moves few of the old, and one huge artist never
    becomes the validation split.

    Args:
        rows: the manifest, a table or a file; memory is that of its artists, not of its tracks.
        seed: decides who is held out.
        valid_fraction: share of the samples to hold out.

    Returns:
        The split of every row, and the column that it goes by (``artist`` or ``piece``).

    Raises:
        MertError: there is only one piece, so nothing can be held out.
    """
    for column in ("artist", "piece"):
        table = select(rows, column, "samples")
        grouped = table.group_by(column).aggregate([("samples", "sum")])
        if len(grouped) > 1:
            break
    else:
        raise MertError(
            f"the only usable piece is {select(rows, 'source')['source'][0].as_py()!r}; at least two are needed, "
            "because one is held out for validation. Add a file, or cut this one in two."
        )
    held_out = _held_out(grouped[column], grouped["samples_sum"].to_numpy(), seed, valid_fraction)
    is_valid = pc.is_in(table[column], value_set=grouped[column].combine_chunks().take(pa.array(held_out)))
    return pc.if_else(is_valid, "valid", "train"), column


def _held_out(names: pa.ChunkedArray, samples: np.ndarray, seed: int, valid_fraction: float) -> list[int]:
    """Return which names, by their number, are held out."""
    start = hashlib.sha256(f"{seed}:".encode())
    keys = []
    for name in names:
        hashed = start.copy()
        hashed.update(name.as_buffer())
        keys.append(hashed.digest())
    order = np.argsort(np.frombuffer(b"".join(keys), dtype="S32"))
    room = valid_fraction * int(samples.sum())
    held_out = []
    for number in order.tolist():
        if samples[number] <= room:
            held_out.append(number)
            room -= int(samples[number])
    if not held_out or len(held_out) == len(samples):
        shortest = np.flatnonzero(samples[order] == samples.min())[0]
        held_out = [int(order[shortest])]
    return held_out
