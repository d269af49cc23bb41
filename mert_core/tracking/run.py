"""One MLflow run around one stage: ended on every way out, and never a reason for a stage to stop."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

from mert_core.files import write_json, write_text
from mert_core.paths import Layout
from mert_core.tracking.labels import changes, flatten, record_ids, run_name, run_tags, stage_facts
from mert_core.tracking.mlflow_store import connect, plain_name, tracking_errors
from mert_core.tracking.outbox import FOLDER, Outbox, reason, send_left_behind

if TYPE_CHECKING:
    from mert_core.config import Config

PARENT_VARIABLE = "MERT_PARENT_RUN_ID"
_PARENT_TAG = "mlflow.parentRunId"
_MUSIC = ("corpus", "probe_set")
_log = logging.getLogger(__name__)


class Tracker:
    """A run that records what was seen: all that stages know of tracking. This one records nothing.

    Calls return at once and never raise because a server is away: a stage's outputs do not depend on tracking.
    """

    run_id: str | None = None
    """The MLflow run; None when nothing is recorded there."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name, at an optimizer step if there is one. Names may hold ``/``."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record what was chosen. Nested mappings become dotted names; a parameter cannot change within a run."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels to find the run by."""

    def artifact(self, path: Path, name: str = "") -> None:
        """Keep a copy of a file or folder as it is now, called ``name`` among the artifacts (its own unless given)."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep a table as ``NAME.json``, which MLflow's page shows; its columns are the keys of the first row."""

    def child(self, name: str, tags: Mapping[str, Any]) -> AbstractContextManager[Tracker]:
        """Open a run below this one, such as one task's below its model's; it fails if the block raises."""
        return nullcontext(self)


class NullTracker(Tracker):
    """Records nothing: for tests and for callers that want none."""


