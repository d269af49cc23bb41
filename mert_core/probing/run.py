"""Running tasks on one encoder: resolve the data sets, evaluate each task, alone or in Ray workers, and track it.

`validation_score` stops a task after the choice on validation, for the trials of a sweep.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mert_core.datasets.base import SPLITS, ClipSet
from mert_core.datasets.demo import Demo
from mert_core.datasets.registry import DATASETS, folder_of
from mert_core.errors import MertError
from mert_core.parallel import choose_device
from mert_core.probing.encoders.base import Encoder, ModelEncoder, fingerprint, identity
from mert_core.probing.encoders.load import load_encoder, open_encoder
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.evaluate.base import EvalInputs
from mert_core.probing.evaluate.clips import ClipEvaluator
from mert_core.probing.protocol import hash_of_tracks, note_test_read, protocol_hash, settings_of
from mert_core.probing.results import SkippedTask, TaskResult
from mert_core.probing.tasks import TASKS, Task, tasks_named

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.model.mert import MertModel
    from mert_core.paths import Layout
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
        if self.task.is_proxy or self.folder.is_dir():
            return None
        return f"{DATASETS[self.task.dataset].title} is not here"

    def clips(self) -> ClipSet:
        """Return the clips of the task's question.

        Raises:
            MertError: the data set is there, but not as it should be.
        """
        dataset = Demo() if self.task.is_proxy else DATASETS[self.task.dataset]
        return dataset.read(self.folder, self.task.question)


def resolve(config: Config, layout: Layout, task: Task, data: Path | None = None) -> ResolvedTask:
    """Return a task with its data set's folder: ``data``, or where the parameters say."""
    own = layout.probe_set if task.is_proxy else folder_of(config, layout, task.dataset)
    return ResolvedTask(task, data or own)


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
    if empty := [split for split in SPLITS if not clips.of(split)]:
        raise MertError(
            f"{task.name}: {resolved.folder} has no usable clip of the split {', '.join(empty)}"
            + (f" (left out: {clips.left_out})" if clips.left_out else "")
            + ". `mert doctor --datasets` says what is missing."
        )
    test_set = hash_of_tracks([(clip.clip_id, clip.sound.identity) for clip in clips.of("test")])
    model = fingerprint(encoder)

    def note_choice(input: int | str, rate: float) -> None:
        if not task.is_proxy:
            read = {"task": task.name, "model": model, "test_set": test_set}
            note_test_read(layout.state, **read, input=input, rate=rate, protocol=protocol)

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
    left_out = clips.left_out | result.left_out
    return replace(result, left_out=left_out, protocol=protocol, test_set=test_set, encoder=identity(encoder))


TRAIN_CLIPS = 600
"""Training clips of `validation_score` at most."""


def validation_score(model: MertModel, config: Config, layout: Layout, name: str) -> float:
    """Return the validation score of one task within seconds, by which a sweep compares its trials.

    The middle rates and one seed, at most 600 training clips, all validation clips; the test split is not touched, and
    nothing is cached. The model is left on its device and in its mode.

    Raises:
        MertError: no such task, one without an answer per clip, or its data set is not here.
    """
    (task,) = tasks_named([name])
    evaluator = EVALUATORS[task.kind]
    if not isinstance(evaluator, ClipEvaluator):
        raise MertError(f"{name} is no task for a sweep; expected one with an answer per clip, such as demo/gs_key")
    resolved = resolve(config, layout, task)
    if resolved.absent:
        raise MertError(f"{resolved.absent} (looked in {resolved.folder}); the sweep's task is {name}")
    clips = resolved.clips()
    train, valid = clips.of("train"), clips.of("valid")
    if len(train) > TRAIN_CLIPS:
        chosen = np.sort(np.random.default_rng(config.seed).choice(len(train), TRAIN_CLIPS, replace=False))
        train = [train[number] for number in chosen]
    settings = settings_of(config, task)
    rates = sorted(settings.rates)
    middle = rates[len(rates) // 4 : max(len(rates) // 4 + 1, -(-3 * len(rates) // 4))]
    training = model.training
    try:
        inputs = EvalInputs(
            task=task,
            clips=replace(clips, clips=(*train, *valid)),
            encoder=ModelEncoder(model),
            settings=settings.model_copy(update={"rates": middle, "seeds": settings.seeds[:1]}),
            seed=config.seed,
            caches=None,
            before_test=lambda chosen, rate: None,
        )
        return evaluator.select(inputs).choice.validation
    finally:
        model.train(training)


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
    if config.probe.workers:
        results = _run_in_workers(subject, tasks, config, layout)
    else:
        encoder = subject.open(config, layout)
        results = (evaluate_task(resolved, encoder, config, layout) for resolved in tasks)
    with tqdm(results, f"probe {subject.name}", len(tasks), unit="task") as bar:
        for result in bar:
            bar.set_postfix_str(result.task)
            if isinstance(result, SkippedTask):
                with logging_redirect_tqdm():
                    logger.warning("%s: skipped, %s", result.task, result.reason)
            yield result


def _run_in_workers(
    subject: Subject, tasks: list[ResolvedTask], config: Config, layout: Layout
) -> Iterator[TaskResult | SkippedTask]:
    from mert_core.cluster import cluster_gpus, ray_running

    workers = min(config.probe.workers, len(tasks))
    threads = max(1, config.threads // workers)
    with ray_running(workers, threads, _OBJECT_STORE_BYTES):
        import ray
        from ray.exceptions import RayError, RayTaskError

        gpus = min(1, cluster_gpus(config.device))

        def begin(resolved: ResolvedTask) -> Any:
            remote = ray.remote(num_cpus=1, num_gpus=gpus)(_in_worker)
            return remote.remote(subject, resolved, config, layout, threads)

        # Of tasks with the same embeddings the first one goes ahead; the others start when it has filled the cache.
        groups: defaultdict[Hashable, list[ResolvedTask]] = defaultdict(list)
        for resolved in tasks:
            groups[resolved.folder, resolved.task.chunking, resolved.task.pooling].append(resolved)
        waiting = {begin(group[0]): group[1:] for group in groups.values()}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            waiting |= {begin(resolved): [] for resolved in waiting.pop(done)}
            try:
                yield ray.get(done)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise MertError(
                    f"a probing worker was lost: {error}. It may lack memory: use fewer with probe.workers. Embeddings "
                    "made so far are kept; the same command goes on from there."
                ) from error


_opened: dict[Subject, Encoder] = {}  # in a worker's process: the encoder outlives a task


def _in_worker(
    subject: Subject, resolved: ResolvedTask, config: Config, layout: Layout, threads: int
) -> TaskResult | SkippedTask:
    torch.set_num_threads(threads)
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
