"""The manifest: one row per track, in the order of the shards, and the promises that it must keep.

It is written and checked from files, of which functions hold a few numbers per track and a row group's text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.tables import hash_column, in_groups, read_table
from mert_core.errors import MertError
from mert_core.files import atomic_path

MANIFEST_NAME = "manifest.parquet"
ROWS_NAME = ".rows.parquet"  # tracks without splits, while a corpus is being written
SHARDS_NAME = "shards"
SPLITS = ("train", "valid", "test")
GROUP_ROWS = 65536  # of one Parquet row group: what a reader holds at a time

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("content_hash", pa.string()),  # SHA-256 of the track's int16 bytes
        ("seconds", pa.float64()),  # at 24 kHz, as stored
        ("samples", pa.int64()),
        ("clipped_samples", pa.int64()),  # how many lay outside [-1, 1]
        ("source_rate", pa.int32()),  # hertz, of the source itself
        ("source", pa.string()),
        ("source_sha256", pa.string()),  # of the source file's bytes; null for music that is performed
        ("piece", pa.string()),
        ("artist", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("shard", pa.int32()),
        ("offset_samples", pa.int64()),
    ]
)


def split_numbers(splits: pa.ChunkedArray) -> NDArray[np.int8]:
    """Return the index into `SPLITS` of each split (tracks,); -1 for what is none of them."""
    return pc.index_in(splits, pa.array(SPLITS)).fill_null(-1).to_numpy().astype(np.int8)


def write_manifest(folder: Path, rows: Path, splits: pa.Array | pa.ChunkedArray | None = None) -> None:
    """Write a manifest row group by row group and check it. The rows that a `CorpusWriter` left are removed.

    Args:
        folder: folder of the corpus.
        rows: Parquet file of one row per track.
        splits: one split per row, in place of the column ``split``; None keeps the column.

    Raises:
        MertError: it breaks a promise, and nothing is written; see `check_manifest`.
    """
    column = SCHEMA.get_field_index("split")
    with atomic_path(folder / MANIFEST_NAME) as temporary:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            first = 0
            for group in in_groups(rows, GROUP_ROWS):
                if splits is not None:
                    group = group.set_column(column, SCHEMA.field(column), splits.slice(first, len(group)))
                # one chunk per column: the bytes must not depend on how the rows came
                writer.write_table(group.combine_chunks(), row_group_size=GROUP_ROWS)
                first += len(group)
        check_manifest(temporary)
    (folder / ROWS_NAME).unlink(missing_ok=True)


def check_manifest(path: Path) -> None:
    """Check what every later stage relies on.

    Raises:
        MertError: naming the rows, when ids are not unique, a split is unknown, a piece or the same audio is in
            two splits, or a track does not lie on the frame grid or overlaps another.
    """
    table = read_table(path, "split", "shard", "offset_samples", "samples", "seconds")
    if not len(table):
        raise MertError("the manifest has no tracks")
    shard, start, samples, seconds = (table[name].to_numpy() for name in table.column_names[1:])
    splits = split_numbers(table["split"])

    unknown = sorted(set(table["split"].unique().to_pylist()) - set(SPLITS), key=str)
    off_grid = (samples <= 0) | (samples % HOP_SAMPLES != 0) | (start < 0) | (start % HOP_SAMPLES != 0)
    off_grid |= np.abs(seconds * SAMPLE_RATE - samples) > 0.5
    # each track beside the one before it in its shard
    order = np.lexsort((start, shard))
    shard, start, end = shard[order], start[order], (start + samples)[order]
    overlapping = order[1:][(shard[1:] == shard[:-1]) & (start[1:] < end[:-1])]

    def ids(rows: NDArray[np.int64]) -> list[str]:
        return read_table(path, "track_id")["track_id"].take(pa.array(rows)).to_pylist() if len(rows) else []

    problems = {
        "track_id is not unique: {}": _repeated(path, "track_id"),
        f"unknown split {{}}; expected {', '.join(SPLITS)}": unknown,
        "piece in more than one split: {}": _repeated(path, "piece", splits),
        "content_hash in more than one split: {}": _repeated(path, "content_hash", splits),
        f"not on the {HOP_SAMPLES}-sample grid, or seconds and samples differ: {{}}": ids(np.flatnonzero(off_grid)),
        "tracks overlap in their shard: {}": ids(overlapping),
    }
    lines = [f"  {text.format(_some(values))}" for text, values in problems.items() if values]
    if lines:
        raise MertError("\n".join(["the manifest breaks its promises:", *lines]))


def _some(values: list[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _repeated(path: Path, column: str, splits: NDArray[np.int8] | None = None) -> list[str]:
    """Return the texts that several rows of a column have, or rows of several splits (tracks,) if given; sorted.

    Texts are compared by their hashes. Only if hashes agree the texts are read: in a good manifest, never.
    """
    hashes = hash_column(path, column)
    groups = [hashes] if splits is None else [np.unique(hashes[splits == number]) for number in range(len(SPLITS))]
    values, counts = np.unique(np.concatenate(groups), return_counts=True)
    if counts.max(initial=1) == 1:
        return []
    rows = np.flatnonzero(np.isin(hashes, values[counts > 1]))
    texts = read_table(path, column)[column].take(pa.array(rows)).to_pylist()
    # every text once for each row, or once for each split that has it
    pairs = set(zip(texts, (rows if splits is None else splits[rows]).tolist(), strict=True))
    return sorted(text for text, count in Counter(text for text, _ in pairs).items() if count > 1)
