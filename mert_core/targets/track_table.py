"""All that the gate judges, gathered from the corpus's manifest and the shards' facts: a few numbers per track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
from mert_core.targets.shards import Arrays, Kept, Made, merge, nothing, tally


@dataclass
class Evidence:
    """What was found, in the order of the manifest.

    Attributes:
        ids: of the tracks; Arrow's array, which the messages take names from.
        splits: (tracks,) places in ``SPLITS``.
        seconds: (tracks,) as the manifest says.
        samples: (tracks,) as the manifest says.
        source_rates: (tracks,) hertz of the sources, as the manifest says.
        frames: (tracks,) of targets.
        silent_frames: (tracks,).
        wall_hertz: (tracks,) where a spectrum ends in a wall; 0: it does not.
        digests: (tracks,) the first 64 bits of the SHA-256 of the samples that were labelled.
        same_audio: (tracks,) whether those samples are the ones whose hash the manifest has.
        invalid: (tracks,) numbers that no teacher may give.
        figures: of all targets by split, as `mert_core.targets.shards` counts them.
        teachers: shard's name to the id of the teacher that labelled it.
        artists: (tracks,) Arrow's array.
    """

    ids: pa.ChunkedArray
    splits: NDArray[np.int8]
    seconds: NDArray[np.float64]
    samples: NDArray[np.int64]
    source_rates: NDArray[np.int64]
    frames: NDArray[np.int64]
    silent_frames: NDArray[np.int64]
    wall_hertz: NDArray[np.float32]
    digests: NDArray[np.uint64]
    same_audio: NDArray[np.bool_]
    invalid: NDArray[np.int64]
    figures: Arrays
    teachers: dict[str, str]
    artists: pa.ChunkedArray


def split_numbers(corpus: Corpus) -> NDArray[np.int8]:
    """Return every track's split (tracks,) as a place in ``SPLITS``."""
    return pc.index_in(corpus.arrow("split"), pa.array(SPLITS)).to_numpy().astype(np.int8)


def up_to_date(made: Made, plan: ShardPlan, kept: Kept, splits: NDArray[np.int8]) -> tuple[Made, Arrays]:
    """Return a shard and its facts, counted anew if its tracks have changed their splits since it was made."""
    arrays = made.arrays()
    if np.array_equal(arrays["splits"], splits):
        return made, arrays
    targets = np.memmap(made.targets, number_type(kept.kind), "r", shape=(plan.frames, kept.kind.width))
    arrays |= tally(kept.kind, targets, plan, splits)
    return kept.with_facts(made, arrays), arrays


def gather(
    corpus: Corpus, kind: TargetKind, plans: list[ShardPlan], shards: list[Made], kept: Kept
) -> tuple[Evidence, list[Made]]:
    """Read the facts of all shards, one at a time.

    Returns:
        The evidence, and the shards: those whose figures had to be counted anew have other facts.
    """
    tracks, hashes = len(corpus), corpus.arrow("content_hash")
    found = Evidence(
        ids=corpus.arrow("track_id"),
        splits=split_numbers(corpus),
        seconds=corpus.column("seconds"),
        samples=corpus.samples,
        source_rates=corpus.column("source_rate").astype(np.int64),
        frames=np.zeros(tracks, dtype=np.int64),
        silent_frames=np.zeros(tracks, dtype=np.int64),
        wall_hertz=np.zeros(tracks, dtype=np.float32),
        digests=np.zeros(tracks, dtype=np.uint64),
        same_audio=np.zeros(tracks, dtype=bool),
        invalid=np.zeros(tracks, dtype=np.int64),
        figures=nothing(kind),
        teachers={},
        artists=corpus.arrow("artist"),
    )
    renewed = []
    for plan, made in zip(plans, shards, strict=True):
        made, arrays = up_to_date(made, plan, kept, found.splits[plan.rows])
        facts = arrays["tracks"]
        found.frames[plan.rows] = facts["samples"] // HOP_SAMPLES
        found.silent_frames[plan.rows] = facts["silent_frames"]
        found.wall_hertz[plan.rows] = facts["wall_hertz"]
        found.digests[plan.rows] = np.ascontiguousarray(facts["sha256"][:, :8]).view("<u8")[:, 0]
        said = hashes.take(pa.array(plan.rows)).to_pylist()
        own = [digest.tobytes().hex() for digest in facts["sha256"]]
        found.same_audio[plan.rows] = [mine == text for mine, text in zip(own, said, strict=True)]
        found.invalid[plan.rows] = arrays["invalid"]
        merge(found.figures, arrays)
        found.teachers[made.entry.name] = made.entry.teacher
        renewed.append(made)
    return found, renewed


def sketches(
    shards: list[Made], plans: list[ShardPlan], chosen: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """Yield rows and sketches (tracks, 32) of those tracks that are chosen (tracks,), shard by shard."""
    for plan, made in zip(plans, shards, strict=True):
        mine = chosen[plan.rows]
        if mine.any():
            yield plan.rows[mine], made.arrays()["tracks"]["sketch"][mine]
