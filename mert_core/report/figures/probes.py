"""Figures of the probes: scores against baselines, scores by hidden state, scores on deformed music."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.report.figures.style import HEAT, INK, SOFT, bare, color_bar, color_of, marker_of, new_figure, score_text
from mert_core.report.load import Scores
from mert_core.report.titles import WEIGHTED, is_decibel, metric_title, plain, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DOT: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white"}
ROW_INCHES = 0.185
GAP_ROWS = 0.75
LOWEST_SHARE = -0.5
"""Left end of the axis of shares at most: an R² far below zero is drawn there, and its value is written."""


def scores_against_baselines(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure:
    """Return every encoder's main score and 95 % interval, grouped by task; those in dB below, on their own axis."""
    shares = [task for task in tasks if not is_decibel(_metric(scores, task))]
    decibels = [task for task in tasks if is_decibel(_metric(scores, task))]
    groups = [group for group in (shares, decibels) if group]
    rows = [len(group) * (len(scores) + GAP_ROWS) for group in groups]
    figure = new_figure(ROW_INCHES * sum(rows) + 0.75 * len(groups) + 0.35)
    panels = np.atleast_1d(figure.subplots(len(groups), 1, height_ratios=[count + 1 for count in rows]))
    for axes, group in zip(panels, groups, strict=True):
        # Shares go from 0, or from where an R² falls below it, to 1; dB by what is there.
        entries = [item.tasks[task] for item in scores for task in group]
        low, high = min(entry["low"] for entry in entries), max(entry["high"] for entry in entries)
        if group is decibels:
            span = max(high, 0.0) - min(low, 0.0) or 1.0
            low, high = min(low, 0.0) - 0.03 * span, max(high, 0.0) + 0.1 * span
        else:
            low, high = max(min(np.floor(low * 10) / 10, 0.0), LOWEST_SHARE), 1.06
        _draw(axes, scores, group, low)
        axes.set_xlim(low, high)
        unit = "dB" if group is decibels else "1 is perfect"
        axes.set_xlabel(f"score on the test split, {unit} · bar: 95 % interval")
    _legend(figure, panels[0], scores, linewidth=2.2, **DOT)
    return figure


def _legend(figure: Figure, axes: Axes, scores: Sequence[Scores], **look: Any) -> None:
    """Name the encoders above all axes, in the look that their lines have."""
    handles = [
        axes.plot([], [], label=plain(item.run), color=color, marker=marker_of(item.run), **look)[0]
        for item, color in zip(scores, _colors(scores), strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))


def _colors(scores: Sequence[Scores]) -> list[str]:
    """Return the encoders' colors; those of pre-trained runs go by their order."""
    runs = [item.run for item in scores if not item.is_baseline]
    return [color_of(item.run, runs) for item in scores]


def _metric(scores: Sequence[Scores], task: str) -> str:
    return str(scores[0].tasks[task]["metric"])


