"""Target shards: those that earlier runs have finished, and how missing ones are labeled and put together.

A target shard mirrors a PCM shard: sample offset o, frame offset o / 320. `ShardCache` finds finished ones, in the
previous store and in the folder of an interrupted run; `label_shards` makes the others. Beside its targets a shard has
an archive of its tracks' statistics and of the targets' own, which the quality checks read afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SPLITS
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.data.targets import (
    CHECKSUMS_NAME,
    FACTS_NAME,
    SHARDS_NAME,
    ShardEntry,
    entries_of,
    facts_name,
    number_type,
    shard_name,
)
from mert_core.files import atomic_path, sha256_file, write_json
from mert_core.targets import track_stats
from mert_core.targets.label import Executor, LabeledBatch, ShardPlan, TrackBatch, plan_batches
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
            if entry.teacher == teacher_id:
                targets = previous / SHARDS_NAME / entry.name
                statistics = previous / FACTS_NAME / facts_name(entry.name)
                self._previous[entry.pcm_sha256] = FinishedShard(entry, targets, statistics)

    def find(self, plan: ShardPlan) -> FinishedShard | None:
        """Return a shard that need not be made again: same music, same teacher, same tracks, bytes as written."""
        for shard in (self._of_unfinished_run(plan), self._previous.get(plan.pcm_sha256)):
            if shard is not None and self._is_intact(shard, plan):
                name = shard_name(plan.shard, self.kind)
                return replace(shard, entry=replace(shard.entry, shard=plan.shard, name=name))
        return None

    def path(self, plan: ShardPlan) -> Path:
        """Return the path of a shard's targets while the run has not ended."""
        return self.folder / f"{plan.pcm_sha256}.targets"

    def add(self, plan: ShardPlan, arrays: Arrays) -> FinishedShard:
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
        return self.with_statistics(FinishedShard(entry, path, path), arrays)

    def with_statistics(self, shard: FinishedShard, arrays: Arrays) -> FinishedShard:
        """Return the shard with other statistics, written to this folder; the previous store stays as it is."""
        path = self._statistics_path(shard.entry.pcm_sha256)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        entry = replace(shard.entry, facts_sha256=sha256_file(path))
        if shard.targets.parent == self.folder:
            write_json(self.folder / f"{entry.pcm_sha256}.json", asdict(entry))
        return replace(shard, entry=entry, statistics=path)

    def _statistics_path(self, pcm_sha256: str) -> Path:
        return self.folder / f"{pcm_sha256}.facts.npz"

    def _of_unfinished_run(self, plan: ShardPlan) -> FinishedShard | None:
        try:
            text = (self.folder / f"{plan.pcm_sha256}.json").read_text(encoding="utf-8")
            entry = ShardEntry(**json.loads(text))
        except (OSError, json.JSONDecodeError, TypeError):
            return None
        return FinishedShard(entry, self.path(plan), self._statistics_path(plan.pcm_sha256))

    def _is_intact(self, shard: FinishedShard, plan: ShardPlan) -> bool:
        try:
            intact = (
                shard.entry.teacher == self.teacher_id
                and shard.entry.frames == plan.frames
                and sha256_file(shard.statistics) == shard.entry.facts_sha256
                and sha256_file(shard.targets) == shard.entry.sha256
            )
            tracks = shard.arrays()["tracks"] if intact else None
        except (OSError, ValueError, KeyError):
            return False
        return (
            tracks is not None
            and tracks.dtype == TRACK_STATS
            and np.array_equal(tracks["offset_samples"], plan.offsets)
            and np.array_equal(tracks["samples"], plan.samples)
        )


class TrackStatsCache:
    """A cache of `TRACK_STATS` for all teachers: one file per PCM shard, by its checksum and the measuring code's."""

    def __init__(self, caches: Path) -> None:
        code = Path(str(track_stats.__file__)).read_bytes()
        self._folder = caches / "facts" / hashlib.sha256(code).hexdigest()[:16]

    def fill(self, plan: ShardPlan) -> ShardPlan:
        """Return the plan with the statistics of its tracks; without them if the cache has none."""
        try:
            stats = np.load(self._path(plan))
        except (OSError, ValueError):  # none, or one that cannot be read: the tracks are measured anew
            return plan
        fits = stats.shape == plan.rows.shape and stats.dtype == TRACK_STATS
        return replace(plan, stats=stats) if fits else plan

    def add(self, plan: ShardPlan, stats: NDArray[np.void]) -> None:
        """Remember the statistics of a shard's tracks (tracks,), in the plan's order."""
        if plan.stats is None:
            path = self._path(plan)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, stats)

    def _path(self, plan: ShardPlan) -> Path:
        return self._folder / f"{plan.pcm_sha256}.npy"


_SUMS = {"counts", "frames", "sums", "squares"}


def target_statistics(kind: TargetKind, targets: NDArray[Any], plan: ShardPlan, splits: NDArray[np.int8]) -> Arrays:
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
            invalid[index] = _add_codes(statistics, track, kind.entries, split)
        else:
            invalid[index] = _add_spectrum(statistics, track, split)
    return {"splits": splits, "invalid": invalid, **statistics}


