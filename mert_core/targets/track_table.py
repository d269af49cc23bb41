"""The table that the quality checks judge: a row per track, from the manifest and from the shards' statistics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SPLITS
from mert_core.data.target_kinds import TargetKind
from mert_core.data.targets import number_type
from mert_core.targets.label import ShardPlan
from mert_core.targets.shards import (
    Arrays,
    FinishedShard,
    ShardCache,
    add_statistics,
    empty_statistics,
    target_statistics,
)

TRACK_TABLE = pa.schema(
    [
        # as the manifest says
        ("track_id", pa.string()),
        ("artist", pa.string()),
        ("split", pa.int8()),  # an index into SPLITS
        ("seconds", pa.float64()),
        ("samples", pa.int64()),
        ("source_rate", pa.int64()),  # hertz, of the source
        # as measured on the samples that were labeled
        ("frames", pa.int64()),  # of targets
        ("silent_frames", pa.int64()),
        ("wall_hertz", pa.float32()),  # where the spectrum ends in a wall; 0: nowhere
        ("digest", pa.uint64()),  # the first 64 bits of the samples' SHA-256
        ("same_audio", pa.bool_()),  # whether that SHA-256 is the manifest's
        ("invalid", pa.int64()),  # how many of the targets' numbers no teacher may give
    ]
)
"""Rows are in the manifest's order."""


def split_indices(corpus: Corpus) -> NDArray[np.int8]:
    """Return every track's split (tracks,) as an index into ``SPLITS``."""
    return pc.index_in(corpus.arrow("split"), pa.array(SPLITS)).to_numpy().astype(np.int8)


def gather(
    corpus: Corpus, kind: TargetKind, plans: list[ShardPlan], shards: list[FinishedShard], cache: ShardCache
) -> tuple[pa.Table, Arrays, list[FinishedShard]]:
    """Read the statistics of all shards, one at a time.

    Returns:
        The tracks (`TRACK_TABLE`); the statistics of all targets by split, as `target_statistics` gives them; and the
        shards, with new statistics where tracks have changed their splits since.
    """
    tracks, splits = len(corpus), split_indices(corpus)
    content_hashes = corpus.arrow("content_hash")
    frames, silent_frames, invalid = np.zeros((3, tracks), dtype=np.int64)
    wall_hertz, digest = np.zeros(tracks, dtype=np.float32), np.zeros(tracks, dtype=np.uint64)
    same_audio = np.zeros(tracks, dtype=bool)
    total, renewed = empty_statistics(kind), []
    for plan, shard in zip(plans, shards, strict=True):
        shard, arrays = _with_splits(shard, plan, cache, splits[plan.rows])
        stats = arrays["tracks"]
        frames[plan.rows] = stats["samples"] // HOP_SAMPLES
        silent_frames[plan.rows] = stats["silent_frames"]
        wall_hertz[plan.rows] = stats["wall_hertz"]
        digest[plan.rows] = np.ascontiguousarray(stats["sha256"][:, :8]).view("<u8")[:, 0]
        expected = content_hashes.take(pa.array(plan.rows)).to_pylist()
        same_audio[plan.rows] = [
            measured.tobytes().hex() == text for measured, text in zip(stats["sha256"], expected, strict=True)
        ]
        invalid[plan.rows] = arrays["invalid"]
        add_statistics(total, arrays)
        renewed.append(shard)
    columns = [
        corpus.arrow("track_id"),
        corpus.arrow("artist"),
        splits,
        corpus.column("seconds"),
        corpus.samples,
        corpus.column("source_rate").astype(np.int64),
        frames,
        silent_frames,
        wall_hertz,
        digest,
        same_audio,
        invalid,
    ]
    return pa.table(columns, schema=TRACK_TABLE), total, renewed


def _with_splits(
    shard: FinishedShard, plan: ShardPlan, cache: ShardCache, splits: NDArray[np.int8]
) -> tuple[FinishedShard, Arrays]:
    """Return a shard and its statistics, computed anew if its tracks have changed their splits since it was made."""
    arrays = shard.arrays()
    if np.array_equal(arrays["splits"], splits):
        return shard, arrays
    targets = np.memmap(shard.targets, number_type(cache.kind), "r", shape=(plan.frames, cache.kind.width))
    arrays |= target_statistics(cache.kind, targets, plan, splits)
    return cache.with_statistics(shard, arrays), arrays


def fingerprints(
    shards: list[FinishedShard], plans: list[ShardPlan], chosen: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """Yield rows and fingerprints (tracks, 32) of the tracks chosen (tracks,), shard by shard."""
    for plan, shard in zip(plans, shards, strict=True):
        mine = chosen[plan.rows]
        if mine.any():
            yield plan.rows[mine], shard.arrays()["tracks"]["sketch"][mine]
