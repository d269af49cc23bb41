"""Two models compared task by task, paired over the tracks that both answered, as a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.probing.tasks import PROXY_TASKS, PUBLIC_TASKS
from mert_core.report.baselines import not_comparable
from mert_core.report.load import Scores, read_all_scores
from mert_core.report.titles import is_decibel, metric_title

if TYPE_CHECKING:
    from mert_core.probing.significance import Difference

SIGNIFICANT = 0.05
GAP = "  "


def compare_models(layout: Layout, a: str, b: str, *, demo: bool = False, width: int = 132) -> str:
    """Return how two probed runs differ at every task and metric, proxy tasks and the fourteen each by themselves.

    Args:
        layout: where scores and answers lie.
        a: a run, a baseline or another probed model.
        b: the model that it is compared with.
        demo: whether to show the proxy tasks alone.
        width: the notes', in characters.

    Raises:
        MertError: one of them was not probed, they have no task in common, or their answers do not match.
    """
    if a == b:
        raise MertError(f"--compare {a} {b}: expected two different runs")
    pair = read_all_scores(layout, a), read_all_scores(layout, b)
    groups = [("Proxy tasks: performed scores", PROXY_TASKS)] + ([] if demo else [("Fourteen tasks", PUBLIC_TASKS)])
    parts = [part for title, tasks in groups if (part := _group(pair, title, tasks, width))]
    if not parts:
        what = "proxy task" if demo else "task"
        raise MertError(f"{a} and {b} were probed on no common {what}. Run `mert probe --run NAME` for both.")
    return "\n\n".join(parts) + "\n"


def _group(pair: tuple[Scores, Scores], title: str, tasks: Iterable[str], width: int) -> str:
    from mert_core.probing.results import Predictions, predictions_path
    from mert_core.probing.significance import compare

    both = [task for task in tasks if all(task in item.tasks for item in pair)]
    odd = [task for task in both if not_comparable(pair, task)]
    if not both:
        return ""
    a, b = (
        {task: Predictions.load(predictions_path(item.folders[task], task)) for task in both if task not in odd}
        for item in pair
    )
    return as_table(title, pair[0].run, pair[1].run, compare(a, b), odd, width)


def as_table(title: str, a: str, b: str, rows: Iterable[Difference], odd: Iterable[str], width: int) -> str:
    """Return differences as text.

    Args:
        title: heading of the table.
        a: name of the first model.
        b: name of the second model.
        rows: differences by task and metric, as `mert_core.probing.significance.compare` returns them.
        odd: tasks that cannot be compared.
        width: the notes', in characters.
    """
    header = ["task", "metric", a, b, "difference", "95 % interval", "p", "p, Holm", "tracks"]
    cells, before = [], ""
    for row in rows:
        unit = 1.0 if is_decibel(row.metric) else 100.0
        figures = [f"{unit * value:.1f}" for value in (row.a, row.b)]
        change, low, high = (f"{unit * value:+.1f}" for value in (row.difference, row.low, row.high))
        mark = "*" if row.p_holm < SIGNIFICANT else " "
        name, before = "" if row.task == before else row.task, row.task
        statistics = [change + mark, f"[{low}, {high}]", _chance(row.p), _chance(row.p_holm), f"{row.tracks:,}"]
        cells.append([name, metric_title(row.metric), *figures, *statistics])
    columns = [list(column) for column in zip(header, *cells, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    sides = "<<" + ">" * (len(header) - 2)
    lines = [
        GAP.join(f"{cell:{side}{wide}}" for cell, side, wide in zip(line, sides, widths, strict=True))
        for line in [header, *cells]
    ]
    notes = [
        f"Percent, SDR in dB. Difference: {b} less {a}, with its 95 % interval by a paired bootstrap over tracks. "
        "p: by swapping the models track by track, or from that bootstrap where a metric is no mean over tracks. "
        f"*: p below {SIGNIFICANT:g} after Holm's correction over this table."
    ]
    if names := ", ".join(odd):
        notes.append(f"Not comparable, probed by another protocol or on other music: {names}.")
    folded = [part for note in notes for part in textwrap.wrap(note, max(width, 60), subsequent_indent=GAP)]
    return "\n".join(line.rstrip() for line in [title, "", lines[0], "─" * len(lines[0]), *lines[1:], "", *folded])


def _chance(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
