"""The layer guide: which hidden state answers which task, or their learned sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mert_core.report.collect import Scores
from mert_core.report.style import HEAT, INK, SOFT, bare, new_figure, plain
from mert_core.report.words import WEIGHTED, is_decibel, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS_WITH_FIGURES = 14
MOST_COLUMNS_SIDE_BY_SIDE = 8
FRAME = "#e08e00"


def layer_guide(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure | None:
    """Return validation score by task and input, one panel per encoder that has layers; None where none has.

    All panels of a task share its colour scale, from the lowest to the highest score seen in any of them. Framed is
    what was chosen.
    """
    shown = [item for item in scores if any(_depth(item, task) > 1 for task in tasks)]
    if not shown:
        return None
    states = max(_depth(item, task) for item in shown for task in tasks)
    weighted = any(heard == WEIGHTED for item in shown for task in tasks for heard, _ in item.layers.get(task, ()))
    columns = states + weighted
    tables = [_table(item, tasks, states, columns) for item in shown]
    lows, highs = np.nanmin(tables, axis=(0, 2)), np.nanmax(tables, axis=(0, 2))
    abreast = 2 if columns <= MOST_COLUMNS_SIDE_BY_SIDE and len(shown) > 1 else 1
    deep = -(-len(shown) // abreast)
    figure = new_figure((0.33 * len(tasks) + 0.75) * deep + 0.35)
    grid = figure.subplots(deep, abreast, squeeze=False, sharey=True)
    panels = list(grid.flat)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes, item, table in zip(panels, shown, tables, strict=False):
        scaled = (table - lows[:, None]) / np.maximum(highs - lows, 1e-9)[:, None]
        image = axes.imshow(scaled, aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        bare(axes)
        axes.set_xticks(range(columns), [*map(str, range(states)), *(["sum"] if weighted else [])])
        axes.set_yticks(range(len(tasks)), [task_title(task) for task in tasks], color=INK)
        axes.set_title(plain(item.run))
        _cells(axes, item, tasks, table, scaled)
        _frames(axes, item, tasks, states)
    for axes in panels[: len(shown)][-abreast:]:
        axes.set_xlabel(f"hidden state{', or their learned sum' if weighted else ''}")
    bar = figure.colorbar(image, ax=panels, pad=0.015, fraction=0.025, aspect=26, ticks=[0, 1])
    bar.ax.set_yticklabels(["task's\nlowest", "task's\nhighest"])
    bar.set_label("validation score", color=SOFT, labelpad=-18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _depth(item: Scores, task: str) -> int:
    """Return how many hidden states an encoder was probed at."""
    return 1 + max((heard for heard, _ in item.layers.get(task, ()) if isinstance(heard, int)), default=-1)


def _column(heard: int | str, states: int) -> int:
    return heard if isinstance(heard, int) else states


def _table(item: Scores, tasks: Sequence[str], states: int, columns: int) -> NDArray[np.float64]:
    table = np.full((len(tasks), columns), np.nan)
    for row, task in enumerate(tasks):
        for heard, value in item.layers.get(task, ()):
            table[row, _column(heard, states)] = value
    return table


def _cells(
    axes: Axes, item: Scores, tasks: Sequence[str], table: NDArray[np.float64], scaled: NDArray[np.float64]
) -> None:
    """Separate the cells and, where there is room, write the scores."""
    rows, columns = table.shape
    for edge in range(1, rows):
        axes.axhline(edge - 0.5, color="white", linewidth=1.5)
    for edge in range(1, columns):
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)
    if columns > MOST_COLUMNS_WITH_FIGURES:
        return
    for row, task in enumerate(tasks):
        digits = 2 if is_decibel(item.tasks[task]["metric"]) else 3
        for column in np.flatnonzero(~np.isnan(table[row])).tolist():
            colour = "white" if scaled[row, column] > 0.55 else INK
            figure = f"{table[row, column]:.{digits}f}".replace("-", "−")
            axes.text(column, row, figure, ha="center", va="center", fontsize=8, color=colour)


def _frames(axes: Axes, item: Scores, tasks: Sequence[str], states: int) -> None:
    """Frame what was chosen on validation."""
    frame: dict[str, Any] = {"fill": False, "edgecolor": FRAME, "linewidth": 2.0}
    for row, task in enumerate(tasks):
        column = _column(item.tasks[task]["input"], states)
        axes.add_patch(Rectangle((column - 0.45, row - 0.42), 0.9, 0.84, **frame))
