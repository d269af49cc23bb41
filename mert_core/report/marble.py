"""MARBLE's average (arXiv 2306.10548): the mean over the fourteen of the mean of each one's metrics, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mert_core.report.published import published, published_metrics

BESIDE = "f_measure_20ms"
BESIDE_ENDING = "_museval"
MOST_NAMED = 4


@dataclass(frozen=True)
class Average:
    """An average, if it can be had.

    Attributes:
        value: percent; None if a figure is missing.
        missing: ``TASK METRIC`` of each figure that is missing.
    """

    value: float | None
    missing: tuple[str, ...]

    @property
    def note(self) -> str:
        """What is missing, in words; empty if nothing is."""
        if not self.missing:
            return ""
        shown = ", ".join(self.missing[:MOST_NAMED]) + (" and more" if len(self.missing) > MOST_NAMED else "")
        return f"{len(self.missing)} figure{'s are' if len(self.missing) > 1 else ' is'} missing: {shown}"


def counts(metric: str) -> bool:
    """Return whether a metric is part of the average: beats at ±20 ms and museval's SDR are reported beside it."""
    return metric != BESIDE and not metric.endswith(BESIDE_ENDING)


def fourteen_metrics() -> dict[str, tuple[str, ...]]:
    """Return what is averaged: of each of the fourteen tasks the metrics that MARBLE's paper reports."""
    return published_metrics(published())


def average(figures: Mapping[str, Mapping[str, float]], expected: Mapping[str, Sequence[str]]) -> Average:
    """Return the mean over the tasks of the mean of each one's metrics.

    Separation goes in as the mean of its SDRs in dB beside percentages, as MARBLE has it.

    Args:
        figures: task to metric to value: percent, or dB.
        expected: task to its metrics. Others do not count; a task without metrics is missing.
    """
    missing = [task for task, metrics in expected.items() if not metrics]
    missing += [
        f"{task} {metric}"
        for task, metrics in expected.items()
        for metric in metrics
        if metric not in figures.get(task, {})
    ]
    if missing or not expected:
        return Average(None, tuple(missing))
    means = [sum(figures[task][metric] for metric in metrics) / len(metrics) for task, metrics in expected.items()]
    return Average(sum(means) / len(means), ())
