"""Target shards: those that earlier runs have finished, and how missing ones are labeled and put together.

A target shard mirrors a PCM shard: sample offset o, frame offset o / 320. `ShardCache` finds finished ones, in the
previous store and in the folder of an interrupted run; `label_shards` makes the others. Beside its targets a shard has
an archive of its tracks' statistics and of the targets' own, which `gather` reads afterwards for the quality checks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SHARDS_NAME, SPLITS
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.data.targets import (
    CHECKSUMS_NAME,
    FACTS_NAME,
    ShardEntry,
    entries_of,
    facts_name,
    number_type,
    shard_name,
)
from mert_core.files import atomic_path, sha256_file, write_json
from mert_core.targets import track_stats
from mert_core.targets.label import Executor, LabeledBatch, ShardTracks, plan_batches
from mert_core.targets.track_stats import TRACK_STATS
from mert_core.teachers.base import Teacher

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FinishedShard:
    """A labeled shard and the two files that hold it.

    Attributes:
        entry: the shard's entry in the store's card.
        targets: path of the targets.
        statistics: path of a NumPy archive: ``tracks`` (tracks,) of `TRACK_STATS`, and what `target_statistics` gives.
    """

    entry: ShardEntry
    targets: Path
    statistics: Path

    def arrays(self) -> Arrays:
        """Return the archive's arrays by name."""
        with np.load(self.statistics) as stored:
            return {name: stored[name] for name in stored.files}

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the two files by their paths in a store."""
        name = self.entry.name
        return {f"{SHARDS_NAME}/{name}": self.entry.sha256, f"{FACTS_NAME}/{facts_name(name)}": self.entry.facts_sha256}


class ShardCache:
    """The shards that a teacher has labeled before: in the previous store, and in a run that did not end.

    Attributes:
        folder: folder of unfinished runs; its files are named by the checksum of the PCM shard.
        teacher_id: id of the teacher's record.
        kind: what its targets are.
    """

    def __init__(self, folder: Path, previous: Path, teacher_id: str, kind: TargetKind) -> None:
        self.folder, self.teacher_id, self.kind = folder, teacher_id, kind
        self._previous: dict[str, FinishedShard] = {}
        try:
            entries = entries_of(json.loads((previous / CHECKSUMS_NAME).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, KeyError, TypeError):
            return  # no store, or one that cannot be used
        for entry in entries:
            targets, statistics = previous / SHARDS_NAME / entry.name, previous / FACTS_NAME / facts_name(entry.name)
            self._previous[entry.pcm_sha256] = FinishedShard(entry, targets, statistics)

    def path(self, plan: ShardTracks, ending: str = "targets") -> Path:
        """Return the path of a shard's targets, or of another of its files, while the run has not ended."""
        return self.folder / f"{plan.pcm_sha256}.{ending}"

    def find(self, plan: ShardTracks) -> FinishedShard | None:
        """Return a shard that need not be made again: same music, same teacher, same tracks, bytes as written."""
        try:
            entry = ShardEntry(**json.loads(self.path(plan, "json").read_text(encoding="utf-8")))
            unfinished = FinishedShard(entry, self.path(plan), self.path(plan, "facts.npz"))
        except (OSError, json.JSONDecodeError, TypeError):
            unfinished = None
        for shard in (unfinished, self._previous.get(plan.pcm_sha256)):
            if shard is not None and self._is_intact(shard, plan):
                name = shard_name(plan.shard, self.kind)
                return replace(shard, entry=replace(shard.entry, shard=plan.shard, name=name))
        return None

    def _is_intact(self, shard: FinishedShard, plan: ShardTracks) -> bool:
        entry = shard.entry
        try:
            if (
                (entry.teacher, entry.frames) != (self.teacher_id, plan.frames)
                or sha256_file(shard.statistics) != entry.facts_sha256
                or sha256_file(shard.targets) != entry.sha256
            ):
                return False
            tracks = shard.arrays()["tracks"]
        except (OSError, ValueError, KeyError):
            return False
        return (
            tracks.dtype == TRACK_STATS
            and np.array_equal(tracks["offset_samples"], plan.offsets)
            and np.array_equal(tracks["samples"], plan.samples)
        )

    def add(self, plan: ShardTracks, arrays: Arrays) -> FinishedShard:
        """Take in a shard whose targets lie at `path`, with its statistics; from here on it is finished."""
        path = self.path(plan)
        entry = ShardEntry(
            shard=plan.shard,
            name=shard_name(plan.shard, self.kind),
            sha256=sha256_file(path),
            frames=plan.frames,
            pcm_sha256=plan.pcm_sha256,
            teacher=self.teacher_id,
            facts_sha256="",
        )
        return self.with_statistics(FinishedShard(entry, path, path), plan, arrays)

    def with_statistics(self, shard: FinishedShard, plan: ShardTracks, arrays: Arrays) -> FinishedShard:
        """Return the shard with other statistics, written to this folder; the previous store stays as it is."""
        path = self.path(plan, "facts.npz")
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        entry = replace(shard.entry, facts_sha256=sha256_file(path))
        if shard.targets.parent == self.folder:
            write_json(self.path(plan, "json"), asdict(entry))
        return replace(shard, entry=entry, statistics=path)


