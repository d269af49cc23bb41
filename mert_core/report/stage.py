"""The stage ``report``: figures, tables, ``report.html`` and ``metrics.json``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mert_core.data.record import Record, write_record
from mert_core.files import atomic_folder, write_json, write_text
from mert_core.report.baselines import standings
from mert_core.report.figures.draw import draw_all
from mert_core.report.load import load_report
from mert_core.report.pages import report_page
from mert_core.report.tables import ESTIMATE, metrics_of, write_plots

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.tracking import Tracker

PAGE_NAME = "report.html"
FIGURES_NAME = "figures"
PLOTS_NAME = "plots"

logger = logging.getLogger(__name__)


def run(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Write the report folder and ``metrics.json`` from what the other stages left.

    Raises:
        MertError: an output of another stage is missing or unreadable.
    """
    data = load_report(config, layout)
    for name, reason in data.pending.items():
        logger.warning("%s is %s; the report says so in place of its scores", name, reason)
    metrics = metrics_of(data)
    with atomic_folder(layout.report) as folder:
        (folder / FIGURES_NAME).mkdir()
        pictures = draw_all(data, config.report.example_seconds, folder / FIGURES_NAME)
        write_plots(data, folder / PLOTS_NAME)
        write_text(folder / PAGE_NAME, report_page(data, pictures))
        record = write_record(
            folder,
            stage="report",
            kind="report",
            inputs={
                "corpus": data.corpus.id,
                **{f"targets/{labels.teacher}": labels.record.id for labels in data.labels if labels.record},
                **{f"checkpoint/{training.run}": training.record.id for training in data.trainings},
                **{f"scores/{item.run}": item.record.id for item in data.scores},
            },
            params={"report": config.report.model_dump(mode="json")},
            facts={"beats": metrics["beats"]},
        )
    write_json(layout.metrics, metrics)
    for standing in standings(data):
        logger.info("%s %s (interval against interval)", standing.run, standing.sentence)

    for item in data.scored:
        for task in data.tasks:
            tracker.metrics({f"{item.run}/{task}/{name}": item.tasks[task][name] for name in ESTIMATE})
    for run, counts in metrics["beats"].items():
        tracker.metrics({f"{run}/tasks_above/{baseline}": float(count) for baseline, count in counts.items()})
    tracker.artifact(layout.report / PAGE_NAME)
    tracker.artifact(layout.report / FIGURES_NAME)
    return record
