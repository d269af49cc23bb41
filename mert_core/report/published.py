"""Published scores of the fourteen tasks, facts with their source in percent (separation: dB), and MARBLE's average."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mert_core.errors import MertError
from mert_core.probing.tasks import PUBLIC_TASKS

TABLE = Path(__file__).with_name("published.csv")
OUR_NAMES = {"weighted": "weighted_score"}
"""Metrics that go by another name here."""

BESIDE = "f_measure_20ms"
BESIDE_ENDING = "_museval"
MOST_NAMED = 4


class PublishedRow(NamedTuple):
    """One published figure: the paper, the model's name there, task, metric (by its name here) and value."""

    source: str
    model: str
    task: str
    metric: str
    value: float


@cache
def published(path: Path = TABLE) -> tuple[PublishedRow, ...]:
    """Return all published figures that come with the package, or those of another table, in the order of the file.

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
    if columns != PublishedRow._fields:
        raise MertError(f"{path} has the columns {', '.join(columns)}; expected {', '.join(PublishedRow._fields)}")
    figures: dict[tuple[str, ...], PublishedRow] = {}
    for number, row in enumerate(rows, 2):
        source, model, task, metric = (row[name] for name in columns[:-1])
        if task not in PUBLIC_TASKS:
            raise MertError(f"{path}, line {number}: the task is {task!r}; expected one of {', '.join(PUBLIC_TASKS)}")
        try:
            value = float(row["value"])
        except (TypeError, ValueError) as error:
            raise MertError(f"{path}, line {number}: the value is {row['value']!r}; expected a number") from error
        key = source, model, task, OUR_NAMES.get(metric, metric)
        if key in figures:
            raise MertError(f"{path} has two figures of {' · '.join(key)}; expected one")
        figures[key] = PublishedRow(*key, value)
    return tuple(figures.values())


@cache
def fourteen_metrics() -> dict[str, tuple[str, ...]]:
    """Return the metrics that papers report for each of the fourteen tasks, in MARBLE's order: what is averaged."""
    return {task: tuple(dict.fromkeys(row.metric for row in published() if row.task == task)) for task in PUBLIC_TASKS}


class Average(NamedTuple):
    """An average in percent, None if a figure is missing, and ``TASK METRIC`` of each figure that is missing."""

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


def average(figures: Mapping[tuple[str, str], float], expected: Mapping[str, Sequence[str]]) -> Average:
    """Return the mean over the tasks of the mean of each one's metrics.

    Separation goes in as the mean of its SDRs in dB beside percentages, as MARBLE has it.

    Args:
        figures: value, percent or dB, by task and metric.
        expected: task to its metrics. Others do not count; a task without metrics is missing.
    """
    missing = [task for task, metrics in expected.items() if not metrics]
    missing += [f"{task} {name}" for task, names in expected.items() for name in names if (task, name) not in figures]
    if missing or not expected:
        return Average(None, tuple(missing))
    means = [sum(figures[task, metric] for metric in metrics) / len(metrics) for task, metrics in expected.items()]
    return Average(sum(means) / len(means), ())