class RunTracker(Tracker):
    """A `Tracker` bound to one run, whose events go into an outbox; safe to call from several threads."""

    def __init__(self, outbox: Outbox) -> None:
        self.run_id = outbox.run_id
        self._outbox = outbox
        self._tables: list[dict[str, str]] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures."""
        now = time.time_ns() // 10**6
        figures = {plain_name(name): float(value) for name, value in values.items()}
        # JSON has no numbers that are not finite: they travel as text.
        points = [[name, x if math.isfinite(x) else str(x), now, step or 0] for name, x in figures.items()]
        self._outbox.add({"kind": "metrics", "points": points})

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        # One spelling for equal values: MLflow refuses "(1, 2)" where "[1, 2]" was said before.
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(values).items()}
        self._outbox.add({"kind": "params", "values": {key: str(value) for key, value in plain.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels."""
        self._outbox.add({"kind": "tags", "values": {key: str(value) for key, value in values.items()}})

    def artifact(self, path: Path, name: str = "") -> None:
        """Keep a copy."""
        self._outbox.add_file(path, name or path.name)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep a table."""
        if not rows:
            return
        columns = list(rows[0])
        content = {"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]}
        with TemporaryDirectory() as folder:
            write_text(Path(folder) / f"{name}.json", json.dumps(content))
            self.artifact(Path(folder) / f"{name}.json")
        self._tables.append({"path": f"{name}.json", "type": "table"})
        self.tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def music(self, folders: Mapping[str, Path]) -> None:
        """Record the manifest of every music folder among ``folders`` (role to path) as a data set of the run.

        A folder that is not there yet is left out: the stage itself says what is missing.
        """
        for role, record in record_ids({role: folders[role] for role in _MUSIC if role in folders}).items():
            if (folders[role] / "manifest.parquet").exists():
                self._outbox.add({"kind": "music", "role": role, "path": str(folders[role]), "record": record})

    def open_child(self, name: str, tags: Mapping[str, Any]) -> RunTracker:
        """Open a run below this one, to be closed by the caller; without MLflow it is created later."""
        box = self._outbox
        labels = box.tags | {key: str(value) for key, value in tags.items()}
        if self.run_id is not None:
            labels[_PARENT_TAG] = self.run_id
        run_id = None
        if box.store is not None:
            try:
                run_id = box.store.create_run(name, labels)
            except tracking_errors() as error:
                _log.warning("MLflow is away (%s); %s is kept and sent later", reason(error), name)
        return RunTracker(Outbox(box.path.parent, name, labels, box.store, run_id))

    @contextmanager
    def child(self, name: str, tags: Mapping[str, Any]) -> Iterator[RunTracker]:
        """Open a run below this one for the time of the block."""
        below = self.open_child(name, tags)
        status = "FAILED"
        try:
            yield below
            status = "FINISHED"
        finally:
            below.close(status)

    def flush(self) -> None:
        """Send what waits, now."""
        self._outbox.send()

    def close(self, status: str) -> None:
        """Send the rest and end the run with a status (FINISHED, FAILED, KILLED)."""
        self._outbox.close(status)


@contextmanager
def open_run(
    config: Config,
    layout: Layout,
    stage: str,
    run: str | None = None,
    parent_run_id: str | None = None,
    resume_run_id: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[RunTracker]:
    """Open the MLflow run of one stage.

    The run ends as FINISHED, as FAILED when the block raises, or as KILLED on Ctrl-C, SIGTERM or ``sys.exit``. When
    MLflow cannot be reached a warning says so, and what is tracked is kept under ``tracking-unsent`` of the state
    folder. The next run that reaches MLflow sends it, as it does with what a process that was killed outright left;
    such a run ends as FAILED.

    Args:
        config: all parameters; the stage's own are logged.
        layout: folders of the working directory.
        stage: command name, such as ``pretrain``.
        run: named run, such as ``tiny``.
        parent_run_id: MLflow run to nest under; without it, the variable ``MERT_PARENT_RUN_ID``.
        resume_run_id: MLflow run to go on with, instead of a new one.
        tags: further tags.

    Raises:
        MertError: ``tracking.uri`` is of no known kind.
    """
    facts, changed = stage_facts(config, layout, stage, run), changes(config, layout, stage, run)
    name = run_name(stage, run, changed)
    labels = run_tags(config, layout, stage, run, facts, changed)
    labels |= {key: str(value) for key, value in (tags or {}).items()}
    if parent := parent_run_id or os.environ.get(PARENT_VARIABLE):
        labels[_PARENT_TAG] = parent

    unsent = layout.state / FOLDER
    store, run_id = None, resume_run_id
    try:
        store = connect(config, layout)
        if sent := send_left_behind(unsent, store):
            _log.warning("tracking: sent %d run(s) kept while MLflow was away or left by a killed process", sent)
        if run_id is None:
            run_id = store.create_run(name, labels)
        else:
            store.client.update_run(run_id, status="RUNNING")
            store.send(run_id, [{"kind": "tags", "values": labels}])
    except tracking_errors() as error:
        store = None
        _log.warning(
            "MLflow cannot be reached (%s).\n"
            "  The stage goes on; what it tracks is kept in %s until a run reaches MLflow.",
            reason(error),
            unsent,
        )
    note = layout.last_runs / (f"{stage}@{run}.json" if run else f"{stage}.json")
    if store is not None:
        write_json(note, {"mlflow_run_id": run_id, "mlflow_uri": store.uri, "experiment_id": store.experiment_id})
    else:
        note.unlink(missing_ok=True)  # it would name the run before this one

    tracker = RunTracker(Outbox(unsent, name, labels, store, run_id))
    tracker.params(facts.params)
    tracker.music(facts.inputs)
    status = "FAILED"
    try:
        with _sigterm_as_exit():
            yield tracker
        status = "FINISHED"
        if facts.output is not None:
            made = record_ids({"record": facts.output})
            tracker.tags({f"output.{role}": identity for role, identity in made.items()})
            tracker.music({stage.replace("-", "_"): facts.output})
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except SystemExit as leaving:
        status = "FINISHED" if leaving.code in {None, 0} else "KILLED"
        raise
    finally:
        tracker.close(status)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM (a cancelled flow, a cluster's notice) unwind the stack: the run is ended, files are cleaned."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
