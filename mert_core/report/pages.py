"""``report.html``, the leaderboard's page and the model card, put together from `templates/`.

A page is one file with everything in it, for a browser without a network. Everything is escaped. Pages hold no date,
host or path of this machine, so equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mert_core.report.baselines import standings
from mert_core.report.board import ABSENT, Board, Cell, fourteen_board, proxy_board
from mert_core.report.figures.draw import Picture
from mert_core.report.load import ReportData
from mert_core.report.tables import (
    corpus_table,
    gate_tables,
    left_out_table,
    lineage_table,
    number,
    reasons_table,
    training_table,
)
from mert_core.report.titles import input_title, metric_title, ordered, plain, task_title


def report_page(data: ReportData, pictures: Sequence[Picture]) -> str:
    """Return the whole report."""
    boards = [proxy_board(data.scores, data.pending)] if data.proxy_tasks else []
    boards.append(fourteen_board(data.scores, data.pending))
    page = templates().get_template("page.html.j2")
    return page.render(data=data, pictures=pictures, standings=standings(data), boards=boards)


def leaderboard_page(boards: Sequence[Board]) -> str:
    """Return the leaderboard as one page, with nothing to fetch."""
    return templates().get_template("leaderboard.html.j2").render(boards=boards)


@cache
def templates() -> Environment:
    """Return the templates, with the tables and names that they can ask for as filters."""
    environment = Environment(
        loader=PackageLoader("mert_core.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for tables in (corpus_table, gate_tables, left_out_table, lineage_table, reasons_table, training_table):
        environment.filters[tables.__name__] = tables
    for words in (signed, spans, number, input_title, metric_title, ordered, plain, task_title):
        environment.filters[words.__name__] = words
    environment.filters["base64"] = lambda path: base64.b64encode(Path(path).read_bytes()).decode()
    return environment


def signed(value: float | None) -> str:
    """Return a figure with one decimal and a true minus sign; a dash where there is none."""
    return ABSENT if value is None else f"{value:.1f}".replace("-", "−")


def spans(cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Yield the index of each cell to draw, and how many columns it covers.

    It is more than one where neighbours were skipped for the same reason.
    """
    index = 0
    for reason, group in groupby(cells, lambda cell: cell.reason if cell.state == "skipped" else None):
        count = len(list(group))
        yield from [(index, count)] if reason is not None else [(index + step, 1) for step in range(count)]
        index += count
