"""One task asked of one encoder: read the clips, train and choose, note the reading, score the test set."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mert_core.datasets.base import ClipSet
from mert_core.datasets.demo import Demo
from mert_core.datasets.registry import DATASETS, folder_of
from mert_core.errors import MertError
from mert_core.probing.encoders.base import Encoder, fingerprint, identity
from mert_core.probing.evaluate import JUDGES
from mert_core.probing.evaluate.case import EvalInputs
from mert_core.probing.protocol import SettledChoice, TestReadLog, hash_of_tracks, protocol_hash, settings_of
from mert_core.probing.results import Result
from mert_core.probing.tasks import TASKS, Task

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.probing.encoders.base import Encoder
    from mert_core.tracking import Tracker


@dataclass(frozen=True)
class Subject:
    """Who is probed.

    Attributes:
        name: as tables call it.
        model: folder or ``module:function``, for `mert_core.probing.encoders.load.open_encoder`; None: a run or floor.
    """

    name: str
    model: str | None = None

    def open(self, config: Config, layout: Layout) -> Encoder:
        """Return the encoder.

        Raises:
            MertError: no such run, or nothing that can be loaded.
        """
        from mert_core.parallel import choose_device
        from mert_core.probing.encoders.base import load_encoder

        if self.model is None:
            return load_encoder(config, layout, self.name)
        from mert_core.probing.encoders.load import open_encoder

        return open_encoder(self.model, choose_device(config.pretrain.device))


@dataclass(frozen=True)
class Asked:
    """A task with the folder of its data set."""

    task: Task
    folder: Path

    @property
    def absent(self) -> str | None:
        """Why it cannot be asked here; None if it can. The probe set is no data set to ask for: the line makes it."""
        if self.task.is_demo or self.folder.is_dir():
            return None
        return f"{DATASETS[self.task.dataset].title} is not here"

    def clips(self) -> ClipSet:
        """Return the clips of the task's question.

        Raises:
            MertError: the data set is there, but not as it should be.
        """
        data = Demo() if self.task.is_demo else DATASETS[self.task.dataset]
        return data.read(self.folder, self.task.question)


def tasks_named(names: Sequence[str]) -> list[Task]:
    """Return tasks by name.

    Raises:
        MertError: there is no such task; the message lists all.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise MertError(f"no task is named {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return [TASKS[name] for name in dict.fromkeys(names)]


def ask(config: Config, layout: Layout, task: Task, data: Path | None = None) -> Asked:
    """Return a task with its data set's folder: ``data``, or where the parameters say."""
    if task.is_demo:
        return Asked(task, data or layout.probe_set)
    return Asked(task, data or folder_of(config, layout, task.dataset))


@dataclass(frozen=True)
class _Notice:
    """Tells the ledger what was chosen, before the test set is read."""

    asked: Asked
    model: str
    test_set: str
    protocol: str
    ledger: TestReadLog

    def __call__(self, input: int | str, rate: float) -> None:
        if not self.asked.task.is_demo:
            choice = SettledChoice(input, rate, self.protocol)
            self.ledger.read(self.asked.task.name, self.model, self.test_set, choice)


def examine(asked: Asked, encoder: Encoder, config: Config, layout: Layout) -> Result:
    """Ask one task of one encoder. A task whose data set is not here is skipped, and says so.

    Raises:
        MertError: the data set is not as it should be, a split has no usable clip, the model has diverged, or the test
            set was read before under another choice.
    """
    task = asked.task
    protocol = protocol_hash(config, task)
    if asked.absent:
        return Result(task.name, skipped=asked.absent, protocol=protocol, encoder=identity(encoder))
    clips = asked.clips()
    _check(asked, clips)
    tests = hash_of_tracks([(clip.clip_id, clip.sound.identity) for clip in clips.of("test")])
    notice = _Notice(asked, fingerprint(encoder), tests, protocol, TestReadLog(layout.state))
    case = EvalInputs(
        task=task,
        clips=clips,
        encoder=encoder,
        settings=settings_of(config, task),
        seed=config.seed,
        caches=layout.caches,
        before_test=notice,
    )
    verdict, left_out, robustness = JUDGES[task.kind](case)
    return Result(
        task=task.name,
        verdict=verdict,
        protocol=protocol,
        left_out=clips.left_out | left_out,
        test_set=tests,
        robustness=robustness,
        encoder=identity(encoder),
    )


def _check(asked: Asked, clips: ClipSet) -> None:
    empty = [split for split in ("train", "valid", "test") if not clips.of(split)]
    if empty:
        raise MertError(
            f"{asked.task.name}: {asked.folder} has no usable clip of the split {', '.join(empty)}"
            + (f" (left out: {clips.left_out})" if clips.left_out else "")
            + ". `mert doctor --datasets` says what is missing."
        )


_OBJECT_STORE_BYTES = 200 * 2**20


def examine_all(subject: Subject, questions: list[Asked], config: Config, layout: Layout) -> Iterator[Result]:
    """Yield each task's outcome when it is there; what was skipped is said on the terminal.

    With ``probe.workers`` above 0 the order is that in which they end. The outcomes are the same.

    Raises:
        MertError: as `mert_core.probing.run.examine`.
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
    from mert_core.cluster import cluster_gpus, ray_running

    workers = min(config.probe.workers, len(questions))
    threads = max(1, config.threads // workers)
    with ray_running(workers, threads, _OBJECT_STORE_BYTES):
        import ray
        from ray.exceptions import RayTaskError

        gpus = min(1, cluster_gpus(config.pretrain.device))

        def begin(asked: Asked) -> Any:
            return ray.remote(num_cpus=1, num_gpus=gpus)(_in_worker).remote(
                subject, asked, config.model_dump(), layout, threads
            )

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


def track_result(tracker: Tracker, name: str, result: Result) -> None:
    """Record one task below the model's run, and its figure beside the model's others."""
    tags = {
        "mert.stage": "probe-task",
        "probe.model": name,
        "probe.task": result.task,
        "probe.protocol": result.protocol,
    }
    with tracker.child(f"probe-task/{name}/{result.task}", tags) as run:
        if result.verdict is None:
            run.tags({"probe.skipped": result.skipped})
            return
        verdict = result.verdict
        run.params(
            {
                "task": result.task,
                "dataset": TASKS[result.task].dataset,
                "input": verdict.input,
                "rate": verdict.rate,
                "tracks": verdict.tracks,
                "classes": verdict.classes,
                "left_out": result.left_out,
            }
        )
        for metric, figure in verdict.metrics.items():
            run.metrics({metric: figure.value, f"{metric}/low": figure.low, f"{metric}/high": figure.high})
        run.metrics({"validation": verdict.validation})
        for seed, value in enumerate(verdict.per_seed):
            run.metrics({"per_seed": value}, step=seed)
        for step, (_, value) in enumerate(verdict.by_input):
            run.metrics({"validation_by_input": value}, step=step)
        for deformation, points in result.robustness.items():
            for step, point in enumerate(points):
                run.metrics({f"robustness/{deformation}": point["value"]}, step=step)
    summary = verdict.summary
    tracker.metrics({f"{result.task}/{verdict.metric}": summary.value})
    tracker.metrics({f"{result.task}/low": summary.low, f"{result.task}/high": summary.high})