class TrackStatsCache:
    """A cache of `TRACK_STATS` for all teachers: one file per PCM shard, by its checksum and the measuring code's."""

    def __init__(self, caches: Path) -> None:
        code = Path(str(track_stats.__file__)).read_bytes()
        self._folder = caches / "facts" / hashlib.sha256(code).hexdigest()[:16]

    def fill(self, plan: ShardTracks) -> ShardTracks:
        """Return the plan with the statistics of its tracks; without them if the cache has none."""
        try:
            stats = np.load(self._path(plan))
        except (OSError, ValueError):  # none, or one that cannot be read: the tracks are measured anew
            return plan
        fits = stats.shape == plan.rows.shape and stats.dtype == TRACK_STATS
        return replace(plan, stats=stats) if fits else plan

    def add(self, plan: ShardTracks, stats: NDArray[np.void]) -> None:
        """Remember the statistics of a shard's tracks (tracks,), in the plan's order."""
        if plan.stats is None:
            path = self._path(plan)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, stats)

    def _path(self, plan: ShardTracks) -> Path:
        return self._folder / f"{plan.pcm_sha256}.npy"


def target_statistics(kind: TargetKind, targets: NDArray[Any], plan: ShardTracks, splits: NDArray[np.int8]) -> Arrays:
    """Return statistics of a shard's targets, by track and by split.

    Args:
        kind: what the targets are.
        targets: (frames, width) of the shard.
        plan: offsets and lengths of its tracks.
        splits: (tracks,) indices into ``SPLITS``.

    Returns:
        ``splits`` as given and ``invalid`` (tracks,), counts of numbers that no teacher may give: codes out of range,
        values that are not finite. For codes ``counts`` (splits, codebooks, entries + 1), the last column for codes
        out of range; for spectra ``frames`` (splits,), ``sums``, ``squares``, ``least`` and ``most`` (splits, bins),
        of the finite values.
    """
    statistics = empty_statistics(kind)
    invalid = np.zeros(len(splits), dtype=np.int64)
    begins, lengths = plan.offsets // HOP_SAMPLES, plan.samples // HOP_SAMPLES
    for index, (begin, count, split) in enumerate(zip(begins.tolist(), lengths.tolist(), splits.tolist(), strict=True)):
        track = targets[begin : begin + count]
        if isinstance(kind, Codes):
            codes = np.minimum(track, kind.entries).astype(np.int64)
            for book, counts in enumerate(statistics["counts"][split]):
                counts += np.bincount(codes[:, book], minlength=kind.entries + 1)
            invalid[index] = np.count_nonzero(codes == kind.entries)
        else:
            values = track.astype(np.float64)
            finite = np.isfinite(values)
            zeroed = np.where(finite, values, 0.0)
            invalid[index] = values.size - np.count_nonzero(finite)
            one = {
                "frames": len(values),
                "sums": zeroed.sum(axis=0),
                "squares": np.square(zeroed).sum(axis=0),
                "least": np.where(finite, values, np.inf).min(axis=0),
                "most": np.where(finite, values, -np.inf).max(axis=0),
            }
            for name, value in one.items():
                statistics[name][split] = _TOGETHER.get(name, np.add)(statistics[name][split], value)
    return {"splits": splits, "invalid": invalid, **statistics}


_TOGETHER = {"least": np.minimum, "most": np.maximum}  # all others add up


def empty_statistics(kind: TargetKind) -> Arrays:
    """Return the statistics of no frames."""
    if isinstance(kind, Codes):
        return {"counts": np.zeros((len(SPLITS), kind.codebooks, kind.entries + 1), dtype=np.int64)}
    starts = {"sums": 0.0, "squares": 0.0, "least": np.inf, "most": -np.inf}
    bins = {name: np.full((len(SPLITS), kind.bins), start) for name, start in starts.items()}
    return {"frames": np.zeros(len(SPLITS), dtype=np.int64), **bins}


def add_statistics(total: Arrays, statistics: Arrays) -> None:
    """Add a shard's statistics to a total."""
    for name, values in total.items():
        _TOGETHER.get(name, np.add)(values, statistics[name], out=values)


_PARTIAL = ".partial"


