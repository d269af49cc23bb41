"""Events that MLflow could not take, kept in the state folder and sent with the next run that reaches it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.files import write_text
from mert_core.paths import Layout
from mert_core.tracking.events import Event, apply

if TYPE_CHECKING:
    from mert_core.tracking.store import MlflowStore

FOLDER = "tracking-unsent"


class Outbox:
    """One run's unsent events: a JSON-lines file whose first line says which run they belong to.

    Args:
        layout: gives the state folder.
        name: run name, ``pretrain/tiny``.
        tags: tags to create the run with, when ``run_id`` is None.
        run_id: the MLflow run, if it was created before contact was lost.
        owner: whether this process is the one to end the run.
    """

    def __init__(self, layout: Layout, name: str, tags: dict[str, str], run_id: str | None, owner: bool = True) -> None:
        now = time.time_ns()
        self._cut = False
        self.path = layout.state / FOLDER / f"{name.replace('/', '@')}-{os.getpid()}-{now}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        about = {"name": name, "tags": tags, "run_id": run_id, "owner": owner}
        self.add({"kind": "run", **about, "pid": os.getpid(), "milliseconds": now // 10**6})

    def add(self, event: Event) -> None:
        """Append one event; it is on disk when this returns, or lost with a warning when the disk takes no more."""
        line = json.dumps(event, allow_nan=False) + "\n"
        try:
            # A line that a full disk cut short must not swallow this one, so each begins on its own.
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n" + line if self._cut else line)
            self._cut = False
        except OSError as error:
            if not self._cut:
                print(f"warning: {self.path} takes no more events ({error}); some are lost", file=sys.stderr)
            self._cut = True


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def deliver(path: Path, store: MlflowStore) -> str:
    """Send one file's events, remove the file and return the run's id. A run without an end is marked FAILED.

    Raises:
        Exception: one of ``store.tracking_errors()``; the file stays.
    """
    head, *events = _read(path)
    run_id = head["run_id"]
    if run_id is None:
        created = store.client.create_run(
            store.experiment_id, start_time=head["milliseconds"], tags=head["tags"], run_name=head["name"]
        )
        run_id = head["run_id"] = created.info.run_id
        # A second try after a failure below makes no second run.
        write_text(path, "".join(json.dumps(item) + "\n" for item in (head, *events)))
    for event in events:
        if event["kind"] == "artifact" and not Path(event["path"]).exists():
            continue  # the file was replaced since
        apply(store.client, run_id, event)
    if head["owner"] and (not events or events[-1]["kind"] != "end"):
        last_sign = int(path.stat().st_mtime * 1000)
        apply(store.client, run_id, {"kind": "end", "status": "FAILED", "milliseconds": last_sign})
    path.unlink()
    return str(run_id)


def deliver_all(layout: Layout, store: MlflowStore) -> int:
    """Send what earlier runs left, except those still running, and return how many files were sent."""
    sent = 0
    folder = layout.state / FOLDER
    if not folder.exists():
        return sent
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return sent  # another process is sending them
        for path in sorted(folder.glob("*.jsonl")):
            if not _read(path):
                path.unlink()  # the process died before the first line was whole
            elif not _still_written(path):
                deliver(path, store)
                sent += 1
    return sent


def _still_written(path: Path) -> bool:
    head, *events = _read(path)
    ended = bool(events) and events[-1]["kind"] == "end"
    return not ended and is_alive(head["pid"])


def _read(path: Path) -> list[dict[str, Any]]:
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the process died within this line, or the disk was full for a while; the others are whole
    return events
