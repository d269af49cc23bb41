"""The stage ``probe@RUN``: a frozen encoder, or a baseline, on ``probe.tasks``; and ``mert probe`` for any task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.config import BASELINES
from mert_core.data.record import Record, read_record, write_record
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_json
from mert_core.probing.results import SkippedTask, TaskResult, write_results
from mert_core.probing.run import Subject, resolve, run_tasks, track_result
from mert_core.probing.tasks import FOURTEEN, TASKS, Task, robustness_tasks, tasks_named

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking import Tracker


def run(config: Config, layout: Layout, tracker: Tracker, run_name: str) -> Record:
    """Probe a named run's checkpoint, or a baseline, on the tasks of ``probe.tasks``.

    Writes ``scores.json``, ``layers.json``, ``robustness.json`` and ``answers/`` to ``layout.scores(run_name)``.

    Raises:
        MertError: no such run or task, a missing probe set or checkpoint, a data set that is not as it should be.
    """
    tasks = tasks_named(config.probe.tasks)
    tasks_named(robustness_tasks(config.probe))
    inputs = {}
    if any(task.is_demo for task in tasks):
        inputs["probe_set"] = read_record(layout.probe_set).id
    if run_name not in BASELINES:
        config.run(run_name)
        inputs["checkpoint"] = read_record(layout.model(run_name)).id
    tracker.params({"probed": run_name})
    resolved = [resolve(config, layout, task) for task in tasks]
    results: list[TaskResult | SkippedTask] = []
    for result in run_tasks(Subject(run_name), resolved, config, layout):
        results.append(result)
        track_result(tracker, run_name, result)
    order = [task.name for task in tasks]
    results.sort(key=lambda result: order.index(result.task))
    with atomic_folder(layout.scores(run_name)) as folder:
        write_results(folder, run_name, results)
        return write_record(
            folder,
            stage="probe",
            kind="scores",
            run=run_name,
            inputs=inputs | data_sets(results),
            params=_params(config),
            facts={"protocol": protocol_of_all(results), "encoder": results[0].encoder},
        )


def _params(config: Config) -> dict[str, Any]:
    """Return what a record says of the parameters, with the names of tasks that follow from their rows."""
    probe = config.probe.model_dump(mode="json")
    probe["robustness"]["tasks"] = robustness_tasks(config.probe)
    return {"seed": config.seed, "threads": config.threads, "probe": probe}


def data_sets(results: Sequence[TaskResult | SkippedTask]) -> dict[str, str]:
    """Return the test sets of tasks that are no proxies, for a record's inputs."""
    scored = [result for result in results if isinstance(result, TaskResult)]
    return {f"test_set/{result.task}": result.test_set for result in scored if not TASKS[result.task].is_demo}


def protocol_of_all(results: Sequence[TaskResult | SkippedTask]) -> str:
    """Return the hash of all tasks' protocols."""
    return sha256_json({result.task: result.protocol for result in results})


@dataclass(frozen=True)
class Request:
    """The options of ``mert probe``, checked.

    Attributes:
        subject: the encoder.
        tasks: all to be run.
        data: folder of the tasks' one data set; None: where the parameters say.
    """

    subject: Subject
    tasks: tuple[Task, ...]
    data: Path | None

    @classmethod
    def of(
        cls,
        config: Config,
        layout: Layout,
        run: str | None,
        model: str | None,
        name: str | None,
        tasks: Sequence[str] | None,
        data: Path | None,
    ) -> Request:
        """Check the options of ``mert probe``. The folder of a run of this checkout is that run.

        Raises:
            MertError: an unknown run or task, a folder that is missing, a name that is taken or no name.
        """
        chosen = tasks_named(tasks or list(FOURTEEN))
        if data is not None and not data.is_dir():
            raise MertError(f"--data {data}: no such folder; expected the data set as its authors lay it out")
        if data is not None and len({task.dataset for task in chosen}) > 1:
            raise MertError(
                f"--data is one data set's folder, but {len(chosen)} tasks of several are wanted; give --task"
            )
        if run is not None:
            if name is not None:
                raise MertError("--name goes with --model; a run has its name")
            if run not in BASELINES:
                config.run(run)
            return cls(Subject(run), tuple(chosen), data)
        assert model is not None
        own = Path(model).name
        if name is None and own in config.runs and Path(model).resolve() == layout.model(own):
            return cls(Subject(own), tuple(chosen), data)
        name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise MertError(f"--name {name!r}: expected letters, digits, dots and dashes")
        if name in BASELINES or name in config.runs:
            raise MertError(f"--name {name}: a run or floor of params.yaml is named so; give the model another --name")
        return cls(Subject(name, model), tuple(chosen), data)


def probe(config: Config, layout: Layout, tracker: Tracker, request: Request) -> str:
    """Probe, write ``layout.probed(name, task)`` for each task, and return the scores as text.

    Each task is written as soon as it is scored: a run that is killed keeps those before.

    Raises:
        MertError: as `mert_core.probing.run.evaluate_task`; or no task has its data set here.
    """
    subject = request.subject
    tasks = [resolve(config, layout, task, request.data) for task in request.tasks]
    absent = {resolved.task.name: resolved.absent for resolved in tasks if resolved.absent}
    if len(absent) == len(tasks):
        where = ", ".join(sorted({str(resolved.folder) for resolved in tasks}))
        raise MertError(
            f"{'; '.join(sorted({str(why) for why in absent.values()}))} (looked in {where}). Give its folder with "
            "--data, or in params.yaml (datasets.places); `mert doctor --datasets` says where to ask for it."
        )
    lines = []
    for result in run_tasks(subject, tasks, config, layout):
        track_result(tracker, subject.name, result)
        if isinstance(result, TaskResult):
            _write(config, layout, subject, result)
        lines.append(_line(result))
    return "\n".join(lines)


def _write(config: Config, layout: Layout, subject: Subject, result: TaskResult) -> None:
    inputs = data_sets([result])
    if subject.model is None and subject.name not in BASELINES:
        inputs["checkpoint"] = read_record(layout.model(subject.name)).id
    if TASKS[result.task].is_demo:
        inputs["probe_set"] = read_record(layout.probe_set).id
    with atomic_folder(layout.probed(subject.name, result.task)) as folder:
        write_results(folder, subject.name, [result])
        write_record(
            folder,
            stage="probe",
            kind="scores",
            run=subject.name,
            inputs=inputs,
            params=_params(config),
            facts={"protocol": result.protocol, "encoder": result.encoder},
        )


def _line(result: TaskResult | SkippedTask) -> str:
    if isinstance(result, SkippedTask):
        return f"{result.task}: skipped, {result.reason}"
    scores = ", ".join(
        f"{name} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
        for name, estimate in result.metrics.items()
    )
    left_out = f"; left out: {sum(result.left_out.values())}" if result.left_out else ""
    return (
        f"{result.task}: {scores} on {result.tracks} tracks, input {result.input}, rate {result.rate:g}, "
        f"protocol {result.protocol[:8]}{left_out}"
    )
