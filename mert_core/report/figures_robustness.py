"""The robustness axis: the same probes on deformed audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from mert_core.report.collect import Scores
from mert_core.report.style import INK, colour_of, marker_of, new_figure, plain
from mert_core.report.words import is_decibel, metric_title, task_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ABREAST = 5


def robustness_curves(scores: Sequence[Scores], tasks: Sequence[str]) -> Figure | None:
    """Return small multiples, tasks × deformations, one line per encoder with its 95 % interval; None without any.

    The first point of each line is the clean music. The panels of a task share its axis.
    """
    shown = [task for task in tasks if any(task in item.robustness for item in scores)]
    if not shown:
        return None
    kinds = list(dict.fromkeys(kind for item in scores for task in shown for kind in item.robustness.get(task, ())))
    bands = [kinds[start : start + MOST_ABREAST] for start in range(0, len(kinds), MOST_ABREAST)]
    rows = [(task, band) for task in shown for band in bands]
    figure = new_figure(1.5 * len(rows) + 1.0)
    abreast = max(map(len, bands))
    grid = figure.subplots(len(rows), abreast, squeeze=False, sharey="row")
    runs = [item.run for item in scores if not item.is_floor]
    for number, (task, band) in enumerate(rows):
        last = number + len(bands) >= len(rows)
        for place, axes in enumerate(grid[number]):
            drawn = place < len(band) and _panel(axes, scores, task, band[place], runs, labelled=last)
            if not drawn:
                axes.set_visible(False)
                continue
            if number < len(bands):
                axes.set_title(plain(band[place]).capitalize(), fontsize=10)
            if place == 0:
                metric = next(item.tasks[task]["metric"] for item in scores if task in item.tasks)
                unit = ", dB" if is_decibel(metric) else ""
                axes.set_ylabel(f"{task_title(task)}\n{metric_title(metric)}{unit}", color=INK, fontsize=8.5)
    handles = []
    for item in scores:
        handles += grid[0][0].plot([], [], label=plain(item.run), **_look(item.run, runs))
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 6))
    return figure


def _panel(axes: Axes, scores: Sequence[Scores], task: str, kind: str, runs: Sequence[str], *, labelled: bool) -> bool:
    """Draw one deformation of one task and return whether there was anything to draw."""
    labels: list[str] = []
    for item in scores:
        points = item.robustness.get(task, {}).get(kind)
        if not points:
            continue
        labels = [str(point["label"]) for point in points]
        places = range(len(points))
        axes.fill_between(
            places, [point["low"] for point in points], [point["high"] for point in points],
            color=colour_of(item.run, runs), alpha=0.16, linewidth=0,
        )  # fmt: skip
        axes.plot(places, [point["value"] for point in points], **_look(item.run, runs))
    shown = labels if labelled else [""] * len(labels)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 8, "color": INK}
    axes.set_xticks(range(len(labels)), shown, **turned)
    axes.set_xlim(-0.25, max(len(labels) - 0.75, 0.25))
    return bool(labels)


def _look(run: str, runs: Sequence[str]) -> dict[str, Any]:
    return {
        "color": colour_of(run, runs), "marker": marker_of(run), "markersize": 4.5, "markeredgecolor": "white",
        "linewidth": 1.8,
    }  # fmt: skip
