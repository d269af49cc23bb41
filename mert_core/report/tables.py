"""The tables of the report: those of its page, ``metrics.json`` for DVC, and a CSV for each plot."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mert_core.files import atomic_path
from mert_core.lineage.catalog import score_id
from mert_core.report.baselines import count_wins
from mert_core.report.board import ABSENT
from mert_core.report.load import Labels, ReportData, Training
from mert_core.report.titles import ordered, plain

ESTIMATE = ("value", "low", "high")
OWN_TERMS = ("feature_penalty", "accuracy")  # beside the loss and a term for each teacher
MOST_QUARANTINED_SHOWN = 20
FAILED = Markup('{} <strong title="failed">✗</strong>')


def metrics_of(data: ReportData) -> dict[str, Any]:
    """Return ``metrics.json``: ``probe`` by run, task and metric, ``pretrain`` by run and term, corpus and targets."""
    return {
        "probe": {
            item.run: {
                task: {
                    metric: {name: estimate[name] for name in ESTIMATE}
                    for metric, estimate in sorted(({score["metric"]: score} | score["metrics"]).items())
                }
                for task, score in sorted(item.tasks.items())
            }
            for item in data.scores
        },
        # Each term's last validation value, and the cross-entropy of guessing by frequency.
        "pretrain": {
            training.run: dict(
                sorted(
                    {
                        **{term: float(xy[1][-1]) for (split, term), xy in training.curve.items() if split == "valid"},
                        **{f"{name}_unigram": sum(nats) for name, nats in training.unigram.items()},
                    }.items()
                )
            )
            for training in data.trainings
        },
        "beats": count_wins(data),
        "targets": {
            labels.teacher: {
                "min_entropy_bits": float(labels.entropy_bits.min()),
                "min_usage": float(labels.used_share.min()),
            }
            for labels in data.labels
            if labels.usage.size
        },
        "corpus": {name: data.corpus.facts[name] for name in ("tracks", "seconds") if name in data.corpus.facts}
        | {"quarantined": len(data.quarantine)},
    }


def write_plots(data: ReportData, folder: Path) -> None:
    """Write ``<run>/{train,valid}.csv`` (step and terms), the ``.csv`` of scores, layers, robustness and usage."""
    tables: dict[str, list[dict[str, Any]]] = {
        f"{training.run}/{split}": _curve(training, split)
        for training in data.trainings
        for split in ("train", "valid")
    }
    tables["scores"] = [
        {"task": task, "encoder": item.run, "metric": metric}
        | {name: item.tasks[task]["metrics"][metric][name] for name in ESTIMATE}
        for task in data.tasks
        for item in data.scored
        for metric in ordered(task, item.tasks[task]["metrics"])
    ]
    tables["layers"] = [
        {"encoder": item.run, "task": task, "input": state, "validation": value}
        for item in data.scored
        for task in data.tasks
        for state, value in item.layers[task]
    ]
    tables["robustness"] = [
        {"encoder": item.run, "task": task, "deformation": deformation}
        | {name: point[name] for name in ("level", "label", *ESTIMATE)}
        for item in data.scored
        for task, deformations in item.robustness.items()
        for deformation, points in deformations.items()
        for point in points
    ]
    tables["usage"] = [
        {"teacher": labels.teacher, "codebook": index, "entropy_bits": float(bits), "used": float(used)}
        | {"top_share": float(shares.max())}
        for labels in data.labels
        for index, (bits, used, shares) in enumerate(
            zip(labels.entropy_bits, labels.used_share, labels.usage, strict=True)
        )
    ]
    for name, rows in tables.items():  # figures in Python's shortest exact form
        with (
            atomic_path(folder / f"{name}.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _curve(training: Training, split: str) -> list[dict[str, Any]]:
    """Return a row per step with the terms that have a value there."""
    columns: dict[str, dict[int, float]] = {}
    for term in ("loss", *training.teachers, *OWN_TERMS):
        if (split, term) in training.curve:
            steps, values = training.curve[split, term]
            columns[term] = dict(zip(steps.tolist(), values.tolist(), strict=True))
    if split == "valid":
        for name, nats in training.unigram.items():
            columns[f"{name}_unigram"] = dict.fromkeys(columns[name], sum(nats))
    steps_seen = sorted(set().union(*columns.values()))
    return [{"step": step} | {term: points.get(step, "") for term, points in columns.items()} for step in steps_seen]


@dataclass(frozen=True)
class Table:
    """A table of the page.

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


