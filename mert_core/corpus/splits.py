"""Splits for music that brings none of its own: by artist, from the seed."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from mert_core.errors import MertError


def assign_splits(table: pa.Table, seed: int, valid_fraction: float) -> tuple[pa.Table, str]:
    """Fill the split column of a manifest with train and valid.

    Whole artists go to one side; only if there is a single artist, whole pieces do. They are walked in the order of
    a hash of (seed, name), and those that still fit into ``valid_fraction`` of the music are held out; if none
    fits, the shortest is. So the seed decides, a new artist moves few of the old, and one huge artist never
    becomes the validation split.

    Returns:
        The table and the column that it was split by (``artist`` or ``piece``).

    Raises:
        MertError: there is only one piece, so nothing can be held out.
    """
    column = next((name for name in ("artist", "piece") if len(table[name].unique()) > 1), None)
    if column is None:
        raise MertError(
            f"the only usable piece is {table['source'][0].as_py()!r}; at least two are needed, because one is held "
            "out for validation. Add a file, or cut this one in two."
        )
    grouped = table.group_by(column).aggregate([("samples", "sum")])
    length = dict(zip(grouped[column].to_pylist(), grouped["samples_sum"].to_pylist(), strict=True))
    room = valid_fraction * sum(length.values())
    held_out: set[str] = set()
    for name in sorted(length, key=lambda name: (_hash(seed, name), name)):
        if length[name] <= room:
            held_out.add(name)
            room -= length[name]
    if not held_out or len(held_out) == len(length):
        held_out = {min(length, key=lambda name: (length[name], _hash(seed, name), name))}
    split = ["valid" if name in held_out else "train" for name in table[column].to_pylist()]
    return table.set_column(table.schema.get_field_index("split"), "split", pa.array(split, pa.string())), column


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
