"""The stage ``probe@RUN``: a frozen encoder, or a baseline, on ``probe.tasks``; and ``mert probe`` for any task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.config import BASELINES
from mert_core.data.record import Record, read_record, write_record
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_json
from mert_core.probing.results import SkippedTask, TaskResult, write_results
from mert_core.probing.run import ResolvedTask, Subject, resolve, run_tasks, track_result
from mert_core.probing.tasks import PUBLIC_TASKS, TASKS, Task, robustness_tasks, tasks_named

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
    if run_name not in BASELINES:
        config.run(run_name)
    subject = Subject(run_name)
    inputs = _inputs(layout, subject, tasks)
    tracker.params({"probed": run_name})
    results: list[TaskResult | SkippedTask] = []
    for result in run_tasks(subject, [resolve(config, layout, task) for task in tasks], config, layout):
        results.append(result)
        track_result(tracker, run_name, result)
    order = [task.name for task in tasks]
    results.sort(key=lambda result: order.index(result.task))
    protocol = sha256_json({result.task: result.protocol for result in results})
    return _write(layout.scores(run_name), config, subject, results, inputs, protocol)


def requested(
    config: Config,
    layout: Layout,
    *,
    run: str | None = None,
    model: str | None = None,
    name: str | None = None,
    tasks: Sequence[str] | None = None,
    data: Path | None = None,
) -> tuple[Subject, list[ResolvedTask]]:
    """Return the encoder and the tasks that the options of ``mert probe`` ask for.

    The folder of a run of this checkout is that run.

    Args:
        config: parameters.
        layout: where things are.
        run: a run or baseline of the parameters; None: ``model`` is given.
        model: folder or ``module:function``.
        name: what tables call the model; the folder's name by default.
        tasks: names or patterns; the fourteen by default.
        data: folder of the tasks' one data set; None: where the parameters say.

    Raises:
        MertError: an unknown run or task, a folder that is missing, a name that is taken or no name.
    """
    chosen = tasks_named(tasks or list(PUBLIC_TASKS))
    if data is not None and not data.is_dir():
        raise MertError(f"--data {data}: no such folder; expected the data set as its authors lay it out")
    if data is not None and len({task.dataset for task in chosen}) > 1:
        raise MertError(f"--data is one data set's folder, but {len(chosen)} tasks of several are wanted; give --task")
    resolved = [resolve(config, layout, task, data) for task in chosen]
    if run is not None:
        if name is not None:
            raise MertError("--name goes with --model; a run has its name")
        if run not in BASELINES:
            config.run(run)
        return Subject(run), resolved
    assert model is not None
    own = Path(model).name
    if name is None and own in config.runs and Path(model).resolve() == layout.model(own):
        return Subject(own), resolved
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise MertError(f"--name {name!r}: expected letters, digits, dots and dashes")
    if name in BASELINES or name in config.runs:
        raise MertError(f"--name {name}: a run or baseline of params.yaml is named so; give the model another --name")
    return Subject(name, model), resolved


def probe(config: Config, layout: Layout, tracker: Tracker, subject: Subject, tasks: list[ResolvedTask]) -> str:
    """Probe, write ``layout.probed(name, task)`` for each task, and return the scores as text.

    Each task is written as soon as it is scored: a run that is killed keeps those before.

    Raises:
        MertError: as `mert_core.probing.run.evaluate_task`; or no task has its data set here.
    """
    absent = [resolved.absent for resolved in tasks if resolved.absent]
    if len(absent) == len(tasks):
        where = ", ".join(sorted({str(resolved.folder) for resolved in tasks}))
        raise MertError(
            f"{'; '.join(sorted(set(absent)))} (looked in {where}). Give its folder with "
            "--data, or in params.yaml (datasets.places); `mert doctor --datasets` says where to ask for it."
        )
    lines = []
    for result in run_tasks(subject, tasks, config, layout):
        track_result(tracker, subject.name, result)
        if isinstance(result, TaskResult):
            inputs = _inputs(layout, subject, [TASKS[result.task]])
            _write(layout.probed(subject.name, result.task), config, subject, [result], inputs, result.protocol)
        lines.append(_line(result))
    return "\n".join(lines)


def _inputs(layout: Layout, subject: Subject, tasks: Sequence[Task]) -> dict[str, str]:
    """Return the ids of the records of what probing reads here: the proxies' probe set and a run's checkpoint."""
    inputs = {}
    if any(task.is_proxy for task in tasks):
        inputs["probe_set"] = read_record(layout.probe_set).id
    if subject.model is None and subject.name not in BASELINES:
        inputs["checkpoint"] = read_record(layout.model(subject.name)).id
    return inputs


def _write(
    path: Path,
    config: Config,
    subject: Subject,
    results: Sequence[TaskResult | SkippedTask],
    inputs: dict[str, str],
    protocol: str,
) -> Record:
    scored = [result for result in results if isinstance(result, TaskResult) and not TASKS[result.task].is_proxy]
    settings = config.probe.model_dump(mode="json")
    settings["robustness"]["tasks"] = robustness_tasks(config.probe)  # by name, where they follow from their rows
    with atomic_folder(path) as folder:
        write_results(folder, subject.name, results)
        return write_record(
            folder,
            stage="probe",
            kind="scores",
            run=subject.name,
            inputs=inputs | {f"test_set/{result.task}": result.test_set for result in scored},
            params={"seed": config.seed, "threads": config.threads, "probe": settings},
            facts={"protocol": protocol, "encoder": results[0].encoder},
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
