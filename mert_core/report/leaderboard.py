"""The scores of everything probed here, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probe import FLOORS, TASKS
from mert_core.records import RECORD_NAME
from mert_core.report.collect import Scores, read_scores
from mert_core.report.judge import beats, unlike

if TYPE_CHECKING:
    from mert_core.config import Config

ABSENT = "–"


def leaderboard(config: Config, layout: Layout) -> str:
    """Return a text table: one line per probed run, best mean first, the floors below, intervals beside the scores.

    A ``*`` marks a score whose whole interval lies above that of every floor.

    Raises:
        MertError: nothing has been probed yet.
    """
    top = layout.scores("any").parent
    runs = sorted(path.parent.name for path in top.glob(f"*/{RECORD_NAME}") if not path.parent.name.startswith("."))
    if not runs:
        raise MertError(f"nothing has been probed: {top} holds no scores. Run `dvc repro`, or `mert probe --run NAME`.")
    found = [read_scores(layout, run) for run in runs]
    tasks = [task for task in TASKS if any(task in item.tasks for item in found)]
    floors = [item for item in found if item.is_floor]
    ranked = sorted((item for item in found if not item.is_floor), key=lambda item: (-_mean(item, tasks), item.run))
    ranked += sorted(floors, key=lambda item: FLOORS.index(item.run))
    header = ["run", *(_heading(found, task) for task in tasks), "mean"]
    rows = [[item.run, *(_cell(item, task, floors) for task in tasks), f"{_mean(item, tasks):.3f}"] for item in ranked]
    notes = ["[low, high]: 95 % interval.  *: interval above that of every floor."]
    if others := unlike(ranked):
        notes.append(f"Not comparable, probed by another protocol or on another probe set: {', '.join(others)}.")
    return "\n".join([*_aligned([header, *rows]), "", *notes])


def _mean(item: Scores, tasks: list[str]) -> float:
    values = [item.tasks[task]["value"] for task in tasks if task in item.tasks]
    return sum(values) / max(len(values), 1)


def _heading(found: list[Scores], task: str) -> str:
    metric = next(item.tasks[task]["metric"] for item in found if task in item.tasks)
    return f"{task} ({metric.replace('_', ' ')})"


def _cell(item: Scores, task: str, floors: list[Scores]) -> str:
    if task not in item.tasks:
        return ABSENT
    score = item.tasks[task]
    rivals = [floor.tasks[task] for floor in floors if task in floor.tasks]
    star = "*" if rivals and not item.is_floor and all(beats(score, rival) for rival in rivals) else " "
    return f"{score['value']:.3f}{star} [{score['low']:.3f}, {score['high']:.3f}]"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
