"""Artifacts of a Prefect run: the link to its MLflow run, and the scores."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_table_artifact

from mert_core.experiments.rendered import command_of
from mert_core.paths import Layout
from mert_core.services.up import HOST, MLFLOW_PAGE, MLFLOW_PORT


def note_path(layout: Layout, stage: str) -> Path:
    """Return the note that a stage's last MLflow run left, by the stage's DVC name."""
    command, name = command_of(stage)
    return layout.last_runs / f"{command}{f'@{name}' if name else ''}.json"


def run_address(note: dict[str, Any]) -> str:
    """Return the page of an MLflow run: at its own server, or at the one that ``mert up`` starts."""
    uri = str(note.get("mlflow_uri") or "")
    page = (
        uri if uri.startswith(("http://", "https://")) else os.environ.get(MLFLOW_PAGE, f"http://{HOST}:{MLFLOW_PORT}")
    )
    return f"{page.rstrip('/')}/#/experiments/{note['experiment_id']}/runs/{note['mlflow_run_id']}"


def link_mlflow_run(layout: Layout, stage: str, *, since: float, experiment: bool = False) -> str | None:
    """Attach a link to a stage's MLflow run to the current Prefect run.

    Args:
        layout: folders of the checkout.
        stage: DVC name of the stage.
        since: when the stage was started, in seconds since the epoch. An older note is of an earlier execution.
        experiment: the stage ran with changed parameters: then an earlier execution is another run and is not linked.

    Returns:
        The address, or None where there is nothing to link.
    """
    logger = get_run_logger()
    path = note_path(layout, stage)
    if not path.exists():
        logger.info("%s has left no note of an MLflow run here; nothing to link", stage)
        return None
    fresh = path.stat().st_mtime >= since
    if experiment and not fresh:
        logger.info("the result of %s came from DVC's run cache; there is no new MLflow run to link", stage)
        return None
    address = run_address(json.loads(path.read_text(encoding="utf-8")))
    text = f"MLflow run of {stage}" + ("" if fresh else " (unchanged: its last execution)")
    key = re.sub(r"[^a-z0-9]+", "-", f"mlflow-{stage.lower()}").strip("-")  # letters, digits and dashes alone
    create_link_artifact(address, link_text=text, key=key, description=text)
    logger.info("%s: %s", text, address)
    return address


def show_scores(layout: Layout) -> None:
    """Attach the scores of ``metrics.json`` to the current Prefect run as a table."""
    if not layout.metrics.exists():
        return
    probe = json.loads(layout.metrics.read_text(encoding="utf-8")).get("probe", {})
    figures = ("value", "low", "high")
    rows = [
        {"run": run, "task": task, "metric": metric} | {key: round(float(score[key]), 4) for key in figures}
        for run, tasks in sorted(probe.items())
        for task, metrics in sorted(tasks.items())
        for metric, score in sorted(metrics.items())
    ]
    if rows:
        create_table_artifact(rows, key="scores", description="Probe scores on the test split, with 95 % intervals")
