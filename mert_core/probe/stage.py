"""The stage ``probe@RUN``: a frozen encoder, or a floor, on all tasks of ``probe.tasks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mert_core.files import atomic_folder, sha256_json
from mert_core.probe.asking import Subject, ask, tasks_named
from mert_core.probe.results import Result, write_results
from mert_core.probe.spread import examine_all
from mert_core.probe.tasks import FLOORS, TASKS
from mert_core.probe.tracked import track_result
from mert_core.records import Record, read_record, write_record

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking import Tracker


def run(config: Config, layout: Layout, tracker: Tracker, run_name: str) -> Record:
    """Probe a named run's checkpoint, or a floor, on the tasks of ``probe.tasks``.

    Writes ``scores.json``, ``layers.json``, ``robustness.json`` and ``answers/`` to ``layout.scores(run_name)``.

    Raises:
        MertError: no such run or task, a missing probe set or checkpoint, a data set that is not as it should be.
    """
    tasks = tasks_named(config.probe.tasks)
    tasks_named(config.probe.robustness.tasks)
    inputs = {}
    if any(task.is_demo for task in tasks):
        inputs["probe_set"] = read_record(layout.probe_set).id
    if run_name not in FLOORS:
        config.run(run_name)
        inputs["checkpoint"] = read_record(layout.model(run_name)).id
    tracker.params({"probed": run_name})
    results = []
    for result in examine_all(Subject(run_name), [ask(config, layout, task) for task in tasks], config, layout):
        results.append(result)
        track_result(tracker, run_name, result)
    order = [task.name for task in tasks]
    results.sort(key=lambda result: order.index(result.task))
    with atomic_folder(layout.scores(run_name)) as folder:
        write_results(folder, run_name, results)
        return write_record(
            folder, stage="probe", kind="scores", run=run_name, inputs=inputs | data_sets(results),
            params={"seed": config.seed, "threads": config.threads, "probe": config.probe.model_dump(mode="json")},
            facts={"protocol": protocol_of_all(results), "encoder": results[0].encoder},
        )  # fmt: skip


def data_sets(results: list[Result]) -> dict[str, str]:
    """Return the test sets of tasks that are no stand-ins, for a record's inputs."""
    return {f"test_set/{item.task}": item.test_set for item in results if item.verdict and not TASKS[item.task].is_demo}


def protocol_of_all(results: list[Result]) -> str:
    """Return the hash of all tasks' protocols."""
    return sha256_json({result.task: result.protocol for result in results})
