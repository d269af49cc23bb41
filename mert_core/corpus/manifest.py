"""The manifest: one row per track, and the promises that it must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.audio.pcm import DTYPE, ShardReader, shard_name
from mert_core.audio.remote import RemoteShards
from mert_core.corpus.tables import read_table, write_table
from mert_core.errors import MertError

MANIFEST_NAME = "manifest.parquet"
SHARDS_NAME = "shards"
SPLITS = ("train", "valid", "test")

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("content_hash", pa.string()),  # SHA-256 of the track's int16 bytes
        ("seconds", pa.float64()),  # at 24 kHz, as stored
        ("samples", pa.int64()),
        ("source_rate", pa.int32()),  # hertz, of the source itself
        ("source", pa.string()),
        ("piece", pa.string()),
        ("artist", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("shard", pa.int32()),
        ("offset_samples", pa.int64()),
    ]
)


def write_manifest(folder: Path, table: pa.Table) -> None:
    """Check a manifest and write it.

    Raises:
        MertError: it breaks a promise; see `check_manifest`.
    """
    check_manifest(table)
    write_table(folder / MANIFEST_NAME, table)


def read_manifest(folder: Path, shards: ShardReader | RemoteShards) -> pa.Table:
    """Read a manifest and check that its columns are the known ones and that every shard has the right size.

    Args:
        folder: of the corpus.
        shards: reads the shards, wherever they lie.

    Raises:
        MertError: a file is missing, or the shards are not the manifest's.
    """
    table = read_table(folder / MANIFEST_NAME)
    if not table.schema.equals(SCHEMA):
        raise MertError(f"{folder / MANIFEST_NAME} has other columns than this version writes. Run `dvc repro`.")
    ends = pa.table({"shard": table["shard"], "end": pc.add(table["offset_samples"], table["samples"])})
    sizes = shards.sizes()
    for row in ends.group_by("shard").aggregate([("end", "max")]).to_pylist():
        expected = row["end_max"] * DTYPE.itemsize
        found = sizes.get(shard_name(row["shard"]))
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes"
            where = shards.path(row["shard"])
            raise MertError(f"{where} {state}; the manifest needs {expected} bytes. {shards.remedy}")
    return table


def check_manifest(table: pa.Table) -> None:
    """Check what every later stage relies on.

    Raises:
        MertError: naming the rows, when ids are not unique, a split is unknown, a piece or the same audio is in
            two splits, or a track does not lie on the frame grid or overlaps another.
    """
    if table.num_rows == 0:
        raise MertError("the manifest has no tracks")
    problems = [
        *_repeated_ids(table),
        *_unknown_splits(table),
        *_in_two_splits(table, "piece"),
        *_in_two_splits(table, "content_hash"),
        *_off_grid(table),
        *_overlapping(table),
    ]
    if problems:
        raise MertError("the manifest breaks its promises:\n" + "\n".join(f"  {problem}" for problem in problems))


def artists_in_two_splits(table: pa.Table) -> list[str]:
    """Return the artists that more than one split has: harmless for composers, a leak for recordings."""
    return _values_in_two_splits(table, "artist")


def _some(values: list[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _repeated_ids(table: pa.Table) -> list[str]:
    counted = table.group_by("track_id").aggregate([("track_id", "count")])
    repeated = counted.filter(pc.greater(counted["track_id_count"], 1))["track_id"].to_pylist()
    return [f"track_id is not unique: {_some(sorted(repeated))}"] if repeated else []


def _unknown_splits(table: pa.Table) -> list[str]:
    unknown = sorted(set(table["split"].unique().to_pylist()) - set(SPLITS), key=str)
    return [f"unknown split {_some(unknown)}; expected {', '.join(SPLITS)}"] if unknown else []


def _values_in_two_splits(table: pa.Table, column: str) -> list[str]:
    counted = table.group_by(column).aggregate([("split", "count_distinct")])
    return sorted(counted.filter(pc.greater(counted["split_count_distinct"], 1))[column].to_pylist())


def _in_two_splits(table: pa.Table, column: str) -> list[str]:
    shared = _values_in_two_splits(table, column)
    return [f"{column} in more than one split: {_some(shared)}"] if shared else []


def _off_grid(table: pa.Table) -> list[str]:
    samples, offset = table["samples"].to_numpy(), table["offset_samples"].to_numpy()
    bad = (samples <= 0) | (samples % HOP_SAMPLES != 0) | (offset < 0) | (offset % HOP_SAMPLES != 0)
    bad |= np.abs(table["seconds"].to_numpy() * SAMPLE_RATE - samples) > 0.5
    ids = table.filter(pa.array(bad))["track_id"].to_pylist()
    return [f"not on the {HOP_SAMPLES}-sample grid, or seconds and samples differ: {_some(ids)}"] if ids else []


def _overlapping(table: pa.Table) -> list[str]:
    order = table.sort_by([("shard", "ascending"), ("offset_samples", "ascending")])
    shard, start = order["shard"].to_numpy(), order["offset_samples"].to_numpy()
    bad = (shard[1:] == shard[:-1]) & (start[1:] < start[:-1] + order["samples"].to_numpy()[:-1])
    ids = order["track_id"].take(pa.array(np.flatnonzero(bad) + 1)).to_pylist()
    return [f"tracks overlap in their shard: {_some(ids)}"] if ids else []
