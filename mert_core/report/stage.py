"""The stage ``report``: tables, figures, ``report.html`` and ``metrics.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mert_core.files import atomic_folder, write_json, write_text
from mert_core.records import Record, write_record
from mert_core.report.collect import Material, collect
from mert_core.report.figures import draw_all
from mert_core.report.judge import beaten, verdicts
from mert_core.report.metrics import metrics_of
from mert_core.report.page import render
from mert_core.report.plots import write_plots

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking.protocol import Tracker

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


def _inputs(material: Material) -> dict[str, str]:
    inputs = {"corpus": material.corpus.id, **_targets(material)}
    inputs |= {f"checkpoint/{training.run}": training.record.id for training in material.trainings}
    return inputs | {f"scores/{item.run}": item.record.id for item in material.scores}


def _targets(material: Material) -> dict[str, str]:
    return {f"targets/{labels.teacher}": labels.record.id for labels in material.labels if labels.record}


def _track(material: Material, layout: Layout, tracker: Tracker) -> None:
    for item in material.scores:
        for task in material.tasks:
            score = item.tasks[task]
            tracker.metrics({f"{item.run}/{task}/{name}": score[name] for name in ("value", "low", "high")})
    for verdict in verdicts(material):
        print(f"{verdict.run} {verdict.sentence} (interval against interval)")
    for run, floors in beaten(material).items():
        tracker.metrics({f"{run}/tasks_above/{floor}": float(count) for floor, count in floors.items()})
    tracker.artifact(layout.report / PAGE_NAME)
    tracker.artifact(layout.report / FIGURES_NAME, FIGURES_NAME)
