"""The leaderboard as HTML: a section of the report, or a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from mert_core.report.board import Board, Cell, Column, Line
from mert_core.report.board_text import ABSENT, ODD, PROTOCOL_DIGITS, SKIPPED, notes_of, paper_letters
from mert_core.report.figures.style import plain
from mert_core.report.html import document, section, text
from mert_core.report.titles import input_title, metric_title, task_title

ABOVE_MARK = ' <span class="mark" title="interval above those of the floors">▲</span>'
ODD_MARK = f' <span class="odd" title="probed by another protocol or on other music than the others">{ODD}</span>'


def page(boards: Sequence[Board]) -> str:
    """Return one whole page, with nothing to fetch."""
    head = (
        "<header><h1>Leaderboard</h1><p class='lead'>Probes of frozen encoders: the score on the test split with its "
        "95 % bootstrap interval. Stand-ins are scored on performed music and stand by themselves.</p></header>"
    )
    return document("MERT leaderboard", head + "".join(board_section(board) for board in boards))


def board_section(board: Board) -> str:
    """Return a table with its heading and notes."""
    notes = [note.replace("* interval", "▲ interval") for note in notes_of(board)]
    listed = "".join(f"<li>{text(note)}</li>" for note in notes)
    return section(board.title, board_table(board), f'<ul class="notes">{listed}</ul>')


def board_table(board: Board) -> str:
    """Return the table alone, in a box that scrolls sideways while the tasks stay."""
    letters = paper_letters(board)
    head = "".join(f'<th scope="col" class="{item.kind}">{_heading(item, letters)}</th>' for item in board.columns)
    body = "".join(_rows(board, list(lines)) for _, lines in groupby(board.lines, lambda line: line.task))
    means = "".join(
        f'<td class="n {column.kind}"{_title(mean.note)}>{ABSENT if mean.value is None else signed(mean.value)}</td>'
        for column, mean in zip(board.columns, board.averages, strict=True)
    )
    return (
        f'<div class="scroll"><table class="board"><thead>{_groups(board)}<tr><th scope="col">task</th>{head}</tr>'
        f'</thead><tbody>{body}</tbody><tfoot><tr><th scope="row">average</th>{means}</tr></tfoot></table></div>'
    )


def _groups(board: Board) -> str:
    """Return the line that says which columns are ours, where others stand beside them."""
    others = len(board.columns) - board.own
    if not board.own or not others:
        return ""
    parts = (("probed here", board.own), ("published", others))
    cells = "".join(f'<th scope="colgroup" class="group" colspan="{count}">{name}</th>' for name, count in parts)
    return f"<tr><td></td>{cells}</tr>"


def _heading(column: Column, letters: dict[str, str]) -> str:
    if column.ours:
        return text(plain(column.model) if column.kind == "floor" else column.model)
    return f'<span title="{text(column.source)}">{text(column.model)}&nbsp;<sup>{letters[column.source]}</sup></span>'


def _rows(board: Board, lines: Sequence[Line]) -> str:
    """Return one task's lines. Neighbours that were skipped for the same reason share a cell that says it."""
    rows = []
    for number, line in enumerate(lines):
        about = f'<span class="interval">{text(metric_title(line.metric))}</span>' if line.metric else ""
        name = f"{text(task_title(line.task))}{about}" if number == 0 else about
        cells, place = [], 0
        for reason, run in groupby(line.cells, lambda cell: cell.reason if cell.state == "skipped" else None):
            count = len(list(run))
            if reason is None:
                cells += [
                    _cell(line.cells[at], board.columns[at], _best(board, line)) for at in range(place, place + count)
                ]
            elif number == 0:
                kind = board.columns[place].kind
                cells.append(
                    f'<td class="skipped {kind}" colspan="{count}" rowspan="{len(lines)}">'
                    f"<strong>{SKIPPED}</strong> {text(reason)}</td>"
                )
            place += count
        begin = ' class="begin"' if number == 0 else ""
        rows.append(f'<tr{begin}><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return "".join(rows)


def _best(board: Board, line: Line) -> float | None:
    """Return the highest of our scores that can be compared."""
    values = [cell.value for cell in line.cells[: board.own] if cell.value is not None and cell.comparable]
    return max(values, default=None)


def _cell(cell: Cell, column: Column, best: float | None) -> str:
    if cell.value is None:
        return f'<td class="n {column.kind}"{_title(cell.reason)}>{ABSENT}</td>'
    if cell.low is None or cell.high is None or cell.heard is None:
        return f'<td class="n {column.kind}">{signed(cell.value)}</td>'
    value = signed(cell.value)
    if cell.comparable and cell.value == best:
        value = f'<span class="best">{value}</span>'
    mark = ODD_MARK if not cell.comparable else ABOVE_MARK if cell.above else ""
    about = f"protocol {cell.protocol}, {input_title(cell.heard)}, {cell.tracks:,} test tracks"
    interval = f"{signed(cell.low)} to {signed(cell.high)}"
    return (
        f'<td class="n {column.kind}">{value}{mark}<br><span class="interval">{interval}</span> '
        f'<code class="protocol"{_title(about)}>{cell.protocol[:PROTOCOL_DIGITS]}</code></td>'
    )


def signed(value: float) -> str:
    """Return a figure with one decimal and a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


def _title(about: str) -> str:
    return f' title="{text(about)}"' if about else ""