def _draw(axes: Axes, scores: Sequence[Scores], tasks: Sequence[str], left: float) -> None:
    """Draw one row per task and encoder; what lies beyond the axis's left end is drawn there."""
    row, ticks = 0.0, []
    for task in tasks:
        rows = [row + position for position in range(len(scores))]
        ticks.append(float(np.mean(rows)))
        axes.axhspan(rows[0] - 0.6, rows[-1] + 0.6, color="#f6f8fa", linewidth=0, zorder=0)
        for y, item, color in zip(rows, scores, _colors(scores), strict=True):
            score = item.tasks[task]
            low, value, high = (max(score[name], left) for name in ("low", "value", "high"))
            axes.plot([low, high], [y, y], color=color, linewidth=2.2, solid_capstyle="butt")
            marker = marker_of(item.run) if score["value"] >= left else "<"
            axes.plot(value, y, marker=marker, color=color, clip_on=False, **DOT)
            axes.annotate(
                score_text(score["value"], score["metric"]),
                (high, y),
                xytext=(7, 0),
                textcoords="offset points",
                ha="left",
                va="center",
                fontsize=8,
                color=SOFT if item.is_baseline else INK,
            )
        row = rows[-1] + 1 + GAP_ROWS
    if left < 0:
        axes.axvline(0, color=SOFT, linewidth=0.9, zorder=1)
    axes.set_ylim(row - GAP_ROWS - 0.2, -0.8)
    names = [f"{task_title(task)}\n{metric_title(_metric(scores, task))}" for task in tasks]
    axes.set_yticks(ticks, names, color=INK, fontsize=8.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


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
    weighted = any(state == WEIGHTED for item in shown for task in tasks for state, _ in item.layers.get(task, ()))
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
        for edge in range(1, len(tasks)):
            axes.axhline(edge - 0.5, color="white", linewidth=1.5)
        for edge in range(1, columns):
            axes.axvline(edge - 0.5, color="white", linewidth=1.5)
        for row, task in enumerate(tasks):
            score = item.tasks[task]
            for column in np.flatnonzero(~np.isnan(table[row])) if columns <= MOST_COLUMNS_WITH_FIGURES else ():
                color = "white" if scaled[row, column] > 0.55 else INK
                text = score_text(table[row, column], score["metric"])
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
            chosen = _column(score["input"], states)
            frame = Rectangle((chosen - 0.45, row - 0.42), 0.9, 0.84, fill=False, edgecolor=FRAME, linewidth=2.0)
            axes.add_patch(frame)
    for axes in panels[: len(shown)][-abreast:]:
        axes.set_xlabel(f"hidden state{', or their learned sum' if weighted else ''}")
    look: dict[str, Any] = {"pad": 0.015, "fraction": 0.025, "aspect": 26, "ticks": [0, 1]}
    bar = color_bar(figure, image, panels, "validation score", labelpad=-18, **look)
    bar.ax.set_yticklabels(["task's\nlowest", "task's\nhighest"])
    return figure


def _depth(item: Scores, task: str) -> int:
    """Return how many hidden states an encoder was probed at."""
    return 1 + max((state for state, _ in item.layers.get(task, ()) if isinstance(state, int)), default=-1)


def _column(state: int | str, states: int) -> int:
    """Return where an input stands: a hidden state by its number, the weighted sum behind all of them."""
    return state if isinstance(state, int) else states


def _table(item: Scores, tasks: Sequence[str], states: int, columns: int) -> NDArray[np.float64]:
    """Return validation scores (tasks, columns); NaN where an input was not probed."""
    table = np.full((len(tasks), columns), np.nan)
    for row, task in enumerate(tasks):
        for state, value in item.layers.get(task, ()):
            table[row, _column(state, states)] = value
    return table


CURVE: dict[str, Any] = {"markersize": 4.5, "markeredgecolor": "white", "linewidth": 1.8}
MOST_ABREAST = 5
TITLE_WIDTH = 18


def robustness_curves(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure | None:
    """Return small multiples, tasks × deformations, one line per encoder with its 95 % interval; None without any.

    The first point of each line is the clean music. The panels of a task share its axis.
    """

    def probed(task: str, kind: str) -> bool:
        return any(item.robustness.get(task, {}).get(kind) for item in scores)

    shown = [task for task in tasks if any(task in item.robustness for item in scores)]
    if not shown:
        return None
    every = {kind for item in scores for task in shown for kind in item.robustness.get(task, ())}
    kinds = [*(kind for kind in DEFORMATIONS if kind in every), *sorted(every - set(DEFORMATIONS))]
    bands = [kinds[start : start + MOST_ABREAST] for start in range(0, len(kinds), MOST_ABREAST)]
    rows = [(task, band) for task in shown for band in bands]
    figure = new_figure(1.5 * len(rows) + 1.0)
    grid = figure.subplots(len(rows), max(map(len, bands)), squeeze=False, sharey="row")
    # A deformation's title stands over its first panel, its levels below its last one.
    with_kind = {kind: [task for task in shown if probed(task, kind)] for kind in kinds}
    for (task, band), panels in zip(rows, grid, strict=True):
        drawn = [(axes, kind) for axes, kind in zip(panels, band, strict=False) if probed(task, kind)]
        for axes, kind in drawn:
            _panel(axes, scores, task, kind, labelled=with_kind[kind][-1] == task)
            if with_kind[kind][0] == task:
                known = DEFORMATIONS.get(kind)
                title = f"{known.title}, {known.unit}" if known else plain(kind).capitalize()
                axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=9.5)
        for axes in set(panels) - {axes for axes, _ in drawn}:
            axes.set_visible(False)
        if drawn:
            metric = next(item.tasks[task]["metric"] for item in scores if task in item.tasks)
            unit = ", dB" if is_decibel(metric) else ""
            title = task_title(task).replace("/", "/\n")
            drawn[0][0].set_ylabel(f"{title}\n{metric_title(metric)}{unit}", color=INK, fontsize=8.5)
            drawn[0][0].tick_params(labelleft=True)
    _legend(figure, grid[0][0], scores, **CURVE)
    return figure


def _panel(axes: Axes, scores: Sequence[Scores], task: str, kind: str, *, labelled: bool) -> None:
    """Draw one deformation of one task; its levels stand below without their unit, which the title has."""
    unit = DEFORMATIONS[kind].unit if kind in DEFORMATIONS else ""
    labels: list[str] = []
    for item, color in zip(scores, _colors(scores), strict=True):
        if points := item.robustness.get(task, {}).get(kind):
            labels = [str(point["label"]).removesuffix(unit).rstrip() for point in points]
            low, value, high = ([point[name] for point in points] for name in ("low", "value", "high"))
            axes.fill_between(range(len(points)), low, high, color=color, alpha=0.16, linewidth=0)
            axes.plot(range(len(points)), value, color=color, marker=marker_of(item.run), **CURVE)
    shown = labels if labelled else [""] * len(labels)
    axes.set_xticks(range(len(labels)), shown, fontsize=8, color=INK)
    axes.set_xlim(-0.25, max(len(labels) - 0.75, 0.25))
