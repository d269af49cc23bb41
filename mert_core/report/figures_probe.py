"""Figure of the probes: every encoder's score and interval at every task, separation on an axis of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from mert_core.report.collect import Scores
from mert_core.report.style import INK, SOFT, colour_of, marker_of, new_figure, plain
from mert_core.report.words import is_decibel, metric_title, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOT: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white"}
ROW_INCHES = 0.185
GAP_ROWS = 0.75
LOWEST_SHARE = -0.5
"""Left end of the axis of shares at most: an R² far below zero is drawn there, and its value is written."""


def scores_against_floors(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure:
    """Return every encoder's main score and 95 % interval, grouped by task; those in dB below, on their own axis."""
    shares = [task for task in tasks if not is_decibel(_metric(scores, task))]
    decibels = [task for task in tasks if is_decibel(_metric(scores, task))]
    groups = [group for group in (shares, decibels) if group]
    rows = [len(group) * (len(scores) + GAP_ROWS) for group in groups]
    figure = new_figure(ROW_INCHES * sum(rows) + 0.75 * len(groups) + 0.35)
    panels = np.atleast_1d(figure.subplots(len(groups), 1, height_ratios=[count + 1 for count in rows]))
    runs = [item.run for item in scores if not item.is_floor]
    for axes, group in zip(panels, groups, strict=True):
        low, high = _limits(scores, group)
        _draw(axes, scores, group, runs, low)
        axes.set_xlim(low, high)
        unit = "dB" if group is decibels else "1 is perfect"
        axes.set_xlabel(f"score on the test split, {unit} · bar: 95 % interval")
    handles = []
    for item in scores:
        look: dict[str, Any] = {"color": colour_of(item.run, runs), "marker": marker_of(item.run), "linewidth": 2.2}
        handles += panels[0].plot([], [], label=plain(item.run), **look, **DOT)
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))
    return figure


def _metric(scores: Sequence[Scores], task: str) -> str:
    return str(scores[0].tasks[task]["metric"])


def _limits(scores: Sequence[Scores], tasks: Sequence[str]) -> tuple[float, float]:
    """Return the axis's ends: shares from 0, or from where an R² falls below it, to 1; dB by what is there."""
    found = [item.tasks[task] for item in scores for task in tasks]
    low, high = min(score["low"] for score in found), max(score["high"] for score in found)
    if is_decibel(_metric(scores, tasks[0])):
        span = max(high, 0.0) - min(low, 0.0) or 1.0
        return min(low, 0.0) - 0.03 * span, max(high, 0.0) + 0.1 * span
    return max(min(np.floor(low * 10) / 10, 0.0), LOWEST_SHARE), 1.06


def _draw(axes: Axes, scores: Sequence[Scores], tasks: Sequence[str], runs: Sequence[str], left: float) -> None:
    row, ticks = 0.0, []
    for task in tasks:
        rows = [row + position for position in range(len(scores))]
        ticks.append(float(np.mean(rows)))
        axes.axhspan(rows[0] - 0.6, rows[-1] + 0.6, color="#f6f8fa", linewidth=0, zorder=0)
        for place, item in zip(rows, scores, strict=True):
            score, colour = item.tasks[task], colour_of(item.run, runs)
            low, value, high = (max(score[name], left) for name in ("low", "value", "high"))
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
            marker = marker_of(item.run) if score["value"] >= left else "<"
            axes.plot(value, place, marker=marker, color=colour, clip_on=False, **DOT)
            digits = 2 if is_decibel(score["metric"]) else 3
            axes.annotate(
                f"{score['value']:.{digits}f}".replace("-", "−"), (high, place), xytext=(7, 0),
                textcoords="offset points", ha="left", va="center", fontsize=8,
                color=SOFT if item.is_floor else INK,
            )  # fmt: skip
        row = rows[-1] + 1 + GAP_ROWS
    if left < 0:
        axes.axvline(0, color=SOFT, linewidth=0.9, zorder=1)
    axes.set_ylim(row - GAP_ROWS - 0.2, -0.8)
    names = [f"{task_title(task)}\n{metric_title(scores[0].tasks[task]['metric'])}" for task in tasks]
    axes.set_yticks(ticks, names, color=INK, fontsize=8.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
