"""The robustness axis: the same probes on deformed audio."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from mert_core.audio.deform import DEFORMATIONS
from mert_core.report.collect import Scores
from mert_core.report.style import INK, colour_of, marker_of, new_figure, plain
from mert_core.report.words import is_decibel, metric_title, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ABREAST = 5
TITLE_WIDTH = 18


def robustness_curves(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure | None:
    """Return small multiples, tasks × deformations, one line per encoder with its 95 % interval; None without any.

    The first point of each line is the clean music. The panels of a task share its axis.
    """
    shown = [task for task in tasks if any(task in item.robustness for item in scores)]
    if not shown:
        return None
    found = {kind for item in scores for task in shown for kind in item.robustness.get(task, ())}
    kinds = [*(kind for kind in DEFORMATIONS if kind in found), *sorted(found - set(DEFORMATIONS))]
    bands = [kinds[start : start + MOST_ABREAST] for start in range(0, len(kinds), MOST_ABREAST)]
    rows = [(task, band) for task in shown for band in bands]
    figure = new_figure(1.5 * len(rows) + 1.0)
    abreast = max(map(len, bands))
    grid = figure.subplots(len(rows), abreast, squeeze=False, sharey="row")
    runs = [item.run for item in scores if not item.is_floor]
    first = {kind: next(task for task in shown if _has(scores, task, kind)) for kind in kinds}
    last = {kind: next(task for task in reversed(shown) if _has(scores, task, kind)) for kind in kinds}
    for number, (task, band) in enumerate(rows):
        drawn = [(axes, kind) for axes, kind in zip(grid[number], band, strict=False) if _has(scores, task, kind)]
        for axes, kind in drawn:
            _panel(axes, scores, task, kind, runs, labelled=last[kind] == task)
            if first[kind] == task:
                axes.set_title(_title(kind), fontsize=9.5)
        for axes in set(grid[number]) - {axes for axes, _ in drawn}:
            axes.set_visible(False)
        if drawn:
            metric = next(item.tasks[task]["metric"] for item in scores if task in item.tasks)
            unit = ", dB" if is_decibel(metric) else ""
            title = task_title(task).replace("/", "/\n")
            drawn[0][0].set_ylabel(f"{title}\n{metric_title(metric)}{unit}", color=INK, fontsize=8.5)
            drawn[0][0].tick_params(labelleft=True)
    handles = []
    for item in scores:
        handles += grid[0][0].plot([], [], label=plain(item.run), **_look(item.run, runs))
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))
    return figure


def _has(scores: Sequence[Scores], task: str, kind: str) -> bool:
    return any(item.robustness.get(task, {}).get(kind) for item in scores)


def _title(kind: str) -> str:
    title = plain(kind).capitalize()
    if kind in DEFORMATIONS:
        title = f"{DEFORMATIONS[kind].title}, {DEFORMATIONS[kind].unit}"
    return textwrap.fill(title, TITLE_WIDTH)


def _labels(kind: str, points: Sequence[dict[str, Any]]) -> list[str]:
    """Return the levels without their unit, which the title has."""
    unit = DEFORMATIONS[kind].unit if kind in DEFORMATIONS else ""
    return [str(point["label"]).removesuffix(unit).rstrip() for point in points]


def _panel(axes: Axes, scores: Sequence[Scores], task: str, kind: str, runs: Sequence[str], *, labelled: bool) -> None:
    """Draw one deformation of one task."""
    labels: list[str] = []
    for item in scores:
        points = item.robustness.get(task, {}).get(kind)
        if not points:
            continue
        labels = _labels(kind, points)
        places = range(len(points))
        axes.fill_between(
            places, [point["low"] for point in points], [point["high"] for point in points],
            color=colour_of(item.run, runs), alpha=0.16, linewidth=0,
        )  # fmt: skip
        axes.plot(places, [point["value"] for point in points], **_look(item.run, runs))
    shown = labels if labelled else [""] * len(labels)
    axes.set_xticks(range(len(labels)), shown, fontsize=8, color=INK)
    axes.set_xlim(-0.25, max(len(labels) - 0.75, 0.25))


def _look(run: str, runs: Sequence[str]) -> dict[str, Any]:
    return {
        "color": colour_of(run, runs), "marker": marker_of(run), "markersize": 4.5, "markeredgecolor": "white",
        "linewidth": 1.8,
    }  # fmt: skip
