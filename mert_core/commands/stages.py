"""The stages as commands: each opens its MLflow run, and the catalog takes in its record."""

from __future__ import annotations

import argparse
import importlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mert_core.commands.context import context
from mert_core.errors import MertError
from mert_core.parallel import set_threads
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.data.record import Record
    from mert_core.tracking import Tracker

logger = logging.getLogger(__name__)


STAGES: dict[str, tuple[str, bool]] = {
    "corpus": ("music → PCM shards and manifest", False),
    "probe-set": ("labelled excerpts and single notes to probe on", False),
    "pretrain": ("train a named run", True),
    "report": ("tables, figures, report.html and metrics.json", False),
}
"""Stages whose command has no other options than a run's name: what they make, and whether they take one."""

# Imported when they run: each brings libraries that the others do not need.
_FUNCTIONS = {
    "corpus": "mert_core.corpus.stage:run",
    "probe-set": "mert_core.corpus.stage:run_probe_set",
    "teachers": "mert_core.teachers.stage:run",
    "targets": "mert_core.targets.stage:run",
    "pretrain": "mert_core.training.stage:run",
    "probe": "mert_core.probing.stage:run",
    "report": "mert_core.report.stage:run",
}


def _downloaded(config: Config, layout: Layout, name: str) -> Config:
    """Fetch a teacher's published weights and return parameters that name the file."""
    from mert_core.teachers.codec.encodec import download
    from mert_core.teachers.registry import configured_teacher

    if configured_teacher(config, name).needs != "weights":
        raise MertError(f"--download: {name} has no published weights to fetch; say `mert teachers fit {name}`")
    file = download(layout.caches / "weights")
    settings = {**(config.teachers.get(name) or {}), "checkpoint": str(file)}
    return config.model_copy(update={"teachers": {**config.teachers, name: settings}})


def _track_figures(config: Config, layout: Layout, tracker: Tracker, run: str) -> None:
    """Show in the run itself how it went; only the report, which lies above training, can draw it.

    The model is written by then, so pictures that cannot be drawn are a warning.
    """
    from mert_core.report.figures.draw import draw_training
    from mert_core.report.load import read_training

    try:
        with TemporaryDirectory() as folder:
            draw_training(read_training(layout, run), config.report.example_seconds, Path(folder))
            tracker.artifact(Path(folder), "figures")
    except (MertError, OSError, ValueError) as error:
        logger.warning("the figures of %s are not tracked: %s", run, error)


def run_stage(options: argparse.Namespace) -> int:
    """Run the stage that ``options.command`` names."""
    config, layout = context(options)
    name, run = options.command, getattr(options, "run", None)
    resume_run_id = None
    if getattr(options, "download", False):
        config = _downloaded(config, layout, run or "")
    set_threads(config.threads)
    from mert_core.lineage.catalog import record_stage
    from mert_core.tracking import open_run

    if name in {"teachers", "targets", "pretrain"}:
        from mert_core.teachers.registry import check_teachers, configured_teacher

        check_teachers(config)
        if name == "pretrain":
            config.run(run or "")  # an unknown one must not open a run in MLflow
        else:
            configured_teacher(config, run or "")
    if name == "pretrain":
        from mert_core.training.stage import resumable_run_id

        resume_run_id = resumable_run_id(config, layout, options.run)
    with open_run(config, layout, name, run, resume_run_id=resume_run_id) as tracker:
        module, _, function = _FUNCTIONS[name].partition(":")
        work = getattr(importlib.import_module(module), function)
        record: Record = work(config, layout, tracker, *([run] if run else []))
        if name == "pretrain":
            _track_figures(config, layout, tracker, options.run)
    record_stage(config, layout)
    print(f"{name}{f' {run}' if run else ''}: {record.kind} {record.id[:12]}")
    return 0


def probe_tasks(options: argparse.Namespace) -> int:
    """Probe a run as the stage does, or ask any tasks of any encoder."""
    if options.run and not options.tasks:
        for flag in ("data", "name"):
            if getattr(options, flag):
                raise MertError(f"--{flag} goes with --{'task' if flag == 'data' else 'model'}")
        return run_stage(options)
    from mert_core.probing.stage import Request

    config, layout = context(options)
    request = Request.of(config, layout, options.run, options.model, options.name, options.tasks, options.data)
    set_threads(config.threads)
    from mert_core.lineage.catalog import record_stage
    from mert_core.probing.stage import probe
    from mert_core.tracking import open_run

    with open_run(config, layout, "probe", request.subject.name) as tracker:
        text = probe(config, layout, tracker, request)
    record_stage(config, layout)
    print(text)
    return 0
