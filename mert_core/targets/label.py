"""Labeling the tracks of a corpus with a teacher: how they are batched, and by which threads or Ray actors.

The tracks of each PCM shard (`ShardTracks`) are cut into batches, and a `Labeler` turns each batch into a
`LabeledBatch`: targets, and statistics of the sound while its samples are in memory. An `Executor` runs labelers over
all batches, as many at a time as there are threads or actors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.cluster import cluster_gpus, ray_running
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SHARDS_NAME
from mert_core.data.shards import ShardReader, to_float32
from mert_core.data.shards import shard_name as pcm_shard_name
from mert_core.data.target_kinds import Codes
from mert_core.data.targets import number_type
from mert_core.errors import MertError
from mert_core.parallel import in_order, single_threads
from mert_core.targets.track_stats import TRACK_STATS, measure_track
from mert_core.teachers.base import Teacher

BATCH_SAMPLES = {"cpu": 4_000_000, "cuda": 32_000_000}
"""Samples in one batch, padding included: almost three minutes, or 22. A longer track is a batch of its own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTracks:
    """Tracks of one PCM shard: all of them, or a batch that is labeled together.

    Attributes:
        shard: number of the shard.
        pcm_sha256: SHA-256 of the shard's bytes.
        rows: (tracks,) rows of the manifest.
        offsets: (tracks,) first samples of the tracks in the shard; of all tracks they ascend.
        samples: (tracks,) lengths.
        stats: (tracks,) of `mert_core.targets.track_stats.TRACK_STATS`, if the cache has them.
    """

    shard: int
    pcm_sha256: str
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int64]
    stats: NDArray[np.void] | None = None

    @property
    def frames(self) -> int:
        """Frames of the target shard: up to the end of its last track."""
        return int((self.offsets + self.samples).max()) // HOP_SAMPLES

    def take(self, indices: list[int]) -> ShardTracks:
        """Return some of the tracks."""
        stats = None if self.stats is None else self.stats[indices]
        rows, offsets, samples = self.rows[indices], self.offsets[indices], self.samples[indices]
        return ShardTracks(self.shard, self.pcm_sha256, rows, offsets, samples, stats)


def plan_shards(corpus: Corpus) -> list[ShardTracks]:
    """Return the corpus's shards in order, each with all its tracks.

    Raises:
        MertError: the corpus's record does not know a shard.
    """
    order = np.lexsort((corpus.offset_samples, corpus.shard))
    plans = []
    for rows in np.split(order, np.flatnonzero(np.diff(corpus.shard[order])) + 1):
        shard = int(corpus.shard[rows[0]])
        name = f"{SHARDS_NAME}/{pcm_shard_name(shard)}"
        if name not in corpus.record.files:
            raise MertError(f"the record of {corpus.folder} has no checksum of {name}. Run `dvc repro corpus`.")
        sha256 = corpus.record.files[name]
        plans.append(ShardTracks(shard, sha256, rows, corpus.offset_samples[rows], corpus.samples[rows]))
    return plans


def plan_batches(plans: Iterable[ShardTracks], padded: bool, batch_samples: int) -> Iterator[ShardTracks]:
    """Return each shard's tracks in batches; they depend on the corpus alone, so that the targets' bytes do.

    Args:
        plans: shards.
        padded: whether tracks of different lengths may be labeled together, with silence after the shorter ones.
        batch_samples: limit on a batch of several tracks, padding included.
    """
    for plan in plans:
        indices: list[int] = []
        for index in np.argsort(plan.samples, kind="stable").tolist():  # short before long: the last is the longest
            length = int(plan.samples[index])
            fits = padded or not indices or length == plan.samples[indices[0]]
            if indices and (not fits or (len(indices) + 1) * length > batch_samples):
                yield plan.take(indices)
                indices = []
            indices.append(index)
        yield plan.take(indices)


@dataclass(frozen=True)
class LabeledBatch:
    """A batch's targets.

    Attributes:
        batch: the tracks.
        targets: of each track, uint16 (frames, codebooks) or float16 (frames, bins).
        stats: (tracks,) of `TRACK_STATS`.
    """

    batch: ShardTracks
    targets: list[NDArray[Any]]
    stats: NDArray[np.void]


class Labeler:
    """A teacher over the shards of a corpus."""

    def __init__(self, teacher: Teacher, shards: Path, device: str = "cpu") -> None:
        self._teacher = teacher.to(device)
        self._reader = ShardReader(shards)
        self._device = device

    def __call__(self, batch: ShardTracks) -> LabeledBatch:
        """Label a batch of tracks, each as a whole.

        Raises:
            MertError: a shard cannot be read, or the teacher gives other targets than it declares.
        """
        kind = self._teacher.kind
        waveform = torch.zeros(len(batch.samples), int(batch.samples.max()))
        stats = np.zeros(len(batch.samples), dtype=TRACK_STATS)
        for index, (offset, samples) in enumerate(zip(batch.offsets.tolist(), batch.samples.tolist(), strict=True)):
            pcm = self._reader.view(batch.shard, offset, samples)
            waveform[index, : len(pcm)] = torch.from_numpy(to_float32(pcm))
            stats[index] = measure_track(offset, pcm, None if batch.stats is None else batch.stats[index])
        with torch.inference_mode():
            targets = self._teacher(waveform.to(self._device)).cpu().numpy()
        frames = batch.samples // HOP_SAMPLES
        if targets.shape[0] != len(frames) or targets.shape[1] < frames.max() or targets.shape[2] != kind.width:
            raise MertError(
                f"the teacher {self._teacher.name} gave targets of shape {targets.shape} for {len(frames)} tracks of "
                f"up to {frames.max()} frames; it declares {kind}"
            )
        if isinstance(kind, Codes):  # a code below 0 becomes the largest number
            targets = np.where(targets < 0, np.iinfo(np.uint16).max, np.minimum(targets, np.iinfo(np.uint16).max))
        with np.errstate(over="ignore"):  # a value beyond float16 becomes infinite
            stored = [targets[index, :count].astype(number_type(kind)) for index, count in enumerate(frames.tolist())]
        return LabeledBatch(batch, stored, stats)


