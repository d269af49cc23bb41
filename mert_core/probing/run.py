"""Running tasks on one encoder: resolve the data sets, evaluate each task, alone or in Ray workers, and track it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mert_core.datasets.base import ClipSet
from mert_core.datasets.demo import Demo
from mert_core.datasets.registry import DATASETS, folder_of
from mert_core.errors import MertError
from mert_core.probing.encoders.base import Encoder, fingerprint, identity
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.protocol import SettledChoice, TestReadLog, hash_of_tracks, protocol_hash, settings_of
from mert_core.probing.results import SkippedTask, TaskResult
from mert_core.probing.tasks import TASKS, Task

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.probing.encoders.base import Encoder
    from mert_core.tracking import Tracker


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """The encoder that is probed.

    Attributes:
        name: identifier in tables and folders.
        model: folder or ``module:function``, for `mert_core.probing.encoders.load.open_encoder`; None: a run or
            baseline of the parameters.
    """

    name: str
    model: str | None = None

    def open(self, config: Config, layout: Layout) -> Encoder:
        """Return the encoder.

        Raises:
            MertError: no such run, or nothing that can be loaded.
        """
        from mert_core.parallel import choose_device
        from mert_core.probing.encoders.load import load_encoder, open_encoder

        if self.model is None:
            return load_encoder(config, layout, self.name)
        return open_encoder(self.model, choose_device(config.device))


@dataclass(frozen=True)
class ResolvedTask:
    """A task with the folder of its data set."""

    task: Task
    folder: Path

    @property
    def absent(self) -> str | None:
        """Why the task cannot run here; None if it can. A proxy always can: the pipeline makes its probe set."""
        if self.task.is_demo or self.folder.is_dir():
            return None
        return f"{DATASETS[self.task.dataset].title} is not here"

    def clips(self) -> ClipSet:
        """Return the clips of the task's question.

        Raises:
            MertError: the data set is there, but not as it should be.
        """
        dataset = Demo() if self.task.is_demo else DATASETS[self.task.dataset]
        return dataset.read(self.folder, self.task.question)

    def check(self, clips: ClipSet) -> None:
        """Refuse clips of which a split has none.

        Raises:
            MertError: names the split and what was left out.
        """
        empty = [split for split in ("train", "valid", "test") if not clips.of(split)]
        if empty:
            raise MertError(
                f"{self.task.name}: {self.folder} has no usable clip of the split {', '.join(empty)}"
                + (f" (left out: {clips.left_out})" if clips.left_out else "")
                + ". `mert doctor --datasets` says what is missing."
            )


def resolve(config: Config, layout: Layout, task: Task, data: Path | None = None) -> ResolvedTask:
    """Return a task with its data set's folder: ``data``, or where the parameters say."""
    if task.is_demo:
        return ResolvedTask(task, data or layout.probe_set)
    return ResolvedTask(task, data or folder_of(config, layout, task.dataset))


def evaluate_task(resolved: ResolvedTask, encoder: Encoder, config: Config, layout: Layout) -> TaskResult | SkippedTask:
    """Score one task with one encoder. A task whose data set is not here is skipped.

    Raises:
        MertError: the data set is not as it should be, a split has no usable clip, the model has diverged, or the test
            set was read before under another choice.
    """
    task = resolved.task
    protocol = protocol_hash(config, task)
    if resolved.absent:
        return SkippedTask(task.name, resolved.absent, protocol, identity(encoder))
    clips = resolved.clips()
    resolved.check(clips)
    test_set = hash_of_tracks([(clip.clip_id, clip.sound.identity) for clip in clips.of("test")])
    model = fingerprint(encoder)
    test_reads = TestReadLog(layout.state)

    def note_choice(input: int | str, rate: float) -> None:
        if not task.is_demo:
            test_reads.read(task.name, model, test_set, SettledChoice(input, rate, protocol))

    inputs = EvalInputs(
        task=task,
        clips=clips,
        encoder=encoder,
        settings=settings_of(config, task),
        seed=config.seed,
        caches=layout.caches,
        before_test=note_choice,
    )
    result = EVALUATORS[task.kind].evaluate(inputs)
    return replace(
        result,
        left_out=clips.left_out | result.left_out,
        protocol=protocol,
        test_set=test_set,
        encoder=identity(encoder),
    )


_OBJECT_STORE_BYTES = 200 * 2**20


