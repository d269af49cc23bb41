"""One MLflow run around one stage: buffered, ended on every way out, and never a reason for a stage to stop."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mert_core.files import write_json
from mert_core.paths import Layout
from mert_core.tracking.buffer import RunTracker
from mert_core.tracking.dataset import log_music
from mert_core.tracking.outbox import FOLDER, deliver_all, is_alive
from mert_core.tracking.stages import StageFacts, record_ids, stage_facts
from mert_core.tracking.store import MlflowStore, connect, quiet_environment, tracking_errors
from mert_core.tracking.tags import run_tags

if TYPE_CHECKING:
    from mert_core.config import Config

PARENT_VARIABLE = "MERT_PARENT_RUN_ID"


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

    The run ends as FINISHED, as FAILED when the block raises, or as KILLED on Ctrl-C, SIGTERM or ``sys.exit``. A run
    whose process was killed outright is ended as FAILED by the next run of the same stage on this machine. When
    MLflow cannot be reached a warning says so, what is tracked is kept under ``tracking-unsent`` of the state
    folder, and the next run that reaches MLflow sends it.

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
    facts = stage_facts(config, layout, stage, run)
    name = f"{stage}/{run}" if run else stage
    last = layout.last_runs / (f"{stage}@{run}.json" if run else f"{stage}.json")
    labels = run_tags(layout, stage, run, config.seed, facts)
    labels |= {key: str(value) for key, value in (tags or {}).items()}
    if parent := parent_run_id or os.environ.get(PARENT_VARIABLE):
        labels["mlflow.parentRunId"] = parent
    labels["mert.pid"] = str(os.getpid())

    store, run_id = _begin(config, layout, name, labels, last, resume_run_id)
    tracker = RunTracker(layout, name, labels, store, run_id)
    if store is not None:
        write_json(last, {"mlflow_run_id": run_id, "mlflow_uri": store.uri, "experiment_id": store.experiment_id})
        tracker.params(facts.params)
        log_music(tracker, facts.inputs)
    else:
        last.unlink(missing_ok=True)  # it would name the run before this one
        tracker.params(facts.params)

    status = "FAILED"
    try:
        with _sigterm_as_exit():
            yield tracker
        status = "FINISHED"
        _describe_output(tracker, stage, facts)
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except SystemExit as leaving:
        status = "FINISHED" if leaving.code in {None, 0} else "KILLED"
        raise
    finally:
        tracker.close(status)


@contextmanager
def attach_run(layout: Layout, uri: str | None, run_id: str | None, name: str = "worker") -> Iterator[RunTracker]:
    """Write to a run that another process opened and will end, for instance from rank 0 of a training group.

    Points are flushed when the block ends. Without a ``run_id`` (MLflow was away) they are kept in the state folder.
    """
    store = None
    if uri and run_id:
        quiet_environment()
        from mlflow.tracking import MlflowClient

        store = MlflowStore(uri, MlflowClient(tracking_uri=uri), "")
    tracker = RunTracker(layout, name, {}, store, run_id, owner=False)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        tracker.close(status)


def _begin(
    config: Config, layout: Layout, name: str, tags: dict[str, str], last: Path, resume_run_id: str | None
) -> tuple[MlflowStore | None, str | None]:
    """Reach MLflow and return the store and the run's id, or two None with a warning."""
    try:
        store = connect(config, layout)
        _end_vanished(store, last)
        if sent := deliver_all(layout, store):
            print(f"tracking: sent {sent} run(s) kept while MLflow was away", file=sys.stderr)
        if resume_run_id is None:
            return store, store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id
        store.client.update_run(resume_run_id, status="RUNNING")
        for key, value in tags.items():
            store.client.set_tag(resume_run_id, key, value)
        return store, resume_run_id
    except tracking_errors() as error:
        reason = str(error).splitlines()[0][:300]
        print(
            f"warning: MLflow cannot be reached ({type(error).__name__}: {reason}).\n"
            f"  The stage goes on; what it tracks is kept in {layout.state / FOLDER} until a run reaches MLflow.",
            file=sys.stderr,
        )
        return None, resume_run_id


def _end_vanished(store: MlflowStore, last: Path) -> None:
    """End the stage's last run as FAILED if it still counts as running though its process is gone."""
    if not last.exists():
        return
    noted = json.loads(last.read_text(encoding="utf-8"))
    if noted.get("mlflow_uri") != store.uri or not noted.get("mlflow_run_id"):
        return
    from mlflow.exceptions import MlflowException

    try:
        earlier = store.client.get_run(noted["mlflow_run_id"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return  # the database was removed since
    tags = earlier.data.tags
    here = tags.get("hardware.host") == platform.node()
    if earlier.info.status == "RUNNING" and here and not is_alive(int(tags.get("mert.pid", os.getpid()))):
        store.client.set_tag(earlier.info.run_id, "mert.ended", "its process was killed")
        store.client.set_terminated(earlier.info.run_id, status="FAILED")


def _describe_output(tracker: RunTracker, stage: str, facts: StageFacts) -> None:
    """Say which record the stage wrote; for the corpus also log its manifest as the run's data set."""
    if facts.output is None:
        return
    tracker.tags({f"output.{role}": identity for role, identity in record_ids({"record": facts.output}).items()})
    if stage in {"corpus", "probe-set", "probe_set"}:
        log_music(tracker, {stage.replace("-", "_"): facts.output})


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
