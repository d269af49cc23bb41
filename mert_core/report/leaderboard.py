"""The command ``mert leaderboard``: everything probed here, beside what is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import PROXY_TASKS
from mert_core.report.board import Board, fourteen_board, proxy_board
from mert_core.report.board_text import as_csv, as_text
from mert_core.report.load import Scores, probed_models, read_all_scores

Format = Literal["text", "csv", "html"]


def read_probed(layout: Layout) -> list[Scores]:
    """Return the scores of everything probed here.

    Raises:
        MertError: nothing has been probed yet, or a file cannot be read.
    """
    models = probed_models(layout)
    if not models:
        top = layout.scores("any").parent
        raise MertError(f"nothing has been probed: {top} holds no scores. Run `dvc repro`, or `mert probe --run NAME`.")
    return [read_all_scores(layout, model) for model in models]


def boards(scores: Sequence[Scores], *, demo: bool = False) -> list[Board]:
    """Return the tables to show: that of the proxy tasks, if any was probed, then that of the fourteen.

    Args:
        scores: those of all that was probed here.
        demo: whether to show the proxy tasks alone.
    """
    tables = [proxy_board(scores)] if demo or any(task in item.tasks for item in scores for task in PROXY_TASKS) else []
    return tables if demo else [*tables, fourteen_board(scores)]


def leaderboard(layout: Layout, form: Format = "text", *, demo: bool = False, width: int = 132) -> str:
    """Return the leaderboard.

    Args:
        layout: where scores lie.
        form: ``text`` and ``html`` show both tables, each by itself; ``csv`` is one table.
        demo: whether to show the proxy tasks instead of the fourteen.
        width: the text's, in characters.

    Raises:
        MertError: nothing has been probed yet.
    """
    scores = read_probed(layout)
    if form == "csv":
        return as_csv(proxy_board(scores) if demo else fourteen_board(scores))
    tables = boards(scores, demo=demo)
    if form == "html":
        from mert_core.report.pages import leaderboard_page

        return leaderboard_page(tables)
    return "\n\n".join(as_text(board, width) for board in tables) + "\n"
