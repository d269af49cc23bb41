"""Running a teacher over a corpus, shard by shard; what was made before is used again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
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
from mert_core.targets.label import Crew, Labelled, ShardPlan, Unit, units
from mert_core.targets.track_stats import TRACK_FACTS
from mert_core.teachers.base import Teacher

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """A finished shard: its entry and where its two files lie now.

    Attributes:
        entry: as the card will say it.
        targets: the shard.
        facts: a NumPy archive: ``tracks`` (tracks,) of `TRACK_FACTS`, and the arrays of `mert_core.targets.shards`.
        made_now: whether this run made it.
    """

    entry: ShardEntry
    targets: Path
    facts: Path
    made_now: bool = False

    def arrays(self) -> Arrays:
        """Return what the facts' file holds."""
        with np.load(self.facts) as stored:
            return {name: stored[name] for name in stored.files}


class Kept:
    """The shards that a teacher has labelled before: in an earlier store, and those of a run that did not end.

    Attributes:
        folder: of unfinished runs; a shard there goes by the checksum of its PCM shard.
        teacher_id: of the teacher.
        kind: of its targets.
    """

    def __init__(self, folder: Path, previous: Path, teacher_id: str, kind: TargetKind) -> None:
        self.folder, self.teacher_id, self.kind = folder, teacher_id, kind
        self._previous: dict[str, Made] = {}
        try:
            entries = entries_of(json.loads((previous / CHECKSUMS_NAME).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, KeyError, TypeError):
            return  # no store, or one that cannot be used
        for entry in entries:
            if entry.teacher == teacher_id:
                targets, facts = previous / SHARDS_NAME / entry.name, previous / FACTS_NAME / facts_name(entry.name)
                self._previous[entry.pcm_sha256] = Made(entry, targets, facts)

    def find(self, plan: ShardPlan) -> Made | None:
        """Return a shard that need not be made again: same music, same teacher, same tracks, bytes as written."""
        for made in (self._unfinished(plan), self._previous.get(plan.pcm_sha256)):
            if made is not None and self._is_good(made, plan):
                name = shard_name(plan.shard, self.kind)
                return replace(made, entry=replace(made.entry, shard=plan.shard, name=name))
        return None

    def path(self, plan: ShardPlan) -> Path:
        """Return where a shard's targets lie while the run has not ended."""
        return self.folder / f"{plan.pcm_sha256}.targets"

    def keep(self, plan: ShardPlan, facts: Arrays) -> Made:
        """Take in a shard whose targets lie at `path`; from here on it is finished."""
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
        return self.with_facts(Made(entry, path, path, made_now=True), facts)

    def with_facts(self, made: Made, facts: Arrays) -> Made:
        """Return the shard with other facts; they lie here, whatever lies in the earlier store stays as it is."""
        path = self.folder / f"{made.entry.pcm_sha256}.facts.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **facts)  # type: ignore[arg-type]
        entry = replace(made.entry, facts_sha256=sha256_file(path))
        if made.targets.parent == self.folder:
            write_json(self.folder / f"{entry.pcm_sha256}.json", asdict(entry))
        return replace(made, entry=entry, facts=path)

    def _unfinished(self, plan: ShardPlan) -> Made | None:
        try:
            text = (self.folder / f"{plan.pcm_sha256}.json").read_text(encoding="utf-8")
            entry = ShardEntry(**json.loads(text))
        except (OSError, json.JSONDecodeError, TypeError):
            return None
        return Made(entry, self.path(plan), self.folder / f"{plan.pcm_sha256}.facts.npz")

    def _is_good(self, made: Made, plan: ShardPlan) -> bool:
        try:
            whole = (
                made.entry.teacher == self.teacher_id
                and made.entry.frames == plan.frames
                and sha256_file(made.facts) == made.entry.facts_sha256
                and sha256_file(made.targets) == made.entry.sha256
            )
            tracks = made.arrays()["tracks"] if whole else None
        except (OSError, ValueError, KeyError):
            return False
        return (
            tracks is not None
            and tracks.dtype == TRACK_FACTS
            and np.array_equal(tracks["offset_samples"], plan.offsets)
            and np.array_equal(tracks["samples"], plan.samples)
        )


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


_SUMS = {"counts", "frames", "sums", "squares"}


def tally(kind: TargetKind, targets: NDArray[Any], plan: ShardPlan, splits: NDArray[np.int8]) -> Arrays:
    """Return a shard's figures.

    Args:
        kind: what the targets are.
        targets: the shard, (frames, width).
        plan: where its tracks lie.
        splits: of each track (tracks,), as places in ``SPLITS``.

    Returns:
        ``splits`` as given and ``invalid`` (tracks,), the numbers of each track that no teacher may give: codes out
        of range, values that are not finite. For codes ``counts`` (splits, codebooks, entries + 1), the last column
        what is out of range; for spectra ``frames`` (splits,), ``sums``, ``squares``, ``least`` and ``most`` (splits,
        bins), of the finite values.
    """
    figures = nothing(kind)
    invalid = np.zeros(len(splits), dtype=np.int64)
    begins, lengths = plan.offsets // HOP_SAMPLES, plan.samples // HOP_SAMPLES
    for place, (begin, count, split) in enumerate(zip(begins.tolist(), lengths.tolist(), splits.tolist(), strict=True)):
        track = targets[begin : begin + count]
        if isinstance(kind, Codes):
            invalid[place] = _count(figures, track, kind.entries, split)
        else:
            invalid[place] = _measure(figures, track, split)
    return {"splits": splits, "invalid": invalid, **figures}


def nothing(kind: TargetKind) -> Arrays:
    """Return the figures of no frames."""
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


def merge(total: Arrays, figures: Arrays) -> None:
    """Add a shard's figures to a total."""
    for name, values in total.items():
        if name in _SUMS:
            values += figures[name]
        else:
            (np.minimum if name == "least" else np.maximum)(values, figures[name], out=values)


def _count(figures: Arrays, track: NDArray[np.uint16], entries: int, split: int) -> int:
    clipped = np.minimum(track, entries).astype(np.int64)
    for book, counts in enumerate(figures["counts"][split]):
        counts += np.bincount(clipped[:, book], minlength=entries + 1)
    return int(np.count_nonzero(clipped == entries))


def _measure(figures: Arrays, track: NDArray[np.float16], split: int) -> int:
    values = track.astype(np.float64)
    finite = np.isfinite(values)
    invalid = int(values.size - np.count_nonzero(finite))
    figures["frames"][split] += len(values)
    figures["least"][split] = np.minimum(figures["least"][split], np.where(finite, values, np.inf).min(axis=0))
    figures["most"][split] = np.maximum(figures["most"][split], np.where(finite, values, -np.inf).max(axis=0))
    values[~finite] = 0.0
    figures["sums"][split] += values.sum(axis=0)
    figures["squares"][split] += np.square(values).sum(axis=0)
    return invalid


class KnownFacts:
    """A cache of `TRACK_FACTS`, one file per PCM shard, by the shard's checksum and by the code that found them."""

    def __init__(self, caches: Path) -> None:
        code = Path(str(track_stats.__file__)).read_bytes()
        self._folder = caches / "facts" / hashlib.sha256(code).hexdigest()[:16]

    def on(self, plan: ShardPlan) -> ShardPlan:
        """Return the plan with what is known of its tracks; as it was if nothing is."""
        try:
            found = np.load(self._path(plan))
        except (OSError, ValueError):  # none, or one that cannot be read: they are found anew
            return plan
        return (
            replace(plan, facts=found)
            if found.shape == plan.rows.shape and found.dtype == track_stats.TRACK_FACTS
            else plan
        )

    def keep(self, plan: ShardPlan, found: NDArray[np.void]) -> None:
        """Remember the facts of a shard's tracks (tracks,), in the plan's order."""
        if plan.facts is None:
            path = self._path(plan)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, found)

    def _path(self, plan: ShardPlan) -> Path:
        return self._folder / f"{plan.pcm_sha256}.npy"


