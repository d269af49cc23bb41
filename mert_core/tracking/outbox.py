"""A run's events on their way to MLflow: written to a file first, sent in the background, sent again where that failed.

Why not MLflow's own queue (``log_batch(synchronous=False)``)? It keeps its promise only while the server answers. A
batch that fails is logged as an error and dropped (``AsyncLoggingQueue.logging_func``, MLflow 3.17), what waits in it
dies with the process, and ten threads send in any order. Here nothing tracked is lost: the file is written before the
call returns, a thread sends what is new every ten seconds, and a file whose process ended before all was sent is sent
by the next run that reaches MLflow.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from mert_core.files import write_text
from mert_core.tracking.mlflow_store import REFUSED, UNKNOWN_RUN, tracking_errors

if TYPE_CHECKING:
    from mert_core.tracking.mlflow_store import Event, MlflowStore

FOLDER = "tracking-unsent"
SEND_EVENTS = 500
SEND_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Outbox:
    """One run's events: a file of JSON lines, whose first line says which run they belong to, and who sends them.

    The file is locked while its process lives, whatever its machine: so another process knows what was left behind.

    Args:
        folder: where the file lies; see `FOLDER`.
        name: the run's name.
        tags: the run's; it is created with them later when ``run_id`` is None.
        store: a reachable MLflow; without one the events wait for another run.
        run_id: the MLflow run; None where it could not be created.
    """

    def __init__(
        self, folder: Path, name: str, tags: dict[str, str], store: MlflowStore | None, run_id: str | None
    ) -> None:
        now = time.time_ns()
        self.name, self.tags, self.store, self.run_id = name, tags, store, run_id
        self._waiting: list[Event] = []
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._disk_full = self._away = False

        file_name = re.sub(r"[^\w.=-]+", "@", name)
        self.path = folder / f"{file_name}-{os.getpid()}-{now}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        unlocked = self.path.with_suffix(".new")  # nobody takes it for one that was left behind
        self._file = unlocked.open("ab", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        uri = store.uri if store else None
        self._write({"name": name, "tags": tags, "uri": uri, "run_id": run_id, "milliseconds": now // 10**6})
        unlocked.rename(self.path)

        self._wake, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._send_in_background, name=f"tracking {name}", daemon=True)
        if store is not None and run_id is not None:
            self._thread.start()

    def add(self, event: Event) -> None:
        """Take an event; it is on disk when this returns, or only in memory, with a warning, where the disk is full."""
        with self._lock:
            self._write(event)
            self._waiting.append(event)
            if len(self._waiting) >= SEND_EVENTS and not self._away:
                self._wake.set()

    def add_file(self, path: Path, name: str) -> None:
        """Take a copy of a file or folder, to be called ``name`` among the run's artifacts."""
        try:
            copies = self.path.with_suffix(".files")
            copies.mkdir(exist_ok=True)
            copy = Path(mkdtemp(dir=copies)) / Path(name).name
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copy2(path, copy)
        except OSError as error:
            _log.warning("%s is not kept among the files of %s: %s", path, self.name, error)
            return
        folder = name if path.is_dir() else str(Path(name).parent) if "/" in name else ""
        self.add({"kind": "artifact", "path": str(copy), "folder": folder})

    def _write(self, event: Event) -> None:
        # A line that a full disk cut short must not swallow this one, so each begins on its own.
        line = (("\n" if self._disk_full else "") + json.dumps(event, allow_nan=False) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk_full = False
        except OSError as error:
            if not self._disk_full:
                _log.warning("%s takes no more events (%s); those not sent by the end are lost", self.path, error)
            self._disk_full = True

    def _send_in_background(self) -> None:
        while not self._closing:
            self._wake.wait(SEND_SECONDS)
            self._wake.clear()
            self.send()

    def send(self) -> bool:
        """Send what waits, now. Return whether nothing waits any more."""
        if self.store is None or self.run_id is None:
            return False
        with self._sending:
            with self._lock:
                events = list(self._waiting)
            try:
                _send_each_kind(self.store, self.run_id, self.name, events)
            except tracking_errors() as error:
                if not self._away:
                    _log.warning(
                        "MLflow at %s was lost (%s).\n  The stage goes on; what follows is kept in %s and sent later.",
                        self.store.uri,
                        reason(error),
                        self.path,
                    )
                self._away = True
                return False
            self._away = False
            with self._lock:
                del self._waiting[: len(events)]
                return not self._waiting

    def close(self, status: str) -> None:
        """End the run, send the rest and remove the file; it stays for another run where MLflow is away."""
        self.add({"kind": "end", "status": status, "milliseconds": time.time_ns() // 10**6})
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        sent = self.send()
        if sent:
            _remove(self.path)
        elif self.store is not None:
            _log.warning("MLflow is still away; kept %s", self.path)
        self._file.close()


def _send_each_kind(store: MlflowStore, run_id: str, name: str, events: list[Event]) -> None:
    """Send events; those that MLflow refuses for good are named in a warning and left out."""
    try:
        store.send(run_id, events)
    except tracking_errors() as error:
        code = getattr(error, "error_code", None)
        if code not in REFUSED:
            raise
        if len(events) == 1 or code == UNKNOWN_RUN:
            kinds = ", ".join(sorted({event["kind"] for event in events}))
            _log.warning("MLflow refused the %s of %s: %s", kinds, name, reason(error))
            return
        for event in events:  # which of them it was is not said
            _send_each_kind(store, run_id, name, [event])


def send_left_behind(folder: Path, store: MlflowStore) -> int:
    """Send what processes that are gone left in a folder; return how many runs that were."""
    sent = 0
    for path in sorted(folder.glob("*.jsonl")):
        # A file that is locked or gone: its process lives, or another sends it.
        with suppress(BlockingIOError, FileNotFoundError), path.open("r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sent += _send_file(path, store)
    return sent


def _send_file(path: Path, store: MlflowStore) -> bool:
    """Send one file's events and remove it, unless its run is at another MLflow; one without an end ends as FAILED."""
    lines = read_events(path)
    if lines:  # else the process died before the first line was whole
        head, *events = lines
        if head["run_id"] is not None and head["uri"] != store.uri:
            return False
        if head["run_id"] is None:
            head |= {"uri": store.uri, "run_id": store.create_run(head["name"], head["tags"], head["milliseconds"])}
            # A second try after a failure below makes no second run.
            write_text(path, "".join(json.dumps(item) + "\n" for item in lines))
        if not events or events[-1]["kind"] != "end":
            last_sign = int(path.stat().st_mtime * 1000)
            events.append({"kind": "tags", "values": {"mert.ended": "its process was killed"}})
            events.append({"kind": "end", "status": "FAILED", "milliseconds": last_sign})
        _send_each_kind(store, head["run_id"], head["name"], events)
    _remove(path)
    return True


def _remove(path: Path) -> None:
    path.unlink()
    shutil.rmtree(path.with_suffix(".files"), ignore_errors=True)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; one within which the process died, or the disk was full, is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def reason(error: Exception) -> str:
    """Return an error's kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