BatchPlan = Callable[[int], Iterator[ShardTracks]]
"""Gives the batches, from the limit on the samples of one."""
Executor = Callable[[Teacher, Path, BatchPlan], Iterator[LabeledBatch]]
"""Labels batches of the shards in a folder, in whatever order they are done; only a few wait to be taken."""


def in_threads(teacher: Teacher, shards: Path, plan: BatchPlan) -> Iterator[LabeledBatch]:
    """Label with as many threads as torch has in this process, which share the teacher; each is one torch thread."""
    label = Labeler(teacher, shards)
    threads = torch.get_num_threads()
    with single_threads(workers=threads) as pool:
        yield from in_order(pool, label, plan(BATCH_SAMPLES["cpu"]), ahead=2 * threads)


ACTORS_PAY = 10
"""Actors are started if the work takes them this many times their start, or longer."""
START_SECONDS = 10.0
"""What Ray and its actors take until the first batch is under way, on two busy cores."""
_RESTARTS = 3  # of an actor that dies, and so often a batch is tried again
_WAITING = 2  # batches per actor that are under way or done: it finds the next when it has done one
_OBJECT_STORE_BYTES = 400 * 2**20  # a teacher, and a few batches' targets of at most some 40 MB


def choose_executor(actors: int, teacher: Teacher, seconds: float) -> Executor:
    """Return actors if so much music takes them much longer than their start, else threads."""
    pays = bool(actors) and seconds / teacher.speed / actors >= ACTORS_PAY * START_SECONDS
    workers = f"{actors} Ray actors" if pays else f"{torch.get_num_threads()} threads"
    logger.info("targets: %s s of music to label with %s, by %s", f"{seconds:,.0f}", teacher.name, workers)
    return partial(in_actors, actors) if pays else in_threads


class Actor:
    """One worker process."""

    def __init__(self, shards: Path, device: str) -> None:
        torch.set_num_threads(1)
        self._shards, self._device = shards, device
        self._label: Labeler | None = None

    def label(self, batch: ShardTracks, teacher: list[Any]) -> LabeledBatch:
        """Label one batch.

        Args:
            batch: the tracks.
            teacher: a reference to the teacher, in a list so that Ray leaves it a reference: it is fetched with the
                first batch alone, and anew by an actor that has been replaced.
        """
        if self._label is None:
            import ray

            self._label = Labeler(ray.get(teacher[0]).freeze(), self._shards, self._device)
        return self._label(batch)


def in_actors(actors: int, teacher: Teacher, shards: Path, plan: BatchPlan) -> Iterator[LabeledBatch]:
    """Label with so many Ray actors; where there are GPUs, with no more than those."""
    with ray_running(actors, 1, _OBJECT_STORE_BYTES):
        import ray

        gpus, cpus = cluster_gpus("auto"), int(ray.cluster_resources().get("CPU", 0))
        device = "cuda" if gpus else "cpu"
        count = max(1, min(actors, cpus, gpus or actors))  # one that finds no room would wait for ever
        remote: Any = ray.remote(Actor)
        options = {"num_gpus": int(gpus > 0), "max_restarts": _RESTARTS, "max_task_retries": _RESTARTS}
        pool = [remote.options(num_cpus=1, **options).remote(shards, device) for _ in range(count)]
        try:
            yield from _keep_busy(pool, ray.put(teacher), plan(BATCH_SAMPLES[device]))
        finally:
            for actor in pool:
                ray.kill(actor)


def _keep_busy(actors: list[Any], teacher: Any, batches: Iterator[ShardTracks]) -> Iterator[LabeledBatch]:
    """Give every actor its next batch before it has done the last, and yield results as they come."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    under_way: dict[Any, Any] = {}  # the actor of each batch
    free = actors * _WAITING
    while True:
        while free and (batch := next(batches, None)) is not None:
            actor = free.pop()
            under_way[actor.label.remote(batch, [teacher])] = actor
        if not under_way:
            return
        (reference,), _ = ray.wait(list(under_way), num_returns=1)
        free.append(under_way.pop(reference))
        try:
            yield ray.get(reference)
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, MertError) else MertError(f"a target actor failed: {error}")) from error
        except RayError as error:
            raise MertError(
                f"a target actor was lost ({error}). If it lacked memory, use fewer with targets.actors. Finished "
                "shards are kept; the same command goes on from there."
            ) from error
