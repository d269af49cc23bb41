"""The leaderboard as data: tasks × models, ours beside what is published. `leaderboard` and `pages` show it.

There are two, and nothing is in both: proxy tasks are scored on performed music, so no published figure stands by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mert_core.config import BASELINES
from mert_core.probing.tasks import PROXY_TASKS, PUBLIC_TASKS
from mert_core.report.baselines import beats, not_comparable
from mert_core.report.load import Scores
from mert_core.report.published import Average, PublishedRow, average, counts, fourteen_metrics, published
from mert_core.report.titles import is_decibel, ordered

ABSENT, ODD, ABOVE = "–", "‡", "*"
NOT_PROBED = "not probed"


@dataclass(frozen=True)
class Column:
    """A model: a run, a baseline, or one as its paper calls it; and that paper, ``here`` for ours."""

    model: str
    kind: Literal["run", "baseline", "published"]
    source: str = "here"

    @property
    def ours(self) -> bool:
        """Whether it is probed here, not published."""
        return self.kind != "published"


@dataclass(frozen=True)
class Cell:
    """One model's figure, or why there is none. What has no meaning in its state is None, or empty.

    Attributes:
        state: what it is.
        value: percent, or dB.
        low: lower end of the 95 % interval.
        high: its upper end.
        comparable: False if most others were probed by another protocol or on other music.
        above_baselines: whether a run's interval lies above that of every baseline.
        input: what the probe was given, a hidden state or ``weighted``.
        tracks: number of test tracks.
        protocol: SHA-256 of the task's whole protocol.
        reason: why there is no figure.
    """

    state: Literal["scored", "published", "skipped", "missing"]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    comparable: bool | None = None
    above_baselines: bool | None = None
    input: int | str | None = None
    tracks: int | None = None
    protocol: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """A task and one of its metrics, with a cell per column. The metric is empty if none is known."""

    task: str
    metric: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Board:
    """A table: columns (our runs, the baselines, then what is published), a line per task and metric, averages."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    averages: tuple[Average, ...]

    @property
    def own(self) -> int:
        """How many columns, from the first on, are ours."""
        return sum(column.ours for column in self.columns)

    @property
    def letters(self) -> dict[str, str]:
        """A letter for each paper that the table quotes."""
        sources = dict.fromkeys(column.source for column in self.columns if not column.ours)
        return {source: chr(ord("a") + number) for number, source in enumerate(sources)}

    def best(self, line: Line) -> float | None:
        """Return the highest of our scores in a line that can be compared."""
        return max((cell.value for cell in line.cells if cell.value is not None and cell.comparable), default=None)

    def _cells(self) -> Iterator[tuple[Column, Line, Cell]]:
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                yield column, line, cell

    @property
    def not_comparable(self) -> dict[str, list[str]]:
        """Models with scores that cannot be compared with the others', each with those tasks."""
        tasks: dict[str, dict[str, None]] = {}
        for column, line, cell in self._cells():
            if cell.comparable is False:
                tasks.setdefault(column.model, {})[line.task] = None
        return {model: list(names) for model, names in tasks.items()}

    def notes(self, above: str = ABOVE) -> list[str]:
        """Return what stands below the table: how to read it, what was skipped, what cannot be compared.

        Args:
            above: the mark of a score whose interval lies above those of the baselines.
        """
        notes = [f"Percent, SDR in dB. {ABSENT} not probed here, or not published."]
        if self.own:
            notes = [
                "Percent, SDR in dB. Ours: value, 95 % interval and the beginning of the protocol's hash. "
                f"{above} interval above those of the baselines. {ABSENT} not probed here, or not published."
            ]
        notes += [f"{letter}: {source}." for source, letter in self.letters.items()]
        skipped: dict[tuple[str, str], dict[str, None]] = {}
        for column, line, cell in self._cells():
            if cell.state == "skipped":
                skipped.setdefault((cell.reason, column.model), {})[line.task] = None
        alike: dict[tuple[str, str], list[str]] = {}
        for (reason, model), tasks in skipped.items():
            alike.setdefault((reason, ", ".join(tasks)), []).append(model)
        notes += [f"Skipped: {tasks} ({', '.join(models)}): {reason}" for (reason, tasks), models in alike.items()]
        notes += [
            f"{ODD} Not comparable, {model} was probed by another protocol or on other music: {', '.join(tasks)}."
            for model, tasks in self.not_comparable.items()
        ]
        notes.append(
            "Average: the mean over the fourteen of the mean of each one's metrics, beats at ±20 ms and museval left "
            "out; only where every figure is there."
        )
        lacking: dict[str, list[str]] = {}
        for column, mean in zip(self.columns, self.averages, strict=True):
            if column.ours and mean.missing:
                lacking.setdefault(mean.note, []).append(column.model)
        return notes + [f"No average of {', '.join(models)}: {note}" for note, models in lacking.items()]


