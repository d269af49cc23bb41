"""What the loop says reaches tracker and terminal, through a queue, too; and the bar counts updates alone."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from mert_core.tracking.run import NullTracker
from mert_core.training.callbacks import BarObserver, QueueObserver
from tests.training.music import train


def test_a_queue_tells_another_process_everything() -> None:
    seen: dict[int, dict[str, float]] = {}
    tags: dict[str, Any] = {}

    class Recorder(NullTracker):
        def metrics(self, values: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
            seen.setdefault(step or 0, {}).update(values)

        def tags(self, values: dict[str, Any]) -> None:  # type: ignore[override]
            tags.update(values)

    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    train(observer=QueueObserver(events, seconds_between=0), log_every=1)
    with BarObserver(Recorder(), "test", 6) as observer:
        while not events.empty():
            name, arguments = events.get()
            getattr(observer, name)(*arguments)
    assert set(seen) == set(range(1, 7))
    names = {"train/loss", "train/gradient_norm", "train/learning_rate", "speed/steps_per_second"}
    assert names | {"speed/data_wait_share"} <= set(seen[1]) and "valid/loss" in seen[6]
    assert tags == {"hardware.training": "1 × CPU"}


def test_the_bar_begins_with_the_first_update_of_these_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    with BarObserver(NullTracker(), "test", 1000) as observer:
        bar, now = observer._bar, [100.0]
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = 0.0  # a hundred seconds pass until the first update
        for start in (40, 20):  # and again, when workers were replaced and go on from an earlier state
            observer.begin(1, "CPU")
            now[0] += 100
            for step in range(start, start + 11):
                observer.progress(step, 1.0, 0.0)
                now[0] += 0.5
            shown = bar.format_dict
            assert (shown["n"], shown["initial"]) == (start + 10, start)
            assert (shown["n"] - shown["initial"]) / shown["elapsed"] == pytest.approx(2.0, rel=0.1)
            assert shown["rate"] is None or shown["rate"] == pytest.approx(2.0, rel=0.1)
