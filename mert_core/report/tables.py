"""The figures behind the report as files: ``metrics.json`` for DVC, and one CSV for each plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mert_core.files import atomic_path
from mert_core.report.baselines import count_wins
from mert_core.report.load import ReportData, Training
from mert_core.report.titles import ordered


def metrics_of(data: ReportData) -> dict[str, Any]:
    """Return ``metrics.json``: ``probe`` by run, task and metric, ``pretrain`` by run and term, corpus and targets."""
    probe = {
        item.run: {
            task: {
                metric: {name: estimate[name] for name in ("value", "low", "high")}
                for metric, estimate in sorted(({score["metric"]: score} | score["metrics"]).items())
            }
            for task, score in sorted(item.tasks.items())
        }
        for item in data.scores
    }
    return {
        "probe": probe,
        "pretrain": {training.run: _final(training) for training in data.trainings},
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


def _final(training: Training) -> dict[str, float]:
    """Return each term's last validation value, and the cross-entropy of guessing by frequency."""
    final = {term: float(values[-1]) for (split, term), (_, values) in training.curve.items() if split == "valid"}
    final |= {f"{name}_unigram": sum(nats) for name, nats in training.unigram.items()}
    return dict(sorted(final.items()))


OWN_TERMS = ("feature_penalty", "accuracy")  # beside the loss and a term for each teacher


def write_plots(data: ReportData, folder: Path) -> None:
    """Write ``<run>/{train,valid}.csv`` (step and terms), the ``.csv`` of scores, layers, robustness and usage."""
    for training in data.trainings:
        for split in ("train", "valid"):
            write_csv(folder / training.run / f"{split}.csv", _curve(training, split))
    write_csv(folder / "scores.csv", _scores(data))
    write_csv(folder / "layers.csv", _layers(data))
    write_csv(folder / "robustness.csv", _robustness(data))
    write_csv(folder / "usage.csv", _usage(data))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of equal keys with a header; figures in Python's shortest exact form."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _curve(training: Training, split: str) -> list[dict[str, Any]]:
    columns: dict[str, dict[int, float]] = {}
    for term in ("loss", *training.teachers, *OWN_TERMS):
        if (split, term) in training.curve:
            steps, values = training.curve[split, term]
            columns[term] = dict(zip(steps.tolist(), values.tolist(), strict=True))
    if split == "valid":
        for name, nats in training.unigram.items():
            columns[f"{name}_unigram"] = dict.fromkeys(columns[name], sum(nats))
    steps_seen = sorted(set().union(*columns.values())) if columns else []
    return [{"step": step} | {term: points.get(step, "") for term, points in columns.items()} for step in steps_seen]


def _scores(data: ReportData) -> list[dict[str, Any]]:
    return [
        {"task": task, "encoder": item.run, "metric": metric}
        | {name: item.tasks[task]["metrics"][metric][name] for name in ("value", "low", "high")}
        for task in data.tasks
        for item in data.scored
        for metric in ordered(task, item.tasks[task]["metrics"])
    ]


def _layers(data: ReportData) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "input": state, "validation": value}
        for item in data.scored
        for task in data.tasks
        for state, value in item.layers[task]
    ]


def _robustness(data: ReportData) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "deformation": deformation}
        | {name: point[name] for name in ("level", "label", "value", "low", "high")}
        for item in data.scored
        for task, deformations in item.robustness.items()
        for deformation, points in deformations.items()
        for point in points
    ]


def _usage(data: ReportData) -> list[dict[str, Any]]:
    return [
        {
            "teacher": labels.teacher,
            "codebook": index,
            "entropy_bits": float(bits),
            "used": float(share),
            "top_share": float(top),
        }
        for labels in data.labels
        if labels.usage.size
        for index, (bits, share, top) in enumerate(
            zip(labels.entropy_bits, labels.used_share, labels.usage.max(axis=1), strict=True)
        )
    ]