def empty_statistics(kind: TargetKind) -> Arrays:
    """Return the statistics of no frames."""
    if isinstance(kind, Codes):
        return {"counts": np.zeros((len(SPLITS), kind.codebooks, kind.entries + 1), dtype=np.int64)}
    shape = len(SPLITS), kind.bins
    return {
        "frames": np.zeros(len(SPLITS), dtype=np.int64),
        "sums": np.zeros(shape),
        "squares": np.zeros(shape),
        "least": np.full(shape, np.inf),
        "most": np.full(shape, -np.inf),
    }


def add_statistics(total: Arrays, statistics: Arrays) -> None:
    """Add a shard's statistics to a total."""
    for name, values in total.items():
        if name in _SUMS:
            values += statistics[name]
        else:
            (np.minimum if name == "least" else np.maximum)(values, statistics[name], out=values)


def _add_codes(statistics: Arrays, track: NDArray[np.uint16], entries: int, split: int) -> int:
    """Count a track's codes (frames, codebooks); return how many are out of range."""
    clipped = np.minimum(track, entries).astype(np.int64)
    for book, counts in enumerate(statistics["counts"][split]):
        counts += np.bincount(clipped[:, book], minlength=entries + 1)
    return int(np.count_nonzero(clipped == entries))


def _add_spectrum(statistics: Arrays, track: NDArray[np.float16], split: int) -> int:
    """Add up a track's values (frames, bins); return how many are not finite."""
    values = track.astype(np.float64)
    finite = np.isfinite(values)
    invalid = int(values.size - np.count_nonzero(finite))
    statistics["frames"][split] += len(values)
    statistics["least"][split] = np.minimum(statistics["least"][split], np.where(finite, values, np.inf).min(axis=0))
    statistics["most"][split] = np.maximum(statistics["most"][split], np.where(finite, values, -np.inf).max(axis=0))
    values[~finite] = 0.0
    statistics["sums"][split] += values.sum(axis=0)
    statistics["squares"][split] += np.square(values).sum(axis=0)
    return invalid


_PARTIAL = ".partial"


def label_shards(
    corpus: Corpus,
    plans: list[ShardPlan],
    teacher: Teacher,
    cache: ShardCache,
    track_stats_cache: TrackStatsCache,
    executor: Executor,
    splits: NDArray[np.int8],
) -> Iterator[FinishedShard]:
    """Label shards and yield each when it is finished, in no particular order.

    Args:
        corpus: tracks whose offsets and lengths are multiples of 320 samples.
        plans: the shards to make.
        teacher: the teacher that gives the targets.
        cache: receives finished shards.
        track_stats_cache: statistics of the music from other teachers' runs.
        executor: runs the teacher over batches of tracks.
        splits: (tracks,) of the whole corpus, indices into ``SPLITS``.
    """
    plans = [track_stats_cache.fill(plan) for plan in plans]
    cache.folder.mkdir(parents=True, exist_ok=True)
    for left in cache.folder.glob(f"*{_PARTIAL}"):  # of a run that was killed
        left.unlink()
    open_shards: dict[int, _ShardBuilder] = {}
    by_number = {plan.shard: plan for plan in plans}
    seconds = sum(int(plan.samples.sum()) for plan in plans) / SAMPLE_RATE

    def batches(batch_samples: int) -> Iterator[TrackBatch]:
        return plan_batches(plans, teacher.causal, batch_samples)

    with tqdm(desc=f"targets {teacher.name}", unit="s", unit_scale=True, total=seconds) as bar:
        for labeled in executor(teacher, corpus.folder / SHARDS_NAME, batches):
            number = labeled.batch.shard
            if number not in open_shards:
                open_shards[number] = _ShardBuilder(by_number[number], teacher, cache)
            shard = open_shards[number]
            shard.put(labeled)
            bar.update(min(float(labeled.batch.samples.sum()) / SAMPLE_RATE, seconds - bar.n))  # sums may round up
            if not shard.missing:
                track_stats_cache.add(shard.plan, shard.stats)
                yield open_shards.pop(number).finish(splits[shard.plan.rows])


class _ShardBuilder:
    """A shard that is being put together, in a file, so that memory holds only the batch that has just come."""

    def __init__(self, plan: ShardPlan, teacher: Teacher, cache: ShardCache) -> None:
        self.plan, self.missing = plan, len(plan.rows)
        self._kind, self._cache = teacher.kind, cache
        self._path = Path(f"{cache.path(plan)}{_PARTIAL}")
        shape = plan.frames, self._kind.width
        self._targets: NDArray[Any] = np.memmap(self._path, number_type(self._kind), "w+", shape=shape)
        self.stats = np.zeros(len(plan.rows), dtype=TRACK_STATS)

    def put(self, labeled: LabeledBatch) -> None:
        """Take in a batch."""
        for index, targets, stats in zip(labeled.batch.indices.tolist(), labeled.targets, labeled.stats, strict=True):
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
