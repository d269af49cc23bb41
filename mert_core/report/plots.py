"""CSV files for `dvc plots`: the same figures, comparable between revisions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mert_core.files import atomic_path
from mert_core.report.collect import Material, Training
from mert_core.report.figures_targets import entropy_bits, used_share
from mert_core.report.words import ordered

OWN_TERMS = ("feature_penalty", "accuracy")  # beside the loss and a term for each teacher


def write_plots(material: Material, folder: Path) -> None:
    """Write ``<run>/{train,valid}.csv`` (step and terms), the ``.csv`` of scores, layers, robustness and usage."""
    for training in material.trainings:
        for split in ("train", "valid"):
            write_csv(folder / training.run / f"{split}.csv", _curve(training, split))
    write_csv(folder / "scores.csv", _scores(material))
    write_csv(folder / "layers.csv", _layers(material))
    write_csv(folder / "robustness.csv", _robustness(material))
    write_csv(folder / "usage.csv", _usage(material))


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


def _scores(material: Material) -> list[dict[str, Any]]:
    return [
        {"task": task, "encoder": item.run, "metric": metric}
        | {name: item.tasks[task]["metrics"][metric][name] for name in ("value", "low", "high")}
        for task in material.tasks
        for item in material.scores
        for metric in ordered(task, item.tasks[task]["metrics"])
    ]


def _layers(material: Material) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "input": heard, "validation": value}
        for item in material.scores
        for task in material.tasks
        for heard, value in item.layers[task]
    ]


def _robustness(material: Material) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "deformation": deformation}
        | {name: point[name] for name in ("level", "label", "value", "low", "high")}
        for item in material.scores
        for task, deformations in item.robustness.items()
        for deformation, points in deformations.items()
        for point in points
    ]


def _usage(material: Material) -> list[dict[str, Any]]:
    return [
        {
            "teacher": labels.teacher,
            "codebook": index,
            "entropy_bits": float(bits),
            "used": float(share),
            "top_share": float(top),
        }
        for labels in material.labels
        if labels.usage is not None
        for index, (bits, share, top) in enumerate(
            zip(entropy_bits(labels.usage), used_share(labels.usage), labels.usage.max(axis=1), strict=True)
        )
    ]