def proxy_board(scores: Sequence[Scores], pending: Iterable[str] = ()) -> Board:
    """Return the table of the proxy tasks: ours alone. Their average takes every metric that counts.

    Args:
        scores: those of all that was probed here.
        pending: further runs to show, which have no scores yet.
    """
    expected = {task: [metric for metric in _metrics(task, scores) if counts(metric)] for task in PROXY_TASKS}
    return _board("Proxy tasks: performed scores", PROXY_TASKS, scores, pending, (), expected)


def fourteen_board(scores: Sequence[Scores], pending: Iterable[str] = ()) -> Board:
    """Return the table of the fourteen tasks: ours, as in `proxy_board`, then what is published."""
    return _board("Fourteen tasks", PUBLIC_TASKS, scores, pending, published(), fourteen_metrics())


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
    columns = [Column(name, "run") for name in names if name not in BASELINES]
    columns += [Column(name, "baseline") for name in BASELINES if names]
    columns += [
        Column(model, "published", source) for model, source in dict.fromkeys((f.model, f.source) for f in figures)
    ]
    values = {(figure.model, figure.source, figure.task, figure.metric): figure.value for figure in figures}
    lines = []
    for task in tasks:
        odd = not_comparable(scores, task)
        baselines = [probed[name] for name in BASELINES if name in probed and name not in odd]
        printed = [figure.metric for figure in figures if figure.task == task]
        for metric in ordered(task, {*_metrics(task, scores), *printed}) or [""]:
            line = (
                _own_cell(probed.get(column.model), task, metric, baselines, odd)
                if column.ours
                else _published_cell(values.get((column.model, column.source, task, metric)))
                for column in columns
            )
            lines.append(Line(task, metric, tuple(line)))

    averages = []
    for index in range(len(columns)):
        cells = {(line.task, line.metric): line.cells[index] for line in lines}
        usable = {key: cell.value for key, cell in cells.items() if cell.comparable is not False}
        averages.append(average({key: value for key, value in usable.items() if value is not None}, expected))

    def rank(index: int) -> tuple[int, float, str]:
        """Sort our runs by their average, the best first and those without one last; leave the others as they are."""
        if columns[index].kind != "run":
            return (1 if columns[index].ours else 2), 0.0, ""
        mean = averages[index].value
        return 0, float("inf") if mean is None else -mean, columns[index].model

    order = sorted(range(len(columns)), key=rank)
    return Board(
        title,
        tuple(columns[index] for index in order),
        tuple(Line(line.task, line.metric, tuple(line.cells[index] for index in order)) for line in lines),
        tuple(averages[index] for index in order),
    )


def _metrics(task: str, scores: Sequence[Scores]) -> list[str]:
    return sorted({metric for item in scores if task in item.tasks for metric in item.tasks[task]["metrics"]})


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
    above = bool(rivals) and item.run not in odd and all(rival and beats(estimate, rival) for rival in rivals)
    unit = 1.0 if is_decibel(metric) else 100.0
    return Cell(
        "scored",
        unit * estimate["value"],
        unit * estimate["low"],
        unit * estimate["high"],
        comparable=item.run not in odd,
        above_baselines=None if item.is_baseline else above,
        input=score["input"],
        tracks=score["tracks"],
        protocol=score["protocol"],
    )


def _published_cell(value: float | None) -> Cell:
    return Cell("missing", reason="not published") if value is None else Cell("published", value)