_PARTIAL = ".partial"


def make_shards(
    corpus: Corpus,
    plans: list[ShardPlan],
    teacher: Teacher,
    kept: Kept,
    known: KnownFacts,
    crew: Crew,
    splits: NDArray[np.int8],
) -> Iterator[Made]:
    """Label the given shards and yield each when it is finished, in no particular order.

    Track by track the targets stand where its samples stand in the PCM shard: sample offset o, frame offset o / 320.

    Args:
        corpus: tracks whose offsets and lengths are multiples of 320 samples.
        plans: the shards to make.
        teacher: gives the targets.
        kept: takes in finished shards.
        known: what other teachers' runs have found in the music.
        crew: who labels.
        splits: of every track of the corpus (tracks,), as places in ``SPLITS``.
    """
    plans = [known.on(plan) for plan in plans]
    kept.folder.mkdir(parents=True, exist_ok=True)
    for left in kept.folder.glob(f"*{_PARTIAL}"):  # of a run that was killed
        left.unlink()
    open_shards: dict[int, _Shard] = {}
    by_number = {plan.shard: plan for plan in plans}
    seconds = sum(int(plan.samples.sum()) for plan in plans) / SAMPLE_RATE

    def plan_units(batch_samples: int) -> Iterator[Unit]:
        return units(plans, teacher.causal, batch_samples)

    with tqdm(desc=f"targets {teacher.name}", unit="s", unit_scale=True, total=seconds) as bar:
        for done in crew(teacher, corpus.folder / SHARDS_NAME, plan_units):
            number = done.unit.shard
            if number not in open_shards:
                open_shards[number] = _Shard(by_number[number], teacher, kept)
            shard = open_shards[number]
            shard.put(done)
            bar.update(min(float(done.unit.samples.sum()) / SAMPLE_RATE, seconds - bar.n))  # sums may round up
            if not shard.missing:
                known.keep(shard.plan, shard.facts)
                yield open_shards.pop(number).finish(splits[shard.plan.rows])


class _Shard:
    """A shard that is being put together, in a file, so that memory holds only what has just come."""

    def __init__(self, plan: ShardPlan, teacher: Teacher, kept: Kept) -> None:
        self.plan, self.missing = plan, len(plan.rows)
        self._kind, self._kept = teacher.kind, kept
        self._path = Path(f"{kept.path(plan)}{_PARTIAL}")
        shape = plan.frames, self._kind.width
        self._targets: NDArray[Any] = np.memmap(self._path, number_type(self._kind), "w+", shape=shape)
        self.facts = np.zeros(len(plan.rows), dtype=TRACK_FACTS)

    def put(self, done: Labelled) -> None:
        """Take in a unit."""
        for place, targets, facts in zip(done.unit.places.tolist(), done.targets, done.facts, strict=True):
            begin = int(self.plan.offsets[place]) // HOP_SAMPLES
            self._targets[begin : begin + len(targets)] = targets
            self.facts[place] = facts
        self.missing -= len(done.targets)

    def finish(self, splits: NDArray[np.int8]) -> Made:
        """Write what there is to know about the shard and give it its name."""
        figures = tally(self._kind, self._targets, self.plan, splits)
        assert isinstance(self._targets, np.memmap)
        self._targets.flush()
        self._path.replace(self._kept.path(self.plan))
        return self._kept.keep(self.plan, {"tracks": self.facts, **figures})
