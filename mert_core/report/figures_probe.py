"""Figures of the probes: scores against floors, and where in the network each task is answered best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mert_core.report.collect import Scores
from mert_core.report.style import HEAT, INK, SOFT, bare, colour_of, marker_of, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS_WITH_FIGURES = 14
DOT: dict[str, Any] = {"markersize": 7.5, "markeredgecolor": "white"}


def scores_against_floors(scores: list[Scores], tasks: list[str]) -> Figure:
    """Return every encoder's score and 95 % interval, grouped by task."""
    runs = [item.run for item in scores if not item.is_floor]
    height = len(tasks) * (len(scores) + 1.2)
    figure = new_figure(0.25 * height + 1.3)
    axes = figure.subplots()
    row, ticks = 0.0, []
    for task in tasks:
        rows = [row + position for position in range(len(scores))]
        ticks.append((float(np.mean(rows)), task))
        axes.axhspan(rows[0] - 0.75, rows[-1] + 0.75, color="#f6f8fa", linewidth=0, zorder=0)
        for place, item in zip(rows, scores, strict=True):
            score, colour = item.tasks[task], colour_of(item.run, runs)
            axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot(score["value"], place, marker=marker_of(item.run), color=colour, **DOT)
            axes.annotate(
                f"{score['value']:.3f}", (score["high"], place), xytext=(6, 0), textcoords="offset points",
                ha="left", va="center", fontsize=8.5, color=INK if not item.is_floor else SOFT,
            )  # fmt: skip
        row = rows[-1] + 2.2
    axes.set_ylim(row - 1.2, -1.0)
    axes.set_xlim(0.0, 1.04)
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.set_yticks([place for place, _ in ticks], [_task_label(scores[0], task) for _, task in ticks], color=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("score on the test split, 1 is perfect · bar: 95 % interval")
    handles = []
    for item in scores:
        look: dict[str, Any] = {"color": colour_of(item.run, runs), "marker": marker_of(item.run), "linewidth": 2.4}
        handles += axes.plot([], [], label=plain(item.run), **look, **DOT)
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _task_label(scores: Scores, task: str) -> str:
    return f"{task}\n{plain(scores.tasks[task]['metric'])}"


def layer_by_task(scores: list[Scores], tasks: list[str]) -> Figure | None:
    """Return validation score by layer and task, one panel per encoder that has layers; None where none has.

    All panels of a task share its colour scale, from the lowest to the highest score seen in any of them.
    """
    shown = [item for item in scores if max(len(item.layers[task]) for task in tasks) > 1]
    if not shown:
        return None
    tables = [_table(item, tasks) for item in shown]
    columns = max(table.shape[1] for table in tables)
    lows = np.min([np.nanmin(table, axis=1) for table in tables], axis=0)
    highs = np.max([np.nanmax(table, axis=1) for table in tables], axis=0)
    figure = new_figure((0.44 * len(tasks) + 0.9) * len(shown) + 0.5)
    panels = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
    for axes, item, table in zip(panels, shown, tables, strict=True):
        scaled = (table - lows[:, None]) / np.maximum(highs - lows, 1e-9)[:, None]
        image = axes.imshow(scaled, aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        bare(axes)
        axes.set_xticks(range(columns))
        axes.set_yticks(range(len(tasks)), tasks, color=INK)
        axes.set_title(plain(item.run))
        for edge in np.arange(0.5, max(len(tasks), columns) - 1):
            if edge < len(tasks) - 1:
                axes.axhline(edge, color="white", linewidth=2)
            if edge < columns - 1:
                axes.axvline(edge, color="white", linewidth=2)
        _mark(axes, table, scaled, columns)
    panels[-1].set_xlabel("hidden state (0: the encoder's input) · framed: chosen on validation")
    bar = figure.colorbar(image, ax=list(panels), pad=0.02, fraction=0.03, aspect=22, ticks=[0, 1])
    bar.ax.set_yticklabels(["task's\nlowest", "task's\nhighest"])
    bar.set_label("validation score", color=SOFT, labelpad=-18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _table(item: Scores, tasks: list[str]) -> np.ndarray:
    width = 1 + max(layer for task in tasks for layer, _ in item.layers[task])
    table = np.full((len(tasks), width), np.nan)
    for row, task in enumerate(tasks):
        for layer, value in item.layers[task]:
            table[row, layer] = value
    return table


def _mark(axes: Axes, table: np.ndarray, scaled: np.ndarray, columns: int) -> None:
    """Frame each task's best layer and, where there is room, write the scores."""
    for row in range(table.shape[0]):
        best = int(np.nanargmax(table[row]))
        axes.add_patch(Rectangle((best - 0.44, row - 0.42), 0.88, 0.84, fill=False, edgecolor="#e08e00", linewidth=2.2))
        if columns > MOST_COLUMNS_WITH_FIGURES:
            continue
        for column in range(table.shape[1]):
            if not np.isnan(table[row, column]):
                colour = "white" if scaled[row, column] > 0.55 else INK
                axes.text(column, row, f"{table[row, column]:.3f}", ha="center", va="center", fontsize=9, color=colour)