def label_shards(
    corpus: Corpus,
    plans: list[ShardTracks],
    teacher: Teacher,
    cache: ShardCache,
    track_stats_cache: TrackStatsCache,
    executor: Executor,
) -> Iterator[FinishedShard]:
    """Label shards, put them into the cache, and yield each when it is finished, in no particular order."""
    plans = [track_stats_cache.fill(plan) for plan in plans]
    cache.folder.mkdir(parents=True, exist_ok=True)
    for left in cache.folder.glob(f"*{_PARTIAL}"):  # of a run that was killed
        left.unlink()
    open_shards: dict[int, _ShardBuilder] = {}
    by_number = {plan.shard: plan for plan in plans}
    seconds = sum(int(plan.samples.sum()) for plan in plans) / SAMPLE_RATE

    with tqdm(desc=f"targets {teacher.name}", unit="s", unit_scale=True, total=seconds) as bar:
        for labeled in executor(teacher, corpus.folder / SHARDS_NAME, partial(plan_batches, plans, teacher.causal)):
            number = labeled.batch.shard
            if number not in open_shards:
                open_shards[number] = _ShardBuilder(by_number[number], teacher, cache)
            shard = open_shards[number]
            shard.put(labeled)
            bar.update(min(float(labeled.batch.samples.sum()) / SAMPLE_RATE, seconds - bar.n))  # sums may round up
            if not shard.missing:
                track_stats_cache.add(shard.plan, shard.stats)
                yield open_shards.pop(number).finish(corpus.split[shard.plan.rows])


class _ShardBuilder:
    """A shard that is being put together, in a file, so that memory holds only the batch that has just come."""

    def __init__(self, plan: ShardTracks, teacher: Teacher, cache: ShardCache) -> None:
        self.plan, self.missing = plan, len(plan.rows)
        self._kind, self._cache = teacher.kind, cache
        self._path = Path(f"{cache.path(plan)}{_PARTIAL}")
        shape = plan.frames, self._kind.width
        self._targets: NDArray[Any] = np.memmap(self._path, number_type(self._kind), "w+", shape=shape)
        self.stats = np.zeros(len(plan.rows), dtype=TRACK_STATS)

    def put(self, labeled: LabeledBatch) -> None:
        """Take in a batch."""
        indices = np.searchsorted(self.plan.offsets, labeled.batch.offsets).tolist()
        for index, targets, stats in zip(indices, labeled.targets, labeled.stats, strict=True):
            begin = int(self.plan.offsets[index]) // HOP_SAMPLES
            self._targets[begin : begin + len(targets)] = targets
            self.stats[index] = stats
        self.missing -= len(labeled.targets)

    def finish(self, splits: NDArray[np.int8]) -> FinishedShard:
        """Compute the statistics and give the shard its name in the cache."""
        statistics = target_statistics(self._kind, self._targets, self.plan, splits)
        assert isinstance(self._targets, np.memmap)
        self._targets.flush()
        self._path.replace(self._cache.path(self.plan))
        return self._cache.add(self.plan, {"tracks": self.stats, **statistics})


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


def gather(
    corpus: Corpus, kind: TargetKind, plans: list[ShardTracks], shards: list[FinishedShard], cache: ShardCache
) -> tuple[pa.Table, Arrays, list[FinishedShard]]:
    """Read the statistics of all shards, one at a time.

    Returns:
        The tracks (`TRACK_TABLE`); the statistics of all targets by split, as `target_statistics` gives them; and the
        shards, with new statistics where tracks have changed their splits since.
    """
    columns: dict[str, Any] = {name: corpus.arrow(name) for name in ("track_id", "artist", "seconds", "source_rate")}
    columns |= {"split": corpus.split, "samples": corpus.samples}
    for field in TRACK_TABLE:
        columns.setdefault(field.name, np.zeros(len(corpus), field.type.to_pandas_dtype()))
    content_hashes = corpus.arrow("content_hash")
    total, renewed = empty_statistics(kind), []
    for plan, shard in zip(plans, shards, strict=True):
        rows, arrays = plan.rows, shard.arrays()
        if not np.array_equal(arrays["splits"], corpus.split[rows]):  # they were assigned anew since
            targets = np.memmap(shard.targets, number_type(kind), "r", shape=(plan.frames, kind.width))
            arrays |= target_statistics(kind, targets, plan, corpus.split[rows])
            shard = cache.with_statistics(shard, plan, arrays)
        renewed.append(shard)
        add_statistics(total, arrays)

        stats = arrays["tracks"]
        measured = (digest.tobytes().hex() for digest in stats["sha256"])
        expected = content_hashes.take(pa.array(rows)).to_pylist()
        columns["frames"][rows] = stats["samples"] // HOP_SAMPLES
        columns["silent_frames"][rows] = stats["silent_frames"]
        columns["wall_hertz"][rows] = stats["wall_hertz"]
        columns["digest"][rows] = np.ascontiguousarray(stats["sha256"][:, :8]).view("<u8")[:, 0]
        columns["same_audio"][rows] = [one == other for one, other in zip(measured, expected, strict=True)]
        columns["invalid"][rows] = arrays["invalid"]
    return pa.table(columns, schema=TRACK_TABLE), total, renewed


def fingerprints(
    shards: list[FinishedShard], plans: list[ShardTracks], chosen: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """Yield rows and fingerprints (tracks, 32) of the tracks chosen (tracks,), shard by shard."""
    for plan, shard in zip(plans, shards, strict=True):
        mine = chosen[plan.rows]
        if mine.any():
            yield plan.rows[mine], shard.arrays()["tracks"]["sketch"][mine]
