"""The leaderboard as data: tasks × models, ours beside what is published. How it is shown is `board_text` and the like.

There are two, and nothing is in both: stand-ins are scored on performed music, so no published figure stands by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mert_core.probing.tasks import DEMO, FLOORS, FOURTEEN
from mert_core.report.baselines import beats, unlike
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
Kind = Literal["run", "floor", "published"]
HERE = "here"
NOT_PROBED = "not probed"


@dataclass(frozen=True)
class Column:
    """A model.

    Attributes:
        model: a run, a floor, or a model as its paper calls it.
        kind: which of the three.
        source: the paper; ``here`` for ours.
    """

    model: str
    kind: Kind
    source: str = HERE

    @property
    def ours(self) -> bool:
        """Whether it was probed here."""
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
        tracks: test tracks.
        heard: hidden state, or ``weighted``.
        above: its interval lies above that of every floor.
        comparable: False if most others were probed by another protocol.
    """

    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    protocol: str = ""
    tracks: int | None = None
    heard: int | str | None = None
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
        title: of the table.
        columns: our runs, the floors, then what is published.
        lines: by task, then metric.
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

    @property
    def skipped(self) -> dict[str, dict[str, list[str]]]:
        """Reason to the tasks that were skipped for it, each with the models."""
        found: dict[str, dict[str, list[str]]] = {}
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                if cell.state == "skipped":
                    models = found.setdefault(cell.reason, {}).setdefault(line.task, [])
                    if column.model not in models:
                        models.append(column.model)
        return found

    @property
    def unlike(self) -> dict[str, list[str]]:
        """Models with scores that cannot be compared with the others', each with those tasks."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                if not cell.comparable and line.task not in found.setdefault(column.model, []):
                    found[column.model].append(line.task)
        return found


def stand_ins(scores: Sequence[Scores]) -> Board:
    """Return the table of the stand-ins: ours alone. Their average takes every metric that counts."""
    expected = {task: [metric for metric in _metrics(task, scores) if counts(metric)] for task in DEMO}
    return _board("Stand-ins: performed scores", DEMO, scores, (), expected)


def fourteen(scores: Sequence[Scores], figures: Sequence[PublishedRow] | None = None) -> Board:
    """Return the table of the fourteen tasks: ours, then what is published.

    Args:
        scores: of what was probed here; may be empty.
        figures: published ones; None: those of the package.
    """
    figures = published() if figures is None else figures
    return _board("Fourteen tasks", FOURTEEN, scores, figures, fourteen_metrics())


def _board(
    title: str,
    tasks: Iterable[str],
    scores: Sequence[Scores],
    figures: Sequence[PublishedRow],
    expected: Mapping[str, Sequence[str]],
) -> Board:
    probed = {item.run: item for item in scores}
    # Both floors stand in every table of ours, probed or not.
    own = [*(run for run, item in probed.items() if not item.is_floor), *(FLOORS if probed else ())]
    runs = [Column(run, "floor" if run in FLOORS else "run") for run in own]
    papers = [Column(model, "published", source) for model, source in published_models(figures)]
    values = {(figure.model, figure.source, figure.task, figure.metric): figure.value for figure in figures}
    lines = []
    for task in tasks:
        odd = unlike(scores, task)
        floors = [probed[run] for run in FLOORS if run in probed and run not in odd]
        known = [figure.metric for figure in figures if figure.task == task]
        for metric in ordered(task, {*_metrics(task, scores), *known}) or [""]:
            cells = [_own(probed.get(column.model), task, metric, floors, odd) for column in runs]
            cells += [_theirs(values.get((column.model, column.source, task, metric))) for column in papers]
            lines.append(Line(task, metric, tuple(cells)))
    columns = (*runs, *papers)
    averages = tuple(average(_figures(lines, place), expected) for place in range(len(columns)))
    order = sorted(range(len(columns)), key=lambda place: _rank(columns[place], averages[place]))
    return Board(
        title,
        tuple(columns[place] for place in order),
        tuple(Line(line.task, line.metric, tuple(line.cells[place] for place in order)) for line in lines),
        tuple(averages[place] for place in order),
    )


def _rank(column: Column, mean: Average) -> tuple[Any, ...]:
    """Our runs come first, those with the best average before; floors and papers keep their order."""
    if column.kind == "run":
        return 0, mean.value is None, -(mean.value or 0.0), column.model
    return (1,) if column.kind == "floor" else (2,)


def _metrics(task: str, scores: Sequence[Scores]) -> list[str]:
    return sorted({metric for item in scores if task in item.tasks for metric in item.tasks[task]["metrics"]})


def _figures(lines: Sequence[Line], place: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        value = line.cells[place].value
        if value is not None and line.cells[place].comparable:
            found.setdefault(line.task, {})[line.metric] = value
    return found


def _own(item: Scores | None, task: str, metric: str, floors: Sequence[Scores], odd: Sequence[str]) -> Cell:
    if item is None:
        return Cell("missing", reason=NOT_PROBED)
    if task not in item.tasks:
        skipped = item.skipped.get(task)
        return Cell("skipped", reason=skipped) if skipped else Cell("missing", reason=NOT_PROBED)
    score = item.tasks[task]
    found = score["metrics"].get(metric)
    if found is None:
        return Cell("missing", reason=f"probed without {metric}")
    rivals = [floor.tasks[task]["metrics"].get(metric) for floor in floors if task in floor.tasks]
    above = bool(rivals) and not item.is_floor and item.run not in odd
    unit = 1.0 if is_decibel(metric) else 100.0
    return Cell(
        "scored",
        unit * found["value"],
        unit * found["low"],
        unit * found["high"],
        protocol=score["protocol"],
        tracks=score["tracks"],
        heard=score["input"],
        above=above and all(rival is not None and beats(found, rival) for rival in rivals),
        comparable=item.run not in odd,
    )


def _theirs(value: float | None) -> Cell:
    return Cell("missing", reason="not published") if value is None else Cell("published", value)
