"""Tasks one after the other in this process, or shared by Ray workers that each hold the encoder."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mert_core.probe.asking import Asked, Subject
from mert_core.probe.examination import examine
from mert_core.probe.results import Result

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

_OBJECT_STORE_BYTES = 200 * 2**20


def examine_all(subject: Subject, questions: list[Asked], config: Config, layout: Layout) -> Iterator[Result]:
    """Yield each task's outcome when it is there; what was skipped is said on the terminal.

    With ``probe.workers`` above 0 the order is that in which they end. The outcomes are the same.

    Raises:
        MertError: as `mert_core.probe.examination.examine`.
    """
    outcomes = (
        _shared(subject, questions, config, layout)
        if config.probe.workers
        else _alone(subject, questions, config, layout)
    )
    with tqdm(outcomes, desc=f"probe {subject.name}", total=len(questions), unit="task") as bar:
        for result in bar:
            bar.set_postfix_str(result.task)
            if result.skipped:
                bar.write(f"{result.task}: skipped, {result.skipped}", file=sys.stderr)
            yield result


def _alone(subject: Subject, questions: list[Asked], config: Config, layout: Layout) -> Iterator[Result]:
    encoder = subject.open(config, layout)
    for asked in questions:
        yield examine(asked, encoder, config, layout)


def _shared(subject: Subject, questions: list[Asked], config: Config, layout: Layout) -> Iterator[Result]:
    from mert_core.cluster import ray_running

    workers = min(config.probe.workers, len(questions))
    threads = max(1, config.threads // workers)
    with ray_running(workers, threads, _OBJECT_STORE_BYTES):
        import ray
        from ray.exceptions import RayTaskError

        def begin(asked: Asked) -> Any:
            return ray.remote(num_cpus=1)(_in_worker).remote(subject, asked, config.model_dump(), layout, threads)

        alike = _alike(questions)
        begun = {begin(group[0]): group[1:] for group in alike}
        while begun:
            (done,), _ = ray.wait(list(begun))
            begun |= {begin(asked): [] for asked in begun.pop(done)}
            try:
                yield ray.get(done)
            except RayTaskError as error:
                raise error.cause from error


def _alike(questions: list[Asked]) -> list[list[Asked]]:
    """Return the questions by what they have embedded: the first of each embeds it, the others find it in the cache."""
    groups: dict[Hashable, list[Asked]] = {}
    for asked in questions:
        groups.setdefault((asked.folder, asked.task.chunking, asked.task.pooling), []).append(asked)
    return list(groups.values())


_opened: dict[Subject, Any] = {}  # of a worker's process: the encoder outlives a task


def _in_worker(subject: Subject, asked: Asked, parameters: dict[str, Any], layout: Layout, threads: int) -> Result:
    import torch

    from mert_core.config import Config

    torch.set_num_threads(threads)
    config = Config.model_validate(parameters)
    if subject not in _opened:
        _opened.clear()
        _opened[subject] = subject.open(config, layout)
    return examine(asked, _opened[subject], config, layout)
