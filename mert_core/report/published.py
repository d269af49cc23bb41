"""Published scores of the fourteen tasks: facts with their source, in percent (separation: dB)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mert_core.errors import MertError
from mert_core.probing.tasks import PUBLIC_TASKS

TABLE = Path(__file__).with_name("published.csv")
COLUMNS = ("source", "model", "task", "metric", "value")
OUR_NAMES = {"weighted": "weighted_score"}
"""Metrics that go by another name here."""


@dataclass(frozen=True)
class PublishedRow:
    """One published figure.

    Attributes:
        source: the paper it stands in.
        model: its name in the paper.
        task: one of the fourteen.
        metric: its name here.
        value: percent; dB for separation.
    """

    source: str
    model: str
    task: str
    metric: str
    value: float


@lru_cache(maxsize=1)
def published() -> tuple[PublishedRow, ...]:
    """Return all published figures that come with the package, in the order of the file."""
    return read_published(TABLE)


def read_published(path: Path) -> tuple[PublishedRow, ...]:
    """Return the figures of a table with the columns source, model, task, metric and value.

    Raises:
        MertError: the file cannot be read, a task is none of the fourteen, a value is no number, or a figure stands
            there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MertError(f"{path} cannot be read ({error}). It comes with the package: install it again.") from error
    if columns != COLUMNS:
        raise MertError(f"{path} has the columns {', '.join(columns)}; expected {', '.join(COLUMNS)}")
    figures = tuple(_figure(path, number, row) for number, row in enumerate(rows, 2))
    keys = [(figure.source, figure.model, figure.task, figure.metric) for figure in figures]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise MertError(f"{path} has two figures of {' · '.join(twice[0])}; expected one")
    return figures


def _figure(path: Path, line: int, row: dict[str, str]) -> PublishedRow:
    if row["task"] not in PUBLIC_TASKS:
        raise MertError(f"{path}, line {line}: the task is {row['task']!r}; expected one of {', '.join(PUBLIC_TASKS)}")
    try:
        value = float(row["value"])
    except (TypeError, ValueError) as error:
        raise MertError(f"{path}, line {line}: the value is {row['value']!r}; expected a number") from error
    metric = OUR_NAMES.get(row["metric"], row["metric"])
    return PublishedRow(row["source"], row["model"], row["task"], metric, value)


def published_models(figures: Sequence[PublishedRow]) -> list[tuple[str, str]]:
    """Return each (model, source) once, in the order of the figures."""
    return list(dict.fromkeys((figure.model, figure.source) for figure in figures))


def published_metrics(figures: Sequence[PublishedRow]) -> dict[str, tuple[str, ...]]:
    """Return the metrics that papers give for each of the fourteen tasks, in MARBLE's order of the tasks."""
    metrics: dict[str, dict[str, None]] = {task: {} for task in PUBLIC_TASKS}
    for figure in figures:
        metrics[figure.task].setdefault(figure.metric)
    return {task: tuple(names) for task, names in metrics.items()}


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
