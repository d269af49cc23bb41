"""Who labels: threads of this process, or Ray actors. Both give the same bytes; they differ in how wide the work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import torch

from mert_core.targets.label import Labelled, Labeller
from mert_core.targets.plan import BATCH_SAMPLES, Unit
from mert_core.teachers.base import Teacher
from mert_core.workers import single_threads

Plan = Callable[[int], Iterator[Unit]]
"""Gives the units, from the most samples that one may have."""
Crew = Callable[[Teacher, Path, Plan], Iterator[Labelled]]
"""Labels units of the shards of a folder, in whatever order they are done; only a few wait to be taken."""

_WAITING = 2  # units per thread that are under way or done


def in_threads(teacher: Teacher, shards: Path, plan: Plan) -> Iterator[Labelled]:
    """Label with as many threads as torch has in this process, which share the teacher; each is one torch thread."""
    label = Labeller(teacher, shards)
    threads = torch.get_num_threads()
    with single_threads(workers=threads) as pool:
        under_way: set[Future[Labelled]] = set()
        try:
            for unit in plan(BATCH_SAMPLES["cpu"]):
                under_way.add(pool.submit(label, unit))
                if len(under_way) >= _WAITING * threads:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in under_way:
                future.cancel()
