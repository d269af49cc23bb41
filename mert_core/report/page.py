"""``report.html``: one file with everything in it, for a browser without a network or a phone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mert_core.lineage.catalog import score_id
from mert_core.probing.tasks import FLOORS
from mert_core.report.baselines import verdicts
from mert_core.report.board import Board, fourteen, stand_ins
from mert_core.report.board_html import board_section
from mert_core.report.figures.draw import Picture
from mert_core.report.figures.style import plain
from mert_core.report.html import document, figure, number, section, table, text
from mert_core.report.load import Labels, ReportData

MOST_QUARANTINED_SHOWN = 20


EARLY = ("scores", "layers", "robustness")
"""Beginnings of the names of the figures that stand with the scores."""


def render(material: ReportData, pictures: list[Picture]) -> str:
    """Return the whole page. It holds no date, host or path of this machine, so equal inputs give equal bytes."""
    early = [figure(picture) for picture in pictures if picture.path.stem.startswith(EARLY)]
    late = [figure(picture) for picture in pictures if not picture.path.stem.startswith(EARLY)]
    boards = [stand_ins(material.scores)] if material.stand_ins else []
    boards.append(fourteen(material.scores))
    *tables, last = map(board_section, boards)
    body = "".join(
        [
            _head(material, boards),
            *tables,
            *early,
            last,
            _training(material),
            *late,
            _gate(material),
            _corpus(material),
            _quarantine(material),
            _lineage(material),
        ]
    )
    return document(f"MERT report · {', '.join(training.run for training in material.trainings)}", body)


def _head(material: ReportData, boards: list[Board]) -> str:
    facts = material.corpus.facts
    hours = f"{facts['seconds'] / 3600:.2f} hours of music" if "seconds" in facts else "music"
    runs = ", ".join(training.run for training in material.trainings)
    items = [f"<li><strong>{text(item.run)}</strong> {text(item.sentence)}</li>" for item in verdicts(material)]
    warning = "".join(
        f'<p class="warning">Not comparable: {text(run)} was probed by another protocol or on other music at '
        f"{text(', '.join(tasks))}. Run <code>dvc repro</code>.</p>"
        for board in boards
        for run, tasks in board.unlike.items()
    )
    return (
        f"<header><h1>What the model has learned</h1><p class='lead'>Run {text(runs)}, pre-trained on {hours}; frozen, "
        "then probed beside two floors, interval against interval: a floor is beaten on a task when the run’s whole "
        "95 % interval lies above the floor’s.</p>"
        f'<ul class="verdicts">{"".join(items)}</ul>{warning}</header>'
    )


def _training(material: ReportData) -> str:
    names = {
        "parameters": "encoder parameters",
        "steps": "optimiser steps",
        "audio_hours_seen": "hours of audio seen",
        "epochs": "passes over the music",
    }
    header = ["", *(training.run for training in material.trainings)]
    rows = [
        [text(label), *(number(training.record.facts.get(name, "–")) for training in material.trainings)]
        for name, label in names.items()
    ]
    unigram = {name for training in material.trainings for name in training.unigram}
    kinds = {name: kind for training in material.trainings for name, kind in training.teachers.items()}
    finals = {
        name: f"{name}, {'nats' if name in unigram else 'squared error'} ({kind})" for name, kind in kinds.items()
    }
    for term, label in {**finals, "accuracy": "share of codes guessed right"}.items():
        curves = [training.curve.get(("valid", term)) for training in material.trainings]
        last = [number(float(curve[1][-1])) if curve else "–" for curve in curves]
        rows.append([f"final validation: {text(label)}", *last])
    for name in sorted(unigram):
        costs = [training.unigram.get(name) for training in material.trainings]
        reference = [number(sum(nats)) if nats else "–" for nats in costs]
        rows.append([f"{text(name)} guessed by frequency, nats", *reference])
    return section("Pre-training", table(header, rows, numeric=range(1, len(header))))


def _gate(material: ReportData) -> str:
    checks = [row for labels in material.labels for row in labels.gate]
    failed = sum(not row["passed"] for row in checks)
    note = f"{len(checks)} checks on the targets before training, {failed} failed. In brackets: what is allowed."
    parts = [f"<p class='caption'>{note}</p>"]
    for labels in material.labels:
        if not labels.gate:
            continue
        parts.append(f"<h3>{text(labels.teacher)}</h3>{''.join(_checks(labels))}")
    return section("Label gate", *parts)


def _checks(labels: Labels) -> list[str]:
    """Return one teacher's checks: those of the codebooks as one table, a line each, then the others."""
    columns: list[str] = []
    books: dict[str, dict[str, str]] = {}
    others = []
    for row in labels.gate:
        allowed = row["limit"].replace(">=", "≥").replace("<=", "≤")
        cell = number(row["value"]) + ("" if row["passed"] else ' <strong title="failed">✗</strong>')
        if not row["where"].startswith("codebook"):
            others.append([text(row["check"]), text(row["where"]), text(allowed), cell])
            continue
        name = "top share" if row["check"].startswith("share of entry") else row["check"]
        column = f"{name} ({allowed})"
        if column not in columns:
            columns.append(column)
        books.setdefault(row["where"], {})[column] = cell
    rows = [[text(where), *(cells.get(column, "–") for column in columns)] for where, cells in books.items()]
    content = [table(["", *columns], rows, numeric=range(1, len(columns) + 1))] if rows else []
    if others:
        content.append(table(["check", "of", "allowed", "value"], others, numeric=[3]))
    return content


