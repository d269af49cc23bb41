"""The leaderboard as data: tasks × models, ours beside what is published. `board_text` and `pages` show it.

There are two, and nothing is in both: proxy tasks are scored on performed music, so no published figure stands by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mert_core.config import BASELINES
from mert_core.probing.tasks import PROXY_TASKS, PUBLIC_TASKS
from mert_core.report.baselines import beats, not_comparable
from mert_core.report.load import Scores
from mert_core.report.published import (
    Average,
    PublishedRow,
    average,
    counts,
    fourteen_metrics,
    published,
    published_models,
)
from mert_core.report.titles import is_decibel, ordered

State = Literal["scored", "published", "skipped", "missing"]
Kind = Literal["run", "baseline", "published"]
HERE = "here"
NOT_PROBED = "not probed"


@dataclass(frozen=True)
class Column:
    """A model.

    Attributes:
        model: a run, a baseline, or a model as its paper calls it.
        kind: which of the three.
        source: the paper; ``here`` for ours.
    """

    model: str
    kind: Kind
    source: str = HERE

    @property
    def ours(self) -> bool:
        """Whether it is probed here, not published."""
        return self.kind != "published"


@dataclass(frozen=True)
class Cell:
    """One model's figure, or why there is none.

    Attributes:
        state: what it is.
        value: percent, or dB.
        low: lower end of the 95 % interval; None if published.
        high: its upper end.
        reason: why there is no figure.
        protocol: SHA-256 of the task's whole protocol.
        tracks: number of test tracks.
        input: what the probe was given, a hidden state or ``weighted``.
        above: whether its interval lies above that of every baseline.
        comparable: False if most others were probed by another protocol or on other music.
    """

    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    protocol: str = ""
    tracks: int | None = None
    input: int | str | None = None
    above: bool = False
    comparable: bool = True


@dataclass(frozen=True)
class Line:
    """A task and one of its metrics, with a cell per column. The metric is empty if none is known."""

    task: str
    metric: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Board:
    """A table.

    Attributes:
        title: heading of the table.
        columns: our runs, the baselines, then what is published.
        lines: one per task and metric, in the order of the tasks.
        averages: one per column.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    averages: tuple[Average, ...]

    @property
    def own(self) -> int:
        """How many columns, from the first on, are ours."""
        return sum(column.ours for column in self.columns)

    def best(self, line: Line) -> float | None:
        """Return the highest of our scores in a line that can be compared."""
        values = [cell.value for cell in line.cells[: self.own] if cell.value is not None and cell.comparable]
        return max(values, default=None)

    @property
    def skipped(self) -> dict[str, dict[str, list[str]]]:
        """Reason to the tasks that were skipped for it, each with the models."""
        reasons: dict[str, dict[str, list[str]]] = {}
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                if cell.state == "skipped":
                    models = reasons.setdefault(cell.reason, {}).setdefault(line.task, [])
                    if column.model not in models:
                        models.append(column.model)
        return reasons

    @property
    def not_comparable(self) -> dict[str, list[str]]:
        """Models with scores that cannot be compared with the others', each with those tasks."""
        tasks: dict[str, list[str]] = {}
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                if not cell.comparable and line.task not in tasks.setdefault(column.model, []):
                    tasks[column.model].append(line.task)
        return tasks


def proxy_board(scores: Sequence[Scores], pending: Iterable[str] = ()) -> Board:
    """Return the table of the proxy tasks: ours alone. Their average takes every metric that counts.

    Args:
        scores: those of all that was probed here.
        pending: further runs to show, which have no scores yet.
    """
    expected = {task: [metric for metric in _metrics(task, scores) if counts(metric)] for task in PROXY_TASKS}
    return _board("Proxy tasks: performed scores", PROXY_TASKS, scores, pending, (), expected)


def fourteen_board(
    scores: Sequence[Scores], pending: Iterable[str] = (), figures: Sequence[PublishedRow] | None = None
) -> Board:
    """Return the table of the fourteen tasks: ours, then what is published.

    Args:
        scores: those of all that was probed here; may be empty.
        pending: further runs to show, which have no scores yet.
        figures: published ones; None: those of the package.
    """
    figures = published() if figures is None else figures
    return _board("Fourteen tasks", PUBLIC_TASKS, scores, pending, figures, fourteen_metrics())


