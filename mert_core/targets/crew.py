"""Who labels: threads of this process, or Ray actors. Both give the same bytes; they differ in how wide the work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from mert_core.targets.label import Labelled, Labeller
from mert_core.targets.plan import BATCH_SAMPLES, Unit
from mert_core.teachers.base import Teacher
from mert_core.workers import in_order, single_threads

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