def run_tasks(
    subject: Subject, tasks: list[ResolvedTask], config: Config, layout: Layout
) -> Iterator[TaskResult | SkippedTask]:
    """Yield each task's result as soon as it is there; skipped tasks are logged.

    With ``probe.workers`` above 0 tasks run in Ray workers, and the order is that in which they end. The results are
    the same.

    Raises:
        MertError: as `evaluate_task`.
    """
    run = _run_in_workers if config.probe.workers else _run_here
    with tqdm(run(subject, tasks, config, layout), f"probe {subject.name}", len(tasks), unit="task") as bar:
        for result in bar:
            bar.set_postfix_str(result.task)
            if isinstance(result, SkippedTask):
                with logging_redirect_tqdm():
                    logger.warning("%s: skipped, %s", result.task, result.reason)
            yield result


def _run_here(
    subject: Subject, tasks: list[ResolvedTask], config: Config, layout: Layout
) -> Iterator[TaskResult | SkippedTask]:
    encoder = subject.open(config, layout)
    for resolved in tasks:
        yield evaluate_task(resolved, encoder, config, layout)


def _run_in_workers(
    subject: Subject, tasks: list[ResolvedTask], config: Config, layout: Layout
) -> Iterator[TaskResult | SkippedTask]:
    from mert_core.cluster import cluster_gpus, ray_running

    workers = min(config.probe.workers, len(tasks))
    threads = max(1, config.threads // workers)
    with ray_running(workers, threads, _OBJECT_STORE_BYTES):
        import ray
        from ray.exceptions import RayTaskError

        gpus = min(1, cluster_gpus(config.device))

        def begin(resolved: ResolvedTask) -> Any:
            return ray.remote(num_cpus=1, num_gpus=gpus)(_in_worker).remote(
                subject, resolved, config.model_dump(), layout, threads
            )

        # Of tasks with the same embeddings the first one goes ahead; the others start when it has filled the cache.
        waiting = {begin(group[0]): group[1:] for group in _by_embeddings(tasks)}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            waiting |= {begin(resolved): [] for resolved in waiting.pop(done)}
            try:
                yield ray.get(done)
            except RayTaskError as error:
                raise error.cause from error


def _by_embeddings(tasks: list[ResolvedTask]) -> list[list[ResolvedTask]]:
    """Return the tasks in groups that need the same embeddings."""
    groups: dict[Hashable, list[ResolvedTask]] = {}
    for resolved in tasks:
        groups.setdefault((resolved.folder, resolved.task.chunking, resolved.task.pooling), []).append(resolved)
    return list(groups.values())


_opened: dict[Subject, Any] = {}  # in a worker's process: the encoder outlives a task


def _in_worker(
    subject: Subject, resolved: ResolvedTask, parameters: dict[str, Any], layout: Layout, threads: int
) -> TaskResult | SkippedTask:
    import torch

    from mert_core.config import Config

    torch.set_num_threads(threads)
    config = Config.model_validate(parameters)
    if subject not in _opened:
        _opened.clear()
        _opened[subject] = subject.open(config, layout)
    return evaluate_task(resolved, _opened[subject], config, layout)


def track_result(tracker: Tracker, name: str, result: TaskResult | SkippedTask) -> None:
    """Record one task below the model's run, and its score beside the model's others."""
    tags = {
        "mert.stage": "probe-task",
        "probe.model": name,
        "probe.task": result.task,
        "probe.protocol": result.protocol,
    }
    with tracker.child(f"probe-task/{name}/{result.task}", tags) as run:
        if isinstance(result, SkippedTask):
            run.tags({"probe.skipped": result.reason})
            return
        params = ("task", "input", "rate", "tracks", "classes", "left_out")
        run.params({key: getattr(result, key) for key in params} | {"dataset": TASKS[result.task].dataset})
        for metric, estimate in result.metrics.items():
            run.metrics({metric: estimate.value, f"{metric}/low": estimate.low, f"{metric}/high": estimate.high})
        run.metrics({"validation": result.validation})
        for seed, value in enumerate(result.per_seed):
            run.metrics({"per_seed": value}, step=seed)
        for step, (_, value) in enumerate(result.by_input):
            run.metrics({"validation_by_input": value}, step=step)
        for deformation, points in result.robustness.items():
            for step, point in enumerate(points):
                run.metrics({f"robustness/{deformation}": point["value"]}, step=step)
    summary = result.summary
    tracker.metrics({f"{result.task}/{result.metric}": summary.value})
    tracker.metrics({f"{result.task}/low": summary.low, f"{result.task}/high": summary.high})
