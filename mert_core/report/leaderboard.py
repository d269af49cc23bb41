"""The command ``mert leaderboard``: everything probed here beside what is published, or two models compared."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import PROXY_TASKS, PUBLIC_TASKS
from mert_core.report.baselines import not_comparable
from mert_core.report.board import ABOVE, ABSENT, ODD, Board, Cell, fourteen_board, proxy_board
from mert_core.report.load import probed_models, read_all_scores
from mert_core.report.titles import is_decibel, metric_title

if TYPE_CHECKING:
    from mert_core.probing.significance import Difference

PROTOCOL_DIGITS = 8
PAPER_WIDTH = 10
LEAST_WIDTH = 60
LEAST_DIGITS = 4
SIGNIFICANT = 0.05
GAP = "  "
AVERAGE = "average"


def leaderboard(
    layout: Layout, form: Literal["text", "csv", "html"] = "text", *, demo: bool = False, width: int = 132
) -> str:
    """Return the leaderboard.

    Args:
        layout: where scores lie.
        form: ``text`` and ``html`` show both tables, each by itself; ``csv`` is one table.
        demo: whether to show the proxy tasks instead of the fourteen.
        width: the text's, in characters.

    Raises:
        MertError: nothing has been probed yet, or a file cannot be read.
    """
    models = probed_models(layout)
    if not models:
        top = layout.scores("any").parent
        raise MertError(f"nothing has been probed: {top} holds no scores. Run `dvc repro`, or `mert probe --run NAME`.")
    scores = [read_all_scores(layout, model) for model in models]
    if form == "csv":
        return as_csv(proxy_board(scores) if demo else fourteen_board(scores))
    has_proxies = any(task in item.tasks for item in scores for task in PROXY_TASKS)
    boards = [proxy_board(scores)] if demo or has_proxies else []
    if not demo:
        boards.append(fourteen_board(scores))
    if form == "html":
        from mert_core.report.pages import leaderboard_page

        return leaderboard_page(boards)
    return "\n\n".join(as_text(board, width) for board in boards) + "\n"


def as_csv(board: Board) -> str:
    """Return a table as CSV with a header; the averages come last, with the task and the metric ``average``."""
    lines = [(line.task, line.metric, line.cells) for line in board.lines]
    means = [
        Cell(
            "missing" if mean.value is None else "scored" if column.ours else "published",
            mean.value,
            reason=", ".join(mean.missing),
        )
        for column, mean in zip(board.columns, board.averages, strict=True)
    ]
    rows = [
        {"task": task, "metric": metric, "unit": "dB" if is_decibel(metric) else "%"}
        | vars(column)
        | {name: str(value).lower() if isinstance(value, bool) else value for name, value in vars(cell).items()}
        for task, metric, cells in [*lines, (AVERAGE, AVERAGE, means)]
        for column, cell in zip(board.columns, cells, strict=True)
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_text(board: Board, width: int) -> str:
    """Return a table as text.

    Args:
        board: the table.
        width: the terminal's, in characters; columns that do not fit stand below, with the tasks again.
    """
    heads = [
        [column.model]
        if column.ours
        else textwrap.wrap(f"{column.model} ({board.letters[column.source]})", PAPER_WIDTH)
        for column in board.columns
    ]
    depth = max(map(len, heads), default=1)
    wide = max((len(line.task) for line in board.lines), default=0)
    before, labels = "", ["task"]
    for line in board.lines:
        name, before = "" if line.task == before else line.task, line.task
        labels.append(f"{name:<{wide}}{GAP}{metric_title(line.metric) if line.metric else ABSENT}")
    first = _padded([*[""] * (depth - 1), *labels, AVERAGE])
    blocks = [[first]]
    for index, head in enumerate(heads):
        cells = _cells([line.cells[index] for line in board.lines], board.averages[index].value)
        column = _padded([*[""] * (depth - len(head)), *head, *cells])
        used = sum(len(other[0]) + len(GAP) for other in blocks[-1])
        if len(blocks[-1]) > 1 and used + len(column[0]) > max(width, LEAST_WIDTH):
            blocks.append([first])
        blocks[-1].append(column)
    return _text(board.title, [_ruled(block, depth, foot=1) for block in blocks], board.notes(), width)


def _cells(cells: Sequence[Cell], mean: float | None) -> Iterable[str]:
    """Yield a column's cells and its average, figures and intervals aligned."""
    figures = [ABSENT if value is None else f"{value:.1f}" for value in (*(cell.value for cell in cells), mean)]
    wide = max(LEAST_DIGITS, *map(len, figures))
    between = [f"[{cell.low:.1f}, {cell.high:.1f}]" if cell.state == "scored" else "" for cell in cells]
    widest = max(map(len, between), default=0)
    for cell, figure, interval in zip(cells, figures, between, strict=False):
        if cell.state == "skipped":
            yield "skipped"
        elif interval:
            mark = ODD if not cell.comparable else ABOVE if cell.above_baselines else " "
            yield f"{figure:>{wide}}{mark}{interval:<{widest}} {cell.protocol[:PROTOCOL_DIGITS]}"
        else:
            yield f"{figure:>{wide}}"
    yield f"{figures[-1]:>{wide}}"