def _corpus(material: ReportData) -> str:
    facts = material.corpus.facts
    splits: Mapping[str, Mapping[str, Any]] = facts.get("splits", {})
    parts = [*splits.items(), ("all", facts)]
    rows = [
        [
            text(name),
            number(part.get("tracks", "–")),
            f"{part['seconds'] / 3600:.2f}" if "seconds" in part else "–",
            number(part.get("pieces", "–")),
            number(part.get("artists", "–")),
        ]
        for name, part in parts
    ]
    content = [table(["split", "tracks", "hours", "pieces", "artists"], rows, numeric=range(1, 5))]
    if rates := facts.get("source_rates"):
        listed = ", ".join(f"{int(rate):,} Hz ({count:,})" for rate, count in rates.items())
        content.append(f"<p class='caption'>Sample rates of the sources: {text(listed)}.</p>")
    if licences := facts.get("licences"):
        content.append(f"<p class='caption'>Licence: {text(', '.join(licences))}.</p>")
    return section("Corpus", *content)


def _quarantine(material: ReportData) -> str:
    left_out = material.quarantine
    if not left_out:
        return section("Left out", "<p>Nothing: every file could be used.</p>")
    counts = Counter(row["reason"] for row in left_out).most_common()
    counted = [[text(plain(reason)), number(count)] for reason, count in counts]
    summary = table(["reason", "files"], counted, numeric=[1])
    shown = left_out[:MOST_QUARANTINED_SHOWN]
    rows = [[text(row["path"]), text(plain(row["reason"])), text(row["detail"])] for row in shown]
    more = len(left_out) - len(shown)
    note = f"{more:,} more in quarantine.parquet." if more else ""
    files = f"<details><summary>Which files</summary>{table(['file', 'reason', 'detail'], rows, note)}</details>"
    return section("Left out", summary, files)


def _lineage(material: ReportData) -> str:
    rows = [["corpus", "", material.corpus.id]]
    stored = [(labels.teacher, labels.record) for labels in material.labels if labels.record]
    rows += [["teacher", teacher, record.inputs["teacher"]] for teacher, record in stored]
    rows += [["targets", teacher, record.id] for teacher, record in stored]
    rows += [["checkpoint", training.run, training.record.id] for training in material.trainings]
    probe_sets = {item.record.inputs["probe_set"] for item in material.scores if "probe_set" in item.record.inputs}
    rows += [["probe set", "", identity] for identity in sorted(probe_sets)]
    rows += [["floor" if item.run in FLOORS else "scores", item.run, item.record.id] for item in material.scores]
    rows += [
        ["score", f"{item.run}/{task}", score_id(item.record.id, task)]
        for item in material.scores
        if not item.is_floor
        for task in material.tasks
    ]
    cells = [[text(kind), text(name), f"<code>{identity}</code>"] for kind, name, identity in rows]
    note = "SHA-256 of each stage’s record. “mert lineage” with the beginning of one, or RUN/TASK, prints its origin."
    return section("Lineage", table(["what", "of", "id"], cells, note))
