"""Labelling with Ray actors: a copy of the teacher in each, one torch thread, a GPU where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mert_core.cluster import ray_running
from mert_core.errors import MertError
from mert_core.targets.crew import Crew, Plan
from mert_core.targets.label import Labelled, Labeller
from mert_core.targets.plan import BATCH_SAMPLES, Unit
from mert_core.teachers.base import Teacher

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

        there = ray.cluster_resources()
        cards, processors = (int(there.get(name, 0)) for name in ("GPU", "CPU"))
        device = "cuda" if cards else "cpu"
        count = max(1, min(actors, processors, cards or actors))  # one that finds no room would wait for ever
        make: Any = ray.remote(
            num_cpus=1, num_gpus=int(cards > 0), max_restarts=_RESTARTS, max_task_retries=_RESTARTS
        )(Actor)  # fmt: skip
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