def _board(
    title: str,
    tasks: Iterable[str],
    scores: Sequence[Scores],
    pending: Iterable[str],
    figures: Sequence[PublishedRow],
    expected: Mapping[str, Sequence[str]],
) -> Board:
    probed = {item.run: item for item in scores}
    names = dict.fromkeys([*probed, *pending])
    # Both baselines stand in every table of ours, probed or not.
    ours = [*(name for name in names if name not in BASELINES), *(BASELINES if names else ())]
    own = [Column(name, "baseline" if name in BASELINES else "run") for name in ours]
    papers = [Column(model, "published", source) for model, source in published_models(figures)]
    values = {(figure.model, figure.source, figure.task, figure.metric): figure.value for figure in figures}
    lines = []
    for task in tasks:
        odd = not_comparable(scores, task)
        baselines = [probed[name] for name in BASELINES if name in probed and name not in odd]
        printed = [figure.metric for figure in figures if figure.task == task]
        for metric in ordered(task, {*_metrics(task, scores), *printed}) or [""]:
            cells = [_own_cell(probed.get(column.model), task, metric, baselines, odd) for column in own]
            cells += [_published_cell(values.get((column.model, column.source, task, metric))) for column in papers]
            lines.append(Line(task, metric, tuple(cells)))
    columns = (*own, *papers)
    averages = tuple(average(_figures(lines, index), expected) for index in range(len(columns)))
    order = sorted(range(len(columns)), key=lambda index: _rank(columns[index], averages[index]))
    return Board(
        title,
        tuple(columns[index] for index in order),
        tuple(Line(line.task, line.metric, tuple(line.cells[index] for index in order)) for line in lines),
        tuple(averages[index] for index in order),
    )


def _rank(column: Column, mean: Average) -> tuple[Any, ...]:
    """Return a sort key: our runs, the best average first, then baselines and papers in the order they have."""
    if column.kind == "run":
        return 0, mean.value is None, -(mean.value or 0.0), column.model
    return (1,) if column.kind == "baseline" else (2,)


def _metrics(task: str, scores: Sequence[Scores]) -> list[str]:
    return sorted({metric for item in scores if task in item.tasks for metric in item.tasks[task]["metrics"]})


def _figures(lines: Sequence[Line], index: int) -> dict[str, dict[str, float]]:
    """Return one column's figures that may be averaged, by task and metric."""
    figures: dict[str, dict[str, float]] = {}
    for line in lines:
        value = line.cells[index].value
        if value is not None and line.cells[index].comparable:
            figures.setdefault(line.task, {})[line.metric] = value
    return figures


def _own_cell(item: Scores | None, task: str, metric: str, baselines: Sequence[Scores], odd: Sequence[str]) -> Cell:
    if item is None:
        return Cell("missing", reason=NOT_PROBED)
    if task not in item.tasks:
        skipped = item.skipped.get(task)
        return Cell("skipped", reason=skipped) if skipped else Cell("missing", reason=NOT_PROBED)
    score = item.tasks[task]
    estimate = score["metrics"].get(metric)
    if estimate is None:
        return Cell("missing", reason=f"probed without {metric}")
    rivals = [baseline.tasks[task]["metrics"].get(metric) for baseline in baselines if task in baseline.tasks]
    above = bool(rivals) and not item.is_baseline and item.run not in odd
    unit = 1.0 if is_decibel(metric) else 100.0
    return Cell(
        "scored",
        unit * estimate["value"],
        unit * estimate["low"],
        unit * estimate["high"],
        protocol=score["protocol"],
        tracks=score["tracks"],
        input=score["input"],
        above=above and all(rival is not None and beats(estimate, rival) for rival in rivals),
        comparable=item.run not in odd,
    )


def _published_cell(value: float | None) -> Cell:
    return Cell("missing", reason="not published") if value is None else Cell("published", value)
