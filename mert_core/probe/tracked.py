"""A task's outcome in MLflow: one run per model and task, below the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mert_core.probe.results import Result
from mert_core.probe.tasks import TASKS

if TYPE_CHECKING:
    from mert_core.tracking import Tracker


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
        run.params({
            "task": result.task, "dataset": TASKS[result.task].dataset, "input": verdict.input, "rate": verdict.rate,
            "tracks": verdict.tracks, "classes": verdict.classes, "left_out": result.left_out,
        })  # fmt: skip
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
