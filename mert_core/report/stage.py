"""The stage ``report``: tables, figures, ``report.html`` and ``metrics.json``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.data.record import Record, write_record
from mert_core.files import atomic_folder, atomic_path, write_json, write_text
from mert_core.report.baselines import beaten, verdicts
from mert_core.report.figures.draw import draw_all
from mert_core.report.figures.targets import entropy_bits, used_share
from mert_core.report.load import ReportData, Training, collect
from mert_core.report.page import render
from mert_core.report.titles import ordered

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking import Tracker


def metrics_of(material: ReportData) -> dict[str, Any]:
    """Return ``probe`` by run, task and metric, ``pretrain`` by run and term, and figures of corpus and targets."""
    probe = {
        item.run: {
            task: {
                metric: {name: found[name] for name in ("value", "low", "high")}
                for metric, found in sorted(({score["metric"]: score} | score["metrics"]).items())
            }
            for task, score in sorted(item.tasks.items())
        }
        for item in material.scores
    }
    return {
        "probe": probe,
        "pretrain": {training.run: _final(training) for training in material.trainings},
        "beats": beaten(material),
        "targets": {
            labels.teacher: {
                "min_entropy_bits": float(entropy_bits(labels.usage).min()),
                "min_usage": float(used_share(labels.usage).min()),
            }
            for labels in material.labels
            if labels.usage is not None
        },
        "corpus": {name: material.corpus.facts[name] for name in ("tracks", "seconds") if name in material.corpus.facts}
        | {"quarantined": len(material.quarantine)},
    }


def _final(training: Training) -> dict[str, float]:
    """Return each term's last validation value, and what guessing by frequency would cost."""
    final = {term: float(values[-1]) for (split, term), (_, values) in training.curve.items() if split == "valid"}
    final |= {f"{name}_unigram": sum(nats) for name, nats in training.unigram.items()}
    return dict(sorted(final.items()))


OWN_TERMS = ("feature_penalty", "accuracy")  # beside the loss and a term for each teacher


def write_plots(material: ReportData, folder: Path) -> None:
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


def _scores(material: ReportData) -> list[dict[str, Any]]:
    return [
        {"task": task, "encoder": item.run, "metric": metric}
        | {name: item.tasks[task]["metrics"][metric][name] for name in ("value", "low", "high")}
        for task in material.tasks
        for item in material.scores
        for metric in ordered(task, item.tasks[task]["metrics"])
    ]


def _layers(material: ReportData) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "input": heard, "validation": value}
        for item in material.scores
        for task in material.tasks
        for heard, value in item.layers[task]
    ]


def _robustness(material: ReportData) -> list[dict[str, Any]]:
    return [
        {"encoder": item.run, "task": task, "deformation": deformation}
        | {name: point[name] for name in ("level", "label", "value", "low", "high")}
        for item in material.scores
        for task, deformations in item.robustness.items()
        for deformation, points in deformations.items()
        for point in points
    ]


def _usage(material: ReportData) -> list[dict[str, Any]]:
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


PAGE_NAME = "report.html"
FIGURES_NAME = "figures"
PLOTS_NAME = "plots"


def run(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Write the report folder and ``metrics.json`` from what the other stages left.

    Raises:
        MertError: an output of another stage is missing or unreadable.
    """
    material = collect(config, layout)
    metrics = metrics_of(material)
    with atomic_folder(layout.report) as folder:
        (folder / FIGURES_NAME).mkdir()
        pictures = draw_all(material, config.report.example_seconds, folder / FIGURES_NAME)
        write_plots(material, folder / PLOTS_NAME)
        write_text(folder / PAGE_NAME, render(material, pictures))
        record = write_record(
            folder,
            stage="report",
            kind="report",
            inputs=_inputs(material),
            params={"report": config.report.model_dump(mode="json")},
            facts={"beats": metrics["beats"]},
        )
    write_json(layout.metrics, metrics)
    _track(material, layout, tracker)
    return record


def _inputs(material: ReportData) -> dict[str, str]:
    inputs = {"corpus": material.corpus.id, **_targets(material)}
    inputs |= {f"checkpoint/{training.run}": training.record.id for training in material.trainings}
    return inputs | {f"scores/{item.run}": item.record.id for item in material.scores}


def _targets(material: ReportData) -> dict[str, str]:
    return {f"targets/{labels.teacher}": labels.record.id for labels in material.labels if labels.record}


def _track(material: ReportData, layout: Layout, tracker: Tracker) -> None:
    for item in material.scores:
        for task in material.tasks:
            score = item.tasks[task]
            tracker.metrics({f"{item.run}/{task}/{name}": score[name] for name in ("value", "low", "high")})
    for verdict in verdicts(material):
        print(f"{verdict.run} {verdict.sentence} (interval against interval)")
    for run, floors in beaten(material).items():
        tracker.metrics({f"{run}/tasks_above/{floor}": float(count) for floor, count in floors.items()})
    tracker.artifact(layout.report / PAGE_NAME)
    tracker.artifact(layout.report / FIGURES_NAME)