def _padded(column: Sequence[str], side: str = "<") -> list[str]:
    width = max(map(len, column))
    return [f"{cell:{side}{width}}" for cell in column]


def _ruled(columns: Sequence[Sequence[str]], head: int = 1, foot: int = 0) -> list[str]:
    """Return padded columns as lines, with rules below the first lines and above the last ones."""
    rows = [GAP.join(row) for row in zip(*columns, strict=True)]
    rule, end = "─" * len(rows[0]), len(rows) - foot
    return [*rows[:head], rule, *rows[head:end], *([rule, *rows[end:]] if foot else [])]


def _text(title: str, tables: Iterable[list[str]], notes: Iterable[str], width: int) -> str:
    """Return a title, tables and notes; the notes are folded to a width."""
    folded = [part for note in notes for part in textwrap.wrap(note, max(width, LEAST_WIDTH), subsequent_indent=GAP)]
    lines = [title, *(line for table in tables for line in ["", *table]), "", *folded]
    return "\n".join(line.rstrip() for line in lines)


def compare_models(layout: Layout, a: str, b: str, *, demo: bool = False, width: int = 132) -> str:
    """Return how two probed runs differ at every task and metric, proxy tasks and the fourteen each by themselves.

    Differences are paired over the tracks that both answered.

    Args:
        layout: where scores and answers lie.
        a: a run, a baseline or another probed model.
        b: the model that it is compared with.
        demo: whether to show the proxy tasks alone.
        width: the notes', in characters.

    Raises:
        MertError: one of them was not probed, they have no task in common, or their answers do not match.
    """
    from mert_core.probing.results import Predictions, predictions_path
    from mert_core.probing.significance import compare

    if a == b:
        raise MertError(f"--compare {a} {b}: expected two different runs")
    pair = read_all_scores(layout, a), read_all_scores(layout, b)
    parts = []
    for title, tasks in (("Proxy tasks: performed scores", PROXY_TASKS), ("Fourteen tasks", PUBLIC_TASKS)):
        both = [task for task in tasks if all(task in item.tasks for item in pair)]
        if not both or (demo and tasks is PUBLIC_TASKS):
            continue
        odd = [task for task in both if not_comparable(pair, task)]
        first, second = (
            {task: Predictions.load(predictions_path(item.folders[task], task)) for task in both if task not in odd}
            for item in pair
        )
        notes = [
            f"Percent, SDR in dB. Difference: {b} less {a}, with its 95 % interval by a paired bootstrap over tracks. "
            "p: by swapping the models track by track, or from that bootstrap where a metric is no mean over tracks. "
            f"*: p below {SIGNIFICANT:g} after Holm's correction over this table."
        ]
        if odd:
            notes.append(f"Not comparable, probed by another protocol or on other music: {', '.join(odd)}.")
        parts.append(_text(title, [_differences(a, b, compare(first, second))], notes, width))
    if not parts:
        what = "proxy task" if demo else "task"
        raise MertError(f"{a} and {b} were probed on no common {what}. Run `mert probe --run NAME` for both.")
    return "\n\n".join(parts) + "\n"


def _differences(a: str, b: str, rows: Iterable[Difference]) -> list[str]:
    """Return two models' differences by task and metric as lines."""
    lines, before = [["task", "metric", a, b, "difference", "95 % interval", "p", "p, Holm", "tracks"]], ""
    for row in rows:
        unit = 1.0 if is_decibel(row.metric) else 100.0
        change, low, high = (f"{unit * value:+.1f}" for value in (row.difference, row.low, row.high))
        name, before = "" if row.task == before else row.task, row.task
        lines.append(
            [
                name,
                metric_title(row.metric),
                *(f"{unit * value:.1f}" for value in (row.a, row.b)),
                change + ("*" if row.p_holm < SIGNIFICANT else " "),
                f"[{low}, {high}]",
                *(f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (row.p, row.p_holm)),
                f"{row.tracks:,}",
            ]
        )
    columns = zip(*lines, strict=True)
    return _ruled([_padded(column, "<" if index < 2 else ">") for index, column in enumerate(columns)])
