"""Where everything lies: the only place that knows a path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PARAMS_NAME = "params.yaml"


@dataclass(frozen=True)
class Layout:
    """Folders of one working directory.

    What DVC tracks lies under ``data/`` and ``report/``; what is local, volatile and git-ignored (resume
    states, the MLflow store, the catalog, caches) lies under ``state``, which ``MERT_HOME`` can move.
    """

    root: Path

    @classmethod
    def at(cls, root: Path | str) -> Layout:
        """Return the layout of an absolute working directory."""
        return cls(Path(root).resolve())

    @property
    def state(self) -> Path:
        """Local state, never an output of a stage."""
        return Path(os.environ.get("MERT_HOME", self.root / ".mert")).resolve()

    @property
    def params(self) -> Path:
        """What a user changes."""
        return self.root / PARAMS_NAME

    @property
    def data(self) -> Path:
        """Outputs of the stages before the report."""
        return self.root / "data"

    def copy_of(self, folder: Path, url: str) -> str:
        """Return where a folder of ``data`` has its copy on an object store: below ``url`` all lies as in ``data``."""
        return f"{url.rstrip('/')}/{folder.relative_to(self.data).as_posix()}"

    @property
    def corpus(self) -> Path:
        """Music to pre-train on: PCM shards, manifest, quarantine, data card."""
        return self.data / "corpus"

    @property
    def probe_set(self) -> Path:
        """Labelled music to probe on."""
        return self.data / "probe_set"

    def teacher(self, name: str) -> Path:
        """Return a fitted teacher."""
        return self.data / "teachers" / name

    def targets(self, teacher: str) -> Path:
        """Return a teacher's targets for the whole corpus, aligned to the frame grid, and the label gate's table."""
        return self.data / "targets" / teacher

    def model(self, run: str) -> Path:
        """Return the pre-trained model of a named run."""
        return self.data / "pretrain" / run

    def scores(self, run: str) -> Path:
        """Return the probe scores of a named run."""
        return self.data / "probe" / run

    @property
    def probed_top(self) -> Path:
        """Scores of tasks that were probed outside the pipeline, by model and task."""
        return self.data / "probed"

    def probed(self, name: str, task: str) -> Path:
        """Return the scores of one model at one such task."""
        return self.probed_top / name / task

    @property
    def report(self) -> Path:
        """Tables, figures and ``report.html``."""
        return self.root / "report"

    @property
    def metrics(self) -> Path:
        """DVC's metrics file."""
        return self.root / "metrics.json"

    @property
    def caches(self) -> Path:
        """Recomputable intermediate results, keyed by content."""
        return self.state / "cache"

    @property
    def resume(self) -> Path:
        """Resume states of unfinished runs."""
        return self.state / "resume"

    @property
    def cards(self) -> Path:
        """Cards of checkpoints made here, by record id; what they cost differs from time to time, so no output."""
        return self.state / "cards"

    @property
    def last_runs(self) -> Path:
        """One small JSON file per stage: the MLflow run that its last execution wrote."""
        return self.state / "last-runs"
