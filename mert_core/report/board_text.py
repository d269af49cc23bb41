"""The leaderboard for a terminal (blocks of columns no wider than it, notes below) and as CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from mert_core.report.board import Board, Cell, Column
from mert_core.report.titles import is_decibel, metric_title

ABSENT, SKIPPED, ODD, ABOVE = "–", "skipped", "‡", "*"
PROTOCOL_DIGITS = 8
PAPER_WIDTH = 10
LEAST_WIDTH = 60
LEAST_DIGITS = 4
GAP = "  "


def as_text(board: Board, width: int) -> str:
    """Return a table as text.

    Args:
        board: the table.
        width: the terminal's, in characters; columns that do not fit stand below, with the tasks again.
    """
    width = max(width, LEAST_WIDTH)
    letters = paper_letters(board)
    headings = [_heading(column, letters) for column in board.columns]
    depth = max(map(len, headings), default=1)
    labels = _padded([*[""] * (depth - 1), "task", *_labels(board), "average"])
    columns = []
    for index, heading in enumerate(headings):
        cells = _cells([line.cells[index] for line in board.lines], board.averages[index].value)
        columns.append(_padded([*[""] * (depth - len(heading)), *heading, *cells]))
    parts = [board.title]
    for block in _blocks(labels, columns, width):
        rows = [GAP.join(row) for row in zip(*block, strict=True)]
        rule = "─" * len(rows[0])
        parts += ["", *rows[:depth], rule, *rows[depth:-1], rule, rows[-1]]
    notes = [part for note in notes_of(board) for part in textwrap.wrap(note, width, subsequent_indent=GAP)]
    return "\n".join(line.rstrip() for line in [*parts, "", *notes])


def paper_letters(board: Board) -> dict[str, str]:
    """Return a letter for each paper that the table quotes."""
    sources = dict.fromkeys(column.source for column in board.columns if not column.ours)
    return {source: chr(ord("a") + number) for number, source in enumerate(sources)}


def notes_of(board: Board, above: str = ABOVE) -> list[str]:
    """Return what stands below a table: how to read it, what was skipped, what cannot be compared.

    Args:
        board: the table.
        above: the mark of a score whose interval lies above those of the baselines.
    """
    notes = []
    if board.own:
        notes.append(
            "Percent, SDR in dB. Ours: value, 95 % interval and the beginning of the protocol's hash. "
            f"{above} interval above those of the baselines. {ABSENT} not probed here, or not published."
        )
    else:
        notes.append(f"Percent, SDR in dB. {ABSENT} not probed here, or not published.")
    notes += [f"{letter}: {source}." for source, letter in paper_letters(board).items()]
    for reason, tasks in board.skipped.items():
        by_models: dict[tuple[str, ...], list[str]] = {}
        for task, models in tasks.items():
            by_models.setdefault(tuple(models), []).append(task)
        notes += [
            f"{SKIPPED.capitalize()}: {', '.join(names)} ({', '.join(models)}): {reason}"
            for models, names in by_models.items()
        ]
    for model, odd in board.not_comparable.items():
        why = "was probed by another protocol or on other music"
        notes.append(f"{ODD} Not comparable, {model} {why}: {', '.join(odd)}.")
    notes.append(
        "Average: the mean over the fourteen of the mean of each one's metrics, beats at ±20 ms and museval left out; "
        "only where every figure is there."
    )
    lacking: dict[str, list[str]] = {}
    for column, mean in zip(board.columns, board.averages, strict=True):
        if column.ours and mean.missing:
            lacking.setdefault(mean.note, []).append(column.model)
    return notes + [f"No average of {', '.join(models)}: {note}" for note, models in lacking.items()]


def _labels(board: Board) -> Iterable[str]:
    wide = max((len(line.task) for line in board.lines), default=0)
    before = ""
    for line in board.lines:
        name = "" if line.task == before else line.task
        before = line.task
        yield f"{name:<{wide}}{GAP}{metric_title(line.metric) if line.metric else ABSENT}"


def _heading(column: Column, letters: dict[str, str]) -> list[str]:
    if column.ours:
        return [column.model]
    return textwrap.wrap(f"{column.model} ({letters[column.source]})", PAPER_WIDTH)


def _cells(cells: Sequence[Cell], mean: float | None) -> Iterable[str]:
    """Yield a column's cells and its average, figures and intervals aligned."""
    figures = [ABSENT if value is None else f"{value:.1f}" for value in (*(cell.value for cell in cells), mean)]
    wide = max(LEAST_DIGITS, *map(len, figures))
    between = [f"[{cell.low:.1f}, {cell.high:.1f}]" if cell.state == "scored" else "" for cell in cells]
    widest = max(map(len, between), default=0)
    for cell, figure, interval in zip(cells, figures, between, strict=False):
        if cell.state == "skipped":
            yield SKIPPED
        elif interval:
            mark = ODD if not cell.comparable else ABOVE if cell.above else " "
            yield f"{figure:>{wide}}{mark}{interval:<{widest}} {cell.protocol[:PROTOCOL_DIGITS]}"
        else:
            yield f"{figure:>{wide}}"
    yield f"{figures[-1]:>{wide}}"


def _padded(column: list[str]) -> list[str]:
    width = max(map(len, column))
    return [f"{cell:<{width}}" for cell in column]


def _blocks(labels: list[str], columns: Sequence[list[str]], width: int) -> Iterable[list[list[str]]]:
    block, used = [labels], len(labels[0])
    for column in columns:
        if len(block) > 1 and used + len(GAP) + len(column[0]) > width:
            yield block
            block, used = [labels], len(labels[0])
        block.append(column)
        used += len(GAP) + len(column[0])
    yield block


COLUMNS = (
    "task",
    "metric",
    "unit",
    "model",
    "kind",
    "source",
    "state",
    "value",
    "low",
    "high",
    "comparable",
    "above_baselines",
    "input",
    "tracks",
    "protocol",
    "reason",
)
AVERAGE = "average"


def as_csv(board: Board) -> str:
    """Return a table as CSV with a header; the averages come last, with the task and the metric ``average``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in board.lines:
        for column, cell in zip(board.columns, line.cells, strict=True):
            writer.writerow(_row(line.task, line.metric, column, cell))
    for column, mean in zip(board.columns, board.averages, strict=True):
        row = dict.fromkeys(COLUMNS, "") | _named(AVERAGE, AVERAGE, column)
        state = "missing" if mean.value is None else "scored" if column.ours else "published"
        writer.writerow(row | {"state": state, "value": mean.value, "reason": ", ".join(mean.missing)})
    return stream.getvalue()


def _named(task: str, metric: str, column: Column) -> dict[str, Any]:
    unit = "dB" if is_decibel(metric) else "%"
    names = {"model": column.model, "kind": column.kind, "source": column.source}
    return {"task": task, "metric": metric, "unit": unit, **names}


def _row(task: str, metric: str, column: Column, cell: Cell) -> dict[str, Any]:
    scored = cell.state == "scored"
    return _named(task, metric, column) | {
        "state": cell.state,
        "value": cell.value,
        "low": cell.low,
        "high": cell.high,
        "comparable": str(cell.comparable).lower() if scored else "",
        "above_baselines": str(cell.above).lower() if scored and column.kind == "run" else "",
        "input": cell.input,
        "tracks": cell.tracks,
        "protocol": cell.protocol,
        "reason": cell.reason,
    }
