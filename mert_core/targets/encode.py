"""Running a teacher over a corpus, shard by shard; what was made before is used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import SHARDS_NAME
from mert_core.targets.crew import Crew
from mert_core.targets.facts import TRACK_FACTS
from mert_core.targets.form import number_type
from mert_core.targets.kept import Kept, Made
from mert_core.targets.known import KnownFacts
from mert_core.targets.label import Labelled
from mert_core.targets.plan import ShardPlan, Unit, units
from mert_core.targets.tally import tally
from mert_core.teachers.base import Teacher

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
