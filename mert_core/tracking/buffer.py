"""The tracker that stages hold: gathers points, sends them in batches, and falls back to the outbox."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mert_core.paths import Layout
from mert_core.tracking.events import Event, apply, point
from mert_core.tracking.outbox import Outbox, deliver
from mert_core.tracking.stages import flatten
from mert_core.tracking.store import MlflowStore, tracking_errors

FLUSH_POINTS = 500  # one call per point costs 22–60 ms, one call for 1,000 points 160 ms
FLUSH_SECONDS = 10.0


class RunTracker:
    """A ``Tracker`` bound to one run; safe to call from several threads.

    Args:
        layout: gives the state folder for what cannot be sent.
        name: the run's name.
        run_tags: the run's tags, needed to create it later when it does not exist yet.
        store: a reachable MLflow, or None.
        run_id: the MLflow run, or None when it does not exist yet.
        owner: whether this tracker ends the run.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        run_tags: dict[str, str],
        store: MlflowStore | None,
        run_id: str | None,
        owner: bool = True,
    ) -> None:
        self.store = store
        self._owner = owner
        self._layout, self._name, self._run_tags, self._run_id = layout, name, run_tags, run_id
        self._points: list[list[Any]] = []
        self._flushed_at = time.monotonic()
        self._outbox: Outbox | None = None
        self._lock = threading.RLock()

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; None while MLflow has not been reached."""
        return self._run_id

    @property
    def uri(self) -> str | None:
        """The MLflow address; None while it has not been reached."""
        return self.store.uri if self.store else None

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Buffer figures; they are sent every 500 points or 10 seconds, and at the end."""
        now = time.time_ns() // 10**6
        with self._lock:
            self._points.extend(point(name, value, now, step) for name, value in values.items())
            if len(self._points) >= FLUSH_POINTS or time.monotonic() - self._flushed_at > FLUSH_SECONDS:
                self.flush()

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters; nested mappings become dotted names. A parameter cannot change within a run."""
        # One spelling for equal values: MLflow refuses "(1, 2)" where "[1, 2]" was said before.
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(values).items()}
        self._send({"kind": "params", "values": {key: str(value) for key, value in plain.items()}})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels."""
        self._send({"kind": "tags", "values": {key: str(value) for key, value in values.items()}})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or folder."""
        self._send({"kind": "artifact", "path": str(path.resolve()), "folder": folder})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep a table as ``<name>.json``; columns are the keys of the first row."""
        if rows:
            columns = {key: [row.get(key) for row in rows] for key in rows[0]}
            self._send({"kind": "table", "name": name, "columns": columns})

    @contextmanager
    def child(self, name: str, tags: Mapping[str, Any]) -> Iterator[RunTracker]:
        """Open a run below this one, for a part of the stage; ended with the block, as FAILED when it raises.

        Without MLflow it is kept in the state folder like this one, and later stands by itself.
        """
        labels = self._run_tags | {key: str(value) for key, value in tags.items()}
        store, run_id = (self.store, None) if self._run_id and self._outbox is None else (None, None)
        if store is not None:
            labels["mlflow.parentRunId"] = str(self._run_id)
            try:
                run_id = store.client.create_run(store.experiment_id, tags=labels, run_name=name).info.run_id
            except tracking_errors() as error:
                self.lost(error)
                store = None
        below = RunTracker(self._layout, name, labels, store, run_id)
        status = "FAILED"
        try:
            yield below
            status = "FINISHED"
        finally:
            below.close(status)

    def flush(self) -> None:
        """Send what is buffered."""
        with self._lock:
            points, self._points = self._points, []
            self._flushed_at = time.monotonic()
            if points:
                self._send({"kind": "metrics", "points": points})

    def close(self, status: str) -> None:
        """Send the rest and, as the run's owner, end it with a status (FINISHED, FAILED, KILLED)."""
        with self._lock:
            self.flush()
            if self._owner:
                self._send({"kind": "end", "status": status, "milliseconds": time.time_ns() // 10**6})
            if self._outbox is not None and self.store is not None:
                self._deliver_own(self.store)

    def _send(self, event: Event) -> None:
        with self._lock:
            if self.store is not None and self._run_id is not None and self._outbox is None:
                try:
                    apply(self.store.client, self._run_id, event)
                    return
                except tracking_errors() as error:
                    if _is_refused(error):
                        what = f"the {event['kind']} of {self._name}"
                        print(f"warning: MLflow refused {what}: {_first_line(error)}", file=sys.stderr)
                        return
                    self.lost(error)
            self._kept().add(event)

    def _kept(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox(self._layout, self._name, self._run_tags, self._run_id, self._owner)
        return self._outbox

    def _deliver_own(self, store: MlflowStore) -> None:
        """MLflow was lost on the way: try once more, now that the run is over."""
        path = self._kept().path
        try:
            deliver(path, store)
        except tracking_errors() as error:
            print(f"warning: MLflow is still away ({_first_line(error)}); kept {path}", file=sys.stderr)

    def lost(self, error: Exception) -> None:
        """Say that MLflow is away and keep everything from here on."""
        print(
            f"warning: MLflow at {self.uri} was lost ({type(error).__name__}: {_first_line(error)}).\n"
            f"  The stage goes on; what follows is kept in {self._kept().path} and sent later.",
            file=sys.stderr,
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _is_refused(error: Exception) -> bool:
    """Return whether MLflow was there and found the value wrong: sending it again would not help.

    BAD_REQUEST is not among the codes: MLflow's database store also gives it to a broken database.
    """
    return getattr(error, "error_code", None) in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}
