"""Labelling one unit: samples in, targets and facts out. What threads and Ray actors do alike."""

from __future__ import annotations

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
from mert_core.targets.track_stats import TRACK_FACTS, track_facts
from mert_core.teachers.base import Teacher

BATCH_SAMPLES = {"cpu": 4_000_000, "cuda": 32_000_000}
"""Samples in one unit, padding included: almost three minutes, or 22. A longer track is a unit of its own."""


@dataclass(frozen=True)
class ShardPlan:
    """One PCM shard and its tracks.

    Attributes:
        shard: its number.
        pcm_sha256: of its bytes.
        rows: (tracks,) of the manifest, in order of their offsets.
        offsets: (tracks,) in samples.
        samples: (tracks,).
        facts: (tracks,) of `mert_core.targets.track_stats.TRACK_FACTS`, if they are known already.
    """

    shard: int
    pcm_sha256: str
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int64]
    facts: NDArray[np.void] | None = None

    @property
    def frames(self) -> int:
        """Frames of the target shard: up to the end of its last track."""
        return int((self.offsets + self.samples).max()) // HOP_SAMPLES


@dataclass(frozen=True)
class Unit:
    """Tracks of one shard that are labelled together.

    Attributes:
        shard: number of the shard.
        places: (tracks,) within the shard's plan.
        offsets: (tracks,) in samples.
        samples: (tracks,).
        facts: (tracks,) of `mert_core.targets.track_stats.TRACK_FACTS`, if they are known already.
    """

    shard: int
    places: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int64]
    facts: NDArray[np.void] | None = None


def plan_shards(corpus: Corpus) -> list[ShardPlan]:
    """Return the corpus's shards in order.

    Raises:
        MertError: the corpus's record does not know a shard.
    """
    shards = corpus.column("shard").astype(np.int64)
    offsets, files = corpus.column("offset_samples"), corpus.record.files
    order = np.lexsort((offsets, shards))
    plans = []
    for rows in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
        shard = int(shards[rows[0]])
        name = f"{SHARDS_NAME}/{pcm_shard_name(shard)}"
        if name not in files:
            raise MertError(f"the record of {corpus.folder} has no checksum of {name}. Run `dvc repro corpus`.")
        plans.append(ShardPlan(shard, files[name], rows, offsets[rows], corpus.samples[rows]))
    return plans


def units(plans: Iterable[ShardPlan], padded: bool, batch_samples: int) -> Iterator[Unit]:
    """Return each shard's tracks in units; they depend on the corpus alone, so that the targets' bytes do.

    Args:
        plans: shards.
        padded: whether tracks of different lengths may be labelled together, with silence after the shorter ones.
        batch_samples: the most in a unit of several tracks, padding included.
    """
    for plan in plans:
        places: list[int] = []
        for place in np.argsort(plan.samples, kind="stable").tolist():
            length = int(plan.samples[place])
            alike = padded or not places or length == plan.samples[places[0]]
            if places and (not alike or (len(places) + 1) * length > batch_samples):
                yield _unit(plan, places)
                places = []
            places.append(place)
        yield _unit(plan, places)


def _unit(plan: ShardPlan, places: list[int]) -> Unit:
    chosen = np.array(places, dtype=np.int64)
    facts = None if plan.facts is None else plan.facts[chosen]
    return Unit(plan.shard, chosen, plan.offsets[chosen], plan.samples[chosen], facts)


@dataclass(frozen=True)
class Labelled:
    """A unit's targets.

    Attributes:
        unit: the unit.
        targets: of each track, uint16 (frames, codebooks) or float16 (frames, bins).
        facts: of each track, (tracks,) of `TRACK_FACTS`.
    """

    unit: Unit
    targets: list[NDArray[Any]]
    facts: NDArray[np.void]


class Labeller:
    """A teacher over the shards of a corpus."""

    def __init__(self, teacher: Teacher, shards: Path, device: str = "cpu") -> None:
        self._teacher = teacher.to(device)
        self._reader = ShardReader(shards)
        self._device = device

    def __call__(self, unit: Unit) -> Labelled:
        """Label a unit's tracks, each as a whole.

        Raises:
            MertError: a shard cannot be read, or the teacher gives other targets than it declares.
        """
        kind = self._teacher.kind
        waveform = torch.zeros(len(unit.samples), int(unit.samples.max()))
        facts = np.zeros(len(unit.samples), dtype=TRACK_FACTS)
        for place, (offset, samples) in enumerate(zip(unit.offsets.tolist(), unit.samples.tolist(), strict=True)):
            pcm = self._reader.view(unit.shard, offset, samples)
            waveform[place, : len(pcm)] = torch.from_numpy(to_float32(pcm))
            facts[place] = track_facts(offset, pcm, None if unit.facts is None else unit.facts[place])
        with torch.inference_mode():
            found = self._teacher(waveform.to(self._device)).cpu().numpy()
        frames = unit.samples // HOP_SAMPLES
        if found.shape[0] != len(frames) or found.shape[1] < frames.max() or found.shape[2] != kind.width:
            raise MertError(
                f"the teacher {self._teacher.name} gave targets of shape {found.shape} for {len(frames)} tracks of up "
                f"to {frames.max()} frames; it declares {kind}"
            )
        return Labelled(
            unit, [_stored(found[place, :count], kind) for place, count in enumerate(frames.tolist())], facts
        )


