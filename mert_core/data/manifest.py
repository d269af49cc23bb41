"""The manifest: one row per track, in the order of the shards, and the promises that it must keep.

Functions take a manifest as a table or as its file; of a file they hold a few numbers per track and a row group's text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.tables import Rows, count_rows, in_groups, repeated, select, with_several
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


def write_manifest(folder: Path, rows: Rows, splits: pa.Array | pa.ChunkedArray | None = None) -> None:
    """Write a manifest row group by row group and check it. The rows that a `CorpusWriter` left are removed.

    Args:
        folder: folder of the corpus.
        rows: one row per track, a table or a Parquet file.
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


def check_manifest(rows: Rows) -> None:
    """Check what every later stage relies on.

    Raises:
        MertError: naming the rows, when ids are not unique, a split is unknown, a piece or the same audio is in
            two splits, or a track does not lie on the frame grid or overlaps another.
    """
    if count_rows(rows) == 0:
        raise MertError("the manifest has no tracks")
    problems = [
        *_repeated_ids(rows),
        *_unknown_splits(rows),
        *_in_two_splits(rows, "piece"),
        *_in_two_splits(rows, "content_hash"),
        *_off_grid(rows),
        *_overlapping(rows),
    ]
    if problems:
        raise MertError("the manifest breaks its promises:\n" + "\n".join(f"  {problem}" for problem in problems))


def _some(values: list[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _ids(rows: Rows, bad: np.ndarray) -> str:
    return _some(select(rows, "track_id")["track_id"].take(pa.array(bad)).to_pylist())


def _repeated_ids(rows: Rows) -> list[str]:
    ids = repeated(rows, "track_id")
    return [f"track_id is not unique: {_some(ids)}"] if ids else []


def _unknown_splits(rows: Rows) -> list[str]:
    unknown = sorted(set(select(rows, "split")["split"].unique().to_pylist()) - set(SPLITS), key=str)
    return [f"unknown split {_some(unknown)}; expected {', '.join(SPLITS)}"] if unknown else []


def _in_two_splits(rows: Rows, column: str) -> list[str]:
    shared = with_several(rows, column, "split", SPLITS)
    return [f"{column} in more than one split: {_some(shared)}"] if shared else []


def _off_grid(rows: Rows) -> list[str]:
    table = select(rows, "samples", "offset_samples", "seconds")
    samples, offset = table["samples"].to_numpy(), table["offset_samples"].to_numpy()
    bad = (samples <= 0) | (samples % HOP_SAMPLES != 0) | (offset < 0) | (offset % HOP_SAMPLES != 0)
    bad |= np.abs(table["seconds"].to_numpy() * SAMPLE_RATE - samples) > 0.5
    where = np.flatnonzero(bad)
    return (
        [f"not on the {HOP_SAMPLES}-sample grid, or seconds and samples differ: {_ids(rows, where)}"]
        if len(where)
        else []
    )


def _overlapping(rows: Rows) -> list[str]:
    table = select(rows, "shard", "offset_samples", "samples")
    shard, start = table["shard"].to_numpy(), table["offset_samples"].to_numpy()
    order = np.lexsort((start, shard))
    shard, start, end = shard[order], start[order], (start + table["samples"].to_numpy())[order]
    bad = order[1:][(shard[1:] == shard[:-1]) & (start[1:] < end[:-1])]
    return [f"tracks overlap in their shard: {_ids(rows, bad)}"] if len(bad) else []
