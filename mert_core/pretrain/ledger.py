"""What a run costs: speed, waiting, memory, utilisation, GPU-hours; since the last logged point and in total."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mert_core.pretrain.flops import peak_flops
from mert_core.pretrain.place import Place

_GIB = 2**30


@dataclass
class Totals:
    """Sums over a run, part of every resume state; work that a kill destroyed is not in them.

    Attributes:
        updates: made or skipped, those that a rollback undid included.
        clips: of all workers.
        masked_frames: of all workers.
        busy_seconds: spent in updates, waiting for data included; validation and resume states are not.
        waited_seconds: of those, spent waiting for data, by the leading worker.
        held_seconds: from the loop's begin to its end: what a machine is paid for, but for start-up.
        peak_memory_bytes: of the fullest worker, on its device; on a CPU the whole process.
    """

    updates: int = 0
    clips: int = 0
    masked_frames: float = 0.0
    busy_seconds: float = 0.0
    waited_seconds: float = 0.0
    held_seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Devices:
    """What a run computes on.

    Attributes:
        name: of one device.
        gpus: how many, over all workers; 0 on CPUs.
        peak_flops: of one GPU, dense bf16, per second; None when it is not known.
    """

    name: str = "CPU"
    gpus: int = 0
    peak_flops: float | None = None

    @classmethod
    def of(cls, place: Place) -> Devices:
        """Return those of a run whose workers are all like this one."""
        if place.device.type != "cuda":
            return cls()
        name = torch.cuda.get_device_name(place.device)
        return cls(name, place.world, peak_flops(name))


class Ledger:
    """Counts updates as they are made; every worker keeps one.

    Args:
        totals: what earlier processes of this run have spent.
        place: of this worker.
        clip_seconds: length of a clip.
        clip_flops: gives the FLOPs of forward and backward for one clip with so many masked frames.
        devices: that the run computes on; by default those found at the place.
    """

    def __init__(
        self,
        totals: Totals,
        place: Place,
        clip_seconds: float,
        clip_flops: Callable[[float], float],
        devices: Devices | None = None,
    ) -> None:
        self.totals = totals
        self._place, self._clip_seconds, self._clip_flops = place, clip_seconds, clip_flops
        self._window = Totals()
        self._devices = Devices.of(place) if devices is None else devices
        self._mark = self._held_mark = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start = time.perf_counter()
        yield
        for sums in (self.totals, self._window):
            sums.waited_seconds += time.perf_counter() - start

    def count(self, clips: int, masked_frames: float) -> None:
        """Count one update of all workers."""
        now = time.perf_counter()
        for sums in (self.totals, self._window):
            sums.busy_seconds += now - self._mark
            sums.updates += 1
            sums.clips += clips
            sums.masked_frames += masked_frames
        self._mark = now
        self._hold(now)

    def restart(self) -> None:
        """Leave out the time since the last update: it went into validation or a resume state."""
        self._mark = time.perf_counter()
        self._hold(self._mark)

    def _hold(self, now: float) -> None:
        self.totals.held_seconds += now - self._held_mark
        self._held_mark = now

    @property
    def audio_hours_per_second(self) -> float:
        """Speed since the last logged point."""
        window = self._window
        return window.clips * self._clip_seconds / 3600 / window.busy_seconds if window.busy_seconds else 0.0

    def read(self) -> dict[str, float]:
        """Return the figures since the last reading and begin anew. All workers must call this together."""
        self.totals.peak_memory_bytes = max(
            self.totals.peak_memory_bytes, int(self._place.maximum(_peak_memory_bytes(self._place)))
        )
        figures = self._rates(self._window)
        self._window = Totals()
        costs = {"cost/peak_memory_gib": self.totals.peak_memory_bytes / _GIB}
        if self._devices.gpus:
            costs["cost/gpu_hours"] = self._gpu_hours
        return {f"speed/{name}": value for name, value in figures.items()} | costs

    @property
    def _gpu_hours(self) -> float:
        return self.totals.held_seconds * self._devices.gpus / 3600

    def _rates(self, sums: Totals) -> dict[str, float]:
        busy = max(sums.busy_seconds, 1e-9)
        rates = {
            "steps_per_second": sums.updates / busy,
            "audio_hours_per_second": sums.clips * self._clip_seconds / 3600 / busy,
            "data_wait_share": sums.waited_seconds / busy,
        }
        if self._devices.peak_flops is not None and sums.clips:
            flops = self._clip_flops(sums.masked_frames / sums.clips) * sums.clips
            rates["mfu"] = flops / busy / (self._devices.peak_flops * self._devices.gpus)
        return rates

    def card(self) -> dict[str, Any]:
        """Return the whole run's figures, for the tracker and the checkpoint's card; call ``read`` before."""
        totals = self.totals
        per_clip = self._clip_flops(totals.masked_frames / totals.clips) if totals.clips else 0.0
        return {
            "device": self._devices.name,
            "workers": self._place.world,
            "updates": totals.updates,
            "audio_hours": totals.clips * self._clip_seconds / 3600,
            **self._rates(totals),
            "peak_memory_gib": totals.peak_memory_bytes / _GIB,
            "gpu_hours": self._gpu_hours,
            "wall_hours": totals.held_seconds / 3600,
            "gflop_per_clip": per_clip / 1e9,
            "total_pflop": per_clip * totals.clips / 1e15,
        }


def _peak_memory_bytes(place: Place) -> float:
    if place.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(place.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