def _stored(targets: NDArray[Any], kind: Any) -> NDArray[Any]:
    """Return targets as they are stored; a code below 0 becomes the largest number, a value beyond float16 infinite."""
    if isinstance(kind, Codes):
        targets = np.where(targets < 0, np.iinfo(np.uint16).max, np.minimum(targets, np.iinfo(np.uint16).max))
    with np.errstate(over="ignore"):
        return targets.astype(number_type(kind))


Plan = Callable[[int], Iterator[Unit]]
"""Gives the units, from the most samples that one may have."""
Crew = Callable[[Teacher, Path, Plan], Iterator[Labelled]]
"""Labels units of the shards of a folder, in whatever order they are done; only a few wait to be taken."""


def in_threads(teacher: Teacher, shards: Path, plan: Plan) -> Iterator[Labelled]:
    """Label with as many threads as torch has in this process, which share the teacher; each is one torch thread."""
    label = Labeller(teacher, shards)
    threads = torch.get_num_threads()
    with single_threads(workers=threads) as pool:
        yield from in_order(pool, label, plan(BATCH_SAMPLES["cpu"]), ahead=2 * threads)


START_SECONDS = 10.0
"""What Ray and its actors take until the first unit is under way, on two busy cores."""
_RESTARTS = 3  # of an actor that dies, and so often a unit is tried again
_WAITING = 2  # units per actor that are under way or done: it finds the next when it has done one
_OBJECT_STORE_BYTES = 400 * 2**20  # a teacher, and a few units' targets of at most some 40 MB


class Actor:
    """One worker process."""

    def __init__(self, shards: Path, device: str) -> None:
        torch.set_num_threads(1)
        self._shards, self._device = shards, device
        self._label: Labeller | None = None

    def label(self, unit: Unit, teacher: list[Any]) -> Labelled:
        """Label one unit.

        Args:
            unit: the unit.
            teacher: a reference to it, in a list so that Ray leaves it a reference: it is fetched with the first unit
                alone, and anew by an actor that has been replaced.
        """
        if self._label is None:
            import ray

            self._label = Labeller(ray.get(teacher[0]).freeze(), self._shards, self._device)
        return self._label(unit)


def with_actors(actors: int) -> Crew:
    """Return a crew of so many actors; where there are GPUs, of no more than those."""
    return partial(_label, actors)


def _label(actors: int, teacher: Teacher, shards: Path, plan: Plan) -> Iterator[Labelled]:
    with ray_running(actors, 1, _OBJECT_STORE_BYTES):
        import ray

        cards, processors = cluster_gpus("auto"), int(ray.cluster_resources().get("CPU", 0))
        device = "cuda" if cards else "cpu"
        count = max(1, min(actors, processors, cards or actors))  # one that finds no room would wait for ever
        make: Any = ray.remote(num_cpus=1, num_gpus=int(cards > 0), max_restarts=_RESTARTS, max_task_retries=_RESTARTS)(
            Actor
        )
        shared = ray.put(teacher)
        crew = [make.remote(shards, device) for _ in range(count)]
        try:
            yield from _all(crew, shared, plan(BATCH_SAMPLES[device]))
        finally:
            for actor in crew:
                ray.kill(actor)


def _all(crew: list[Any], teacher: Any, units: Iterator[Unit]) -> Iterator[Labelled]:
    """Keep every actor busy, and take what is done; no more than a few units are under way."""
    import ray

    under_way: dict[Any, int] = {}
    free = list(range(len(crew))) * _WAITING
    exhausted = False
    while not exhausted or under_way:
        while free and not exhausted:
            unit = next(units, None)
            if unit is None:
                exhausted = True
                break
            number = free.pop()
            under_way[crew[number].label.remote(unit, [teacher])] = number
        if not under_way:
            break
        done, _ = ray.wait(list(under_way), num_returns=1)
        for reference in done:
            free.append(under_way.pop(reference))
            yield _result(reference)


def _result(reference: Any) -> Labelled:
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, MertError) else MertError(f"a target actor failed: {error}")) from error
    except RayActorError as error:
        raise MertError(
            f"a target actor died more than {_RESTARTS} times ({error}). It may lack memory: use fewer with "
            "targets.actors. Finished shards are kept; the same command goes on from there."
        ) from error
