"""The command ``mert leaderboard``: everything probed here, beside what is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import DEMO
from mert_core.report.board import Board, fourteen, stand_ins
from mert_core.report.board_text import as_csv, as_text
from mert_core.report.load import Scores, probed_names, read_whole

Format = Literal["text", "csv", "html"]


def read_probed(layout: Layout) -> list[Scores]:
    """Return the scores of everything probed here.

    Raises:
        MertError: nothing has been probed yet, or a file cannot be read.
    """
    runs = probed_names(layout)
    if not runs:
        top = layout.scores("any").parent
        raise MertError(f"nothing has been probed: {top} holds no scores. Run `dvc repro`, or `mert probe --run NAME`.")
    return [read_whole(layout, run) for run in runs]


def boards(scores: Sequence[Scores], *, demo: bool = False) -> list[Board]:
    """Return the tables to show: that of the stand-ins, if any was probed, then that of the fourteen.

    Args:
        scores: of what was probed here.
        demo: the stand-ins alone.
    """
    found = [stand_ins(scores)] if demo or any(task in item.tasks for item in scores for task in DEMO) else []
    return found if demo else [*found, fourteen(scores)]


def leaderboard(layout: Layout, form: Format = "text", *, demo: bool = False, width: int = 132) -> str:
    """Return the leaderboard.

    Args:
        layout: where scores lie.
        form: ``text`` and ``html`` show both tables, each by itself; ``csv`` is one table.
        demo: the stand-ins instead of the fourteen.
        width: of text, in characters.

    Raises:
        MertError: nothing has been probed yet.
    """
    scores = read_probed(layout)
    if form == "csv":
        return as_csv(stand_ins(scores) if demo else fourteen(scores))
    found = boards(scores, demo=demo)
    if form == "html":
        from mert_core.report.board_html import page

        return page(found)
    return "\n\n".join(as_text(board, width) for board in found) + "\n"
