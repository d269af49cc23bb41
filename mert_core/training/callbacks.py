"""Who watches a run: the tracker and a progress bar here, or a journal file that another process follows."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from mert_core.tracking import Tracker


logger = logging.getLogger(__name__)


class Observer(Protocol):
    """What the loop tells the world."""

    def begin(self, workers: int, device: str) -> None:
        """Before the first update of these processes: how many workers there are, and the name of their device."""

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """After every update."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """At every logged point."""

    def note(self, text: str) -> None:
        """Say something a person should read."""


class BarObserver:
    """Sends metrics to the tracker and draws a bar: steps, loss, audio-hours per second, time left.

    Args:
        tracker: the run's.
        name: of the run, beside the bar.
        max_steps: the bar's end.
    """

    def __init__(self, tracker: Tracker, name: str, max_steps: int) -> None:
        from tqdm import tqdm

        self._tracker = tracker
        interval = 0.5 if sys.stderr.isatty() else 10.0  # a log file needs no twenty lines a second
        self._bar = tqdm(
            total=max_steps, desc=f"pretrain {name}", unit="step", mininterval=interval, dynamic_ncols=True
        )
        self._running = False  # whether an update was made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def begin(self, workers: int, device: str) -> None:
        """Say on what is trained, above the bar and as a tag, which may change when a run goes on elsewhere."""
        self.note(f"training on {workers} × {device}")
        self._tracker.tags({"hardware.training": f"{workers} × {device}"})
        self._running = False

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """Move the bar; rate and time left are those of the updates after the first one of these processes."""
        self._bar.set_postfix({"loss": f"{loss:.3f}", "audio_h/s": f"{audio_hours_per_second:.4f}"}, refresh=False)
        if self._running:
            self._bar.update(step - self._bar.n)
            return
        # What was before is no time of updates: starting Ray, reading a resume state, compiling.
        self._running = True
        self._bar.initial = self._bar.n = self._bar.last_print_n = step
        self._bar.unpause()
        self._bar.refresh()

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Pass to the tracker."""
        self._tracker.metrics(values, step)

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._bar.write(text, file=sys.stderr)


class SilentObserver:
    """Watches nothing."""

    def begin(self, workers: int, device: str) -> None:
        """Do nothing."""

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """Do nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class JournalObserver:
    """Appends every event as a line of JSON, for ``follow`` in the process that has the tracker and the terminal."""

    def __init__(self, path: Path, seconds_between: float = 0.5) -> None:
        self._path = path
        self._between, self._last = seconds_between, 0.0
        self._cut = path.exists() and path.read_bytes()[-1:] not in {b"", b"\n"}  # by the death of a worker before

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("\n" + line if self._cut else line)
            self._cut = False
        except OSError as error:  # a full disk costs figures, not the training
            if not self._cut:
                logger.warning("%s takes no more events (%s); some are lost", self._path, error)
            self._cut = True

    def begin(self, workers: int, device: str) -> None:
        """Write both."""
        self._write({"kind": "begin", "workers": workers, "device": device})

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """Write, but not more often than a person looks."""
        if time.monotonic() - self._last >= self._between:
            self._last = time.monotonic()
            self._write(
                {"kind": "progress", "step": step, "loss": loss, "audio_hours_per_second": audio_hours_per_second}
            )

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Write all values."""
        self._write({"kind": "metrics", "values": values, "step": step})

    def note(self, text: str) -> None:
        """Write the text."""
        self._write({"kind": "note", "text": text})


def follow(path: Path, observer: Observer, finished: threading.Event) -> None:
    """Pass a journal's events on, as they come, until ``finished`` is set and all have been read."""
    path.touch()
    with path.open(encoding="utf-8") as stream:
        pending = ""
        while True:
            last = finished.is_set()
            pending += stream.read()
            *lines, pending = pending.split("\n")
            for line in lines:
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    continue  # cut short by a full disk or the writer's death
                kind = event.pop("kind")
                getattr(observer, kind)(**event)
            if last:
                return
            finished.wait(0.3)
