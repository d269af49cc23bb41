"""``report.html`` and the leaderboard's page: one file each with everything in it, for a browser without a network.

`templates/` has the text and the layout; here are the tables that they show. Everything is escaped. Pages hold no date,
host or path of this machine, so equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mert_core.lineage.catalog import score_id
from mert_core.report.baselines import standings
from mert_core.report.board import Board, Cell, Line, fourteen_board, proxy_board
from mert_core.report.board_text import ABSENT, notes_of, paper_letters
from mert_core.report.figures.draw import Picture
from mert_core.report.load import Labels, ReportData
from mert_core.report.titles import input_title, metric_title, plain, task_title

MOST_QUARANTINED_SHOWN = 20
FAILED = Markup('{} <strong title="failed">✗</strong>')


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        header: names of the columns.
        rows: cells, each row's name first.
        words: how many columns, from the first on, are words; the others are numbers, set flush right.
        caption: what stands above it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    words: int = 1
    caption: str = ""


def report_page(data: ReportData, pictures: Sequence[Picture]) -> str:
    """Return the whole report."""
    boards = [proxy_board(data.scores, data.pending)] if data.proxy_tasks else []
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            data=data,
            pictures=pictures,
            standings=standings(data),
            boards=[*boards, fourteen_board(data.scores, data.pending)],
            training=training_table(data),
            corpus=corpus_table(data.corpus.facts),
            reasons=reasons_table(data.quarantine),
            left_out=left_out_table(data.quarantine),
            lineage=lineage_rows(data),
        )
    )


def leaderboard_page(boards: Sequence[Board]) -> str:
    """Return the leaderboard as one page, with nothing to fetch."""
    return _templates().get_template("leaderboard.html.j2").render(boards=boards)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("mert_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": lambda path: base64.b64encode(Path(path).read_bytes()).decode(),
        "by_task": by_task,
        "gate_tables": gate_tables,
        "input_title": input_title,
        "metric_title": metric_title,
        "notes": notes_of,
        "number": number,
        "paper_letters": paper_letters,
        "plain": plain,
        "signed": signed,
        "spans": spans,
        "task_title": task_title,
    }
    return environment


def number(value: object) -> object:
    """Return a value for a table: thousands grouped, at most four significant decimals; words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value


def signed(value: float | None) -> str:
    """Return a figure with one decimal and a true minus sign; a dash where there is none."""
    return ABSENT if value is None else f"{value:.1f}".replace("-", "−")


def by_task(board: Board) -> list[list[Line]]:
    """Return a table's lines, those of one task together."""
    return [list(lines) for _, lines in groupby(board.lines, lambda line: line.task)]


