"""Who watches a run: the tracker and a progress bar here, or a queue that leads to another process."""

from __future__ import annotations

import queue
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from mert_core.tracking import Tracker


class Observer:
    """Hears what the loop tells the world."""

    def begin(self, workers: int, device: str) -> None:
        """Before the first update of these processes: how many workers there are, and the name of their device."""

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """After every update."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """At every logged point."""

    def note(self, text: str) -> None:
        """Say something a person should read."""


class SilentObserver(Observer):
    """Does nothing with it."""


class BarObserver(Observer):
    """Sends metrics to the tracker and draws a bar: steps, loss, audio-hours per second, time left."""

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

    def __exit__(self, *raised: Any) -> None:
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


Event = tuple[str, Any]
"""The name of one of an observer's methods, and its arguments."""


class QueueObserver(Observer):
    """Puts every event into a queue, for the process that has the tracker and the terminal.

    Those that only tell the progress are ``seconds_between`` apart at least: not more often than a person looks.
    """

    def __init__(self, events: queue.SimpleQueue[Event | None], seconds_between: float = 0.5) -> None:
        self._events = events
        self._between, self._last = seconds_between, 0.0

    def begin(self, workers: int, device: str) -> None:
        """Pass both on."""
        self._events.put(("begin", (workers, device)))

    def progress(self, step: int, loss: float, audio_hours_per_second: float) -> None:
        """Pass on what is due."""
        if time.monotonic() - self._last >= self._between:
            self._last = time.monotonic()
            self._events.put(("progress", (step, loss, audio_hours_per_second)))

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Pass all values on."""
        self._events.put(("metrics", (values, step)))

    def note(self, text: str) -> None:
        """Pass the text on."""
        self._events.put(("note", (text,)))
