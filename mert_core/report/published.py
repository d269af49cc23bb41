"""Published scores of the fourteen tasks: facts with their source, in percent (separation: dB)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mert_core.errors import MertError
from mert_core.probe.tasks import FOURTEEN

TABLE = Path(__file__).with_name("published.csv")
COLUMNS = ("source", "model", "task", "metric", "value")
OUR_NAMES = {"weighted": "weighted_score"}
"""Metrics that go by another name here."""


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        source: the paper.
        model: as the paper calls it.
        task: one of the fourteen.
        metric: as it is called here.
        value: percent; of separation dB.
    """

    source: str
    model: str
    task: str
    metric: str
    value: float


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Return all published figures that come with the package, in the order of the file."""
    return read_published(TABLE)


def read_published(path: Path) -> tuple[Published, ...]:
    """Return the figures of a table with the columns source, model, task, metric and value.

    Raises:
        MertError: the file cannot be read, a task is none of the fourteen, a value is no number, or a figure stands
            there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows, found = list(reader), tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MertError(f"{path} cannot be read ({error}). It comes with the package: install it again.") from error
    if found != COLUMNS:
        raise MertError(f"{path} has the columns {', '.join(found)}; expected {', '.join(COLUMNS)}")
    figures = tuple(_figure(path, number, row) for number, row in enumerate(rows, 2))
    keys = [(figure.source, figure.model, figure.task, figure.metric) for figure in figures]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise MertError(f"{path} has two figures of {' · '.join(twice[0])}; expected one")
    return figures


def _figure(path: Path, line: int, row: dict[str, str]) -> Published:
    if row["task"] not in FOURTEEN:
        raise MertError(f"{path}, line {line}: the task is {row['task']!r}; expected one of {', '.join(FOURTEEN)}")
    try:
        value = float(row["value"])
    except (TypeError, ValueError) as error:
        raise MertError(f"{path}, line {line}: the value is {row['value']!r}; expected a number") from error
    metric = OUR_NAMES.get(row["metric"], row["metric"])
    return Published(row["source"], row["model"], row["task"], metric, value)


def published_models(figures: Sequence[Published]) -> list[tuple[str, str]]:
    """Return each (model, source) once, in the order of the figures."""
    return list(dict.fromkeys((figure.model, figure.source) for figure in figures))


def published_metrics(figures: Sequence[Published]) -> dict[str, tuple[str, ...]]:
    """Return the metrics that papers give for each of the fourteen tasks, in MARBLE's order of the tasks."""
    found: dict[str, dict[str, None]] = {task: {} for task in FOURTEEN}
    for figure in figures:
        found[figure.task].setdefault(figure.metric)
    return {task: tuple(metrics) for task, metrics in found.items()}