def spans(cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Yield the index of each cell to draw, and how many columns it covers.

    It is more than one where neighbours were skipped for the same reason.
    """
    index = 0
    for reason, group in groupby(cells, lambda cell: cell.reason if cell.state == "skipped" else None):
        count = len(list(group))
        yield from [(index, count)] if reason is not None else [(index + step, 1) for step in range(count)]
        index += count


def training_table(data: ReportData) -> Table:
    """Return size, length and final validation of each run; a dash where a run has no such figure (yet)."""
    trainings = {training.run: training for training in data.trainings}
    shown = [trainings.get(run) for run in data.runs]
    names = {
        "parameters": "encoder parameters",
        "steps": "optimiser steps",
        "audio_hours_seen": "hours of audio seen",
        "epochs": "passes over the music",
    }
    rows: list[list[Any]] = [
        [label, *(training.record.facts.get(name, ABSENT) if training else ABSENT for training in shown)]
        for name, label in names.items()
    ]
    unigram = sorted({name for training in data.trainings for name in training.unigram})
    kinds = {name: kind for training in data.trainings for name, kind in training.teachers.items()}
    finals = {
        name: f"{name}, {'nats' if name in unigram else 'squared error'} ({kind})" for name, kind in kinds.items()
    }
    for term, label in {**finals, "accuracy": "share of codes guessed right"}.items():
        curves = [training.curve.get(("valid", term)) if training else None for training in shown]
        rows.append([f"final validation: {label}", *(float(curve[1][-1]) if curve else ABSENT for curve in curves)])
    for name in unigram:
        nats = [training.unigram.get(name) if training else None for training in shown]
        rows.append([f"{name} guessed by frequency, nats", *(sum(each) if each else ABSENT for each in nats)])
    return Table(["", *data.runs], rows)


def gate_tables(labels: Labels) -> list[Table]:
    """Return one teacher's checks: those of the codebooks as one table, a line each, then the others."""
    columns: dict[str, None] = {}
    codebooks: dict[str, dict[str, Any]] = {}
    others = []
    for row in labels.gate:
        allowed = row["limit"].replace(">=", "≥").replace("<=", "≤")
        cell = number(row["value"]) if row["passed"] else FAILED.format(number(row["value"]))
        if not row["where"].startswith("codebook"):
            others.append([row["check"], row["where"], allowed, cell])
            continue
        name = "top share" if row["check"].startswith("share of entry") else row["check"]
        columns.setdefault(f"{name} ({allowed})")
        codebooks.setdefault(row["where"], {})[f"{name} ({allowed})"] = cell
    rows = [[name, *(cells.get(column, ABSENT) for column in columns)] for name, cells in codebooks.items()]
    tables = [Table(["", *columns], rows), Table(["check", "of", "allowed", "value"], others, words=3)]
    return [table for table in tables if table.rows]


def corpus_table(facts: Mapping[str, Any]) -> Table:
    """Return how much music there is, by split and in all."""
    rows = [
        [
            name,
            part.get("tracks", ABSENT),
            f"{part['seconds'] / 3600:.2f}" if "seconds" in part else ABSENT,
            part.get("pieces", ABSENT),
            part.get("artists", ABSENT),
        ]
        for name, part in [*facts.get("splits", {}).items(), ("all", facts)]
    ]
    return Table(["split", "tracks", "hours", "pieces", "artists"], rows)


def reasons_table(quarantine: Iterable[Mapping[str, str]]) -> Table:
    """Return how many files were left out, by reason, the commonest first."""
    counts = Counter(row["reason"] for row in quarantine).most_common()
    return Table(["reason", "files"], [[plain(reason), count] for reason, count in counts])


def left_out_table(quarantine: Sequence[Mapping[str, str]]) -> Table:
    """Return the first files that were left out."""
    shown = quarantine[:MOST_QUARANTINED_SHOWN]
    more = len(quarantine) - len(shown)
    rows = [[row["path"], plain(row["reason"]), row["detail"]] for row in shown]
    caption = f"{more:,} more in quarantine.parquet." if more else ""
    return Table(["file", "reason", "detail"], rows, words=3, caption=caption)


def lineage_rows(data: ReportData) -> list[tuple[str, str, str]]:
    """Return what, of what and id of every record behind the report, and of each run's scores."""
    stored = [(labels.teacher, labels.record) for labels in data.labels if labels.record]
    probe_sets = {item.record.inputs["probe_set"] for item in data.scores if "probe_set" in item.record.inputs}
    return [
        ("corpus", "", data.corpus.id),
        *(("teacher", teacher, record.inputs["teacher"]) for teacher, record in stored),
        *(("targets", teacher, record.id) for teacher, record in stored),
        *(("checkpoint", training.run, training.record.id) for training in data.trainings),
        *(("probe set", "", identity) for identity in sorted(probe_sets)),
        *(("baseline" if item.is_baseline else "scores", item.run, item.record.id) for item in data.scores),
        *(
            ("score", f"{item.run}/{task}", score_id(item.record.id, task))
            for item in data.scored
            if not item.is_baseline
            for task in data.tasks
        ),
    ]