def number(value: object) -> object:
    """Return a value for a table: thousands grouped, at most four significant decimals; words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value


def training_table(data: ReportData) -> Table:
    """Return size, length and final validation of each run; a dash where a run has no such figure (yet)."""
    trainings = {training.run: training for training in data.trainings}
    unigram = sorted({name for training in data.trainings for name in training.unigram})
    kinds = {name: kind for training in data.trainings for name, kind in training.teachers.items()}
    facts = {
        "parameters": "encoder parameters",
        "steps": "optimiser steps",
        "audio_hours_seen": "hours of audio seen",
        "epochs": "passes over the music",
    }
    finals = {
        name: f"{name}, {'nats' if name in unigram else 'squared error'} ({kind})" for name, kind in kinds.items()
    } | {"accuracy": "share of codes guessed right"}
    columns: list[dict[str, Any]] = []
    for run in data.runs:
        column: dict[str, Any] = {}
        if training := trainings.get(run):
            column = {label: training.record.facts.get(name, ABSENT) for name, label in facts.items()}
            for term, label in finals.items():
                if ("valid", term) in training.curve:
                    column[f"final validation: {label}"] = float(training.curve["valid", term][1][-1])
            for name, nats in training.unigram.items():
                column[f"{name} guessed by frequency, nats"] = sum(nats)
        columns.append(column)
    rows = [*facts.values(), *(f"final validation: {label}" for label in finals.values())]
    rows += [f"{name} guessed by frequency, nats" for name in unigram]
    return Table(["", *data.runs], [[name, *(column.get(name, ABSENT) for column in columns)] for name in rows])


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


def corpus_table(data: ReportData) -> Table:
    """Return how much music there is, by split and in all."""
    rows = []
    for name, part in [*data.corpus.facts.get("splits", {}).items(), ("all", data.corpus.facts)]:
        hours = f"{part['seconds'] / 3600:.2f}" if "seconds" in part else ABSENT
        rows.append([name, part.get("tracks", ABSENT), hours, part.get("pieces", ABSENT), part.get("artists", ABSENT)])
    return Table(["split", "tracks", "hours", "pieces", "artists"], rows)


def reasons_table(data: ReportData) -> Table:
    """Return how many files were left out, by reason, the commonest first."""
    counts = Counter(row["reason"] for row in data.quarantine).most_common()
    return Table(["reason", "files"], [[plain(reason), count] for reason, count in counts])


def left_out_table(data: ReportData) -> Table:
    """Return the first files that were left out."""
    shown = data.quarantine[:MOST_QUARANTINED_SHOWN]
    more = len(data.quarantine) - len(shown)
    rows = [[row["path"], plain(row["reason"]), row["detail"]] for row in shown]
    caption = f"{more:,} more in quarantine.parquet." if more else ""
    return Table(["file", "reason", "detail"], rows, words=3, caption=caption)


def lineage_table(data: ReportData) -> Table:
    """Return what, of what and id of every record behind the report, and of each run's scores."""
    stored = [(labels.teacher, labels.record) for labels in data.labels if labels.record]
    probe_sets = {item.record.inputs["probe_set"] for item in data.scores if "probe_set" in item.record.inputs}
    rows = [
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
    code = Markup("<code>{}</code>")
    return Table(["what", "of", "id"], [[kind, name, code.format(identity)] for kind, name, identity in rows], words=3)
