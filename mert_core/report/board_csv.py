"""The leaderboard as CSV: one line per task, metric and model, numbers in full."""

from __future__ import annotations

import csv
import io
from typing import Any

from mert_core.report.board import Board, Cell, Column
from mert_core.report.words import is_decibel

COLUMNS = (
    "task", "metric", "unit", "model", "kind", "source", "state", "value", "low", "high", "comparable", "above_floors",
    "input", "tracks", "protocol", "reason",
)  # fmt: skip
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
        "above_floors": str(cell.above).lower() if scored and column.kind == "run" else "",
        "input": cell.heard,
        "tracks": cell.tracks,
        "protocol": cell.protocol,
        "reason": cell.reason,
    }
