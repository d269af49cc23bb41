"""What a run costs: speed, waiting, memory, utilisation, GPU-hours; since the last logged point and in total."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mert_core.features.cqt import CQT_BINS
from mert_core.model.config import MertConfig
from mert_core.training.worker import Worker

# Dense bf16 peak in FLOP/s, from NVIDIA's data sheets (their figures with sparsity are twice these). The first entry
# whose name is part of `torch.cuda.get_device_name()` counts, so longer names stand before shorter ones.
PEAK_BF16 = {
    "GB200": 2.5e15,
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H20": 148e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364.2e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def peak_flops(device_name: str) -> float | None:
    """Return a card's dense bf16 peak in FLOP/s, or None for one that is not in the table."""
    return next((peak for name, peak in PEAK_BF16.items() if name in device_name), None)


def convolution_flops(config: MertConfig, samples: int) -> list[int]:
    """Return the forward FLOPs of each layer of the convolution stack for one clip of ``samples``."""
    flops, inputs = [], 1
    for channels, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
        flops.append(2 * samples * channels * inputs * kernel)
        inputs = channels
    return flops


def encoder_flops(config: MertConfig, frames: int) -> int:
    """Return the forward FLOPs of projection, position convolution and encoder layers for one clip of ``frames``."""
    width, inner = config.hidden_size, config.intermediate_size
    projection = 2 * frames * config.feature_size * width
    # The even kernel's last output, which is computed and dropped, is not counted.
    position = 2 * frames * config.num_conv_pos_embeddings * width * width // config.num_conv_pos_embedding_groups
    linears = 2 * frames * width * (4 * width + 2 * inner)
    attention = 2 * 2 * frames * frames * width  # scores and mixed values, over all heads
    return projection + position + config.num_hidden_layers * (linears + attention)


def heads_flops(config: MertConfig, masked_frames: float, codes: Sequence[tuple[int, int]], bins: int) -> float:
    """Return the forward FLOPs of the heads, which see masked frames only: projections, similarities, spectra."""
    projected = sum(codebooks for codebooks, _ in codes) * config.final_dim + bins
    compared = sum(codebooks * entries for codebooks, entries in codes) * config.final_dim
    return 2 * masked_frames * (config.hidden_size * projected + compared)


def training_flops(
    config: MertConfig,
    samples: int,
    masked_frames: float,
    codes: Sequence[tuple[int, int]] = ((8, 1024),),
    bins: int = CQT_BINS,
) -> float:
    """Return the FLOPs of forward and backward for one clip of ``samples``.

    Multiplications and additions of matrix products and convolutions count, and nothing else: no activations, norms,
    CQT target or recomputation. The backward pass is twice the forward, but for the first convolution, whose input
    needs no gradient. With 58.3 % of the frames masked, 5 s cost 329 GFLOP for mert-95m and 852 GFLOP for mert-330m.

    Args:
        config: the student's shape.
        samples: samples of one clip.
        masked_frames: masked frames of one clip, on average.
        codes: codebooks and entries of each teacher of codes.
        bins: bins of all teachers of spectra together.
    """
    stack = convolution_flops(config, samples)
    encoder = encoder_flops(config, config.frames(samples))
    return 3 * (sum(stack) + encoder + heads_flops(config, masked_frames, codes, bins)) - stack[0]


@dataclass
class Totals:
    """Sums over a run, part of every resume state; work that a kill destroyed is not in them.

    Attributes:
        updates: made or skipped, those that a rollback undid included.
        clips: clips presented, over all workers.
        masked_frames: masked frames of these clips.
        busy_seconds: time in updates, with waiting for data, without validation and resume states.
        waited_seconds: the part of it in which the leading worker waited for data.
        held_seconds: time from the loop's begin to its end: what a machine is paid for, but for start-up.
        peak_memory_bytes: memory of the fullest worker, on its device; on a CPU of the whole process.
    """

    updates: int = 0
    clips: int = 0
    masked_frames: float = 0.0
    busy_seconds: float = 0.0
    waited_seconds: float = 0.0
    held_seconds: float = 0.0
    peak_memory_bytes: int = 0


CPU = "CPU"


def device_name(worker: Worker) -> str:
    """Return the name of a worker's GPU, or ``CPU``."""
    return torch.cuda.get_device_name(worker.device) if worker.device.type == "cuda" else CPU


class CostMeter:
    """Counts updates as they are made; every worker keeps one.

    Args:
        totals: what earlier processes of this run have spent.
        worker: rank and device of this process.
        clip_seconds: length of a clip.
        clip_flops: function that gives the FLOPs of forward and backward for one clip with so many masked frames.
        device: name of the device that each worker of the run has; None: that of this worker.
    """

    def __init__(
        self,
        totals: Totals,
        worker: Worker,
        clip_seconds: float,
        clip_flops: Callable[[float], float],
        device: str | None = None,
    ) -> None:
        self.totals = totals
        self._worker, self._clip_seconds, self._clip_flops = worker, clip_seconds, clip_flops
        self._device = device or device_name(worker)
        self._gpus = 0 if self._device == CPU else worker.world
        self._window = Totals()  # since the last reading
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
        busy_seconds = time.perf_counter() - self._mark
        for sums in (self.totals, self._window):
            sums.busy_seconds += busy_seconds
            sums.updates += 1
            sums.clips += clips
            sums.masked_frames += masked_frames
        self.restart()

    def restart(self) -> None:
        """Leave out the time since the last update: it went into validation or a resume state."""
        self._mark = time.perf_counter()
        self.totals.held_seconds += self._mark - self._held_mark
        self._held_mark = self._mark

    @property
    def audio_hours_per_second(self) -> float:
        """Speed since the last logged point."""
        return self._rates(self._window)["audio_hours_per_second"]

    def read(self) -> dict[str, float]:
        """Return the figures since the last reading and begin anew. All workers must call this together."""
        if self._worker.device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(self._worker.device))
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
        self.totals.peak_memory_bytes = max(self.totals.peak_memory_bytes, int(self._worker.maximum(peak)))
        figures = {f"speed/{name}": value for name, value in self._rates(self._window).items()}
        figures["cost/peak_memory_gib"] = self.totals.peak_memory_bytes / 2**30
        if self._gpus:
            figures["cost/gpu_hours"] = self.totals.held_seconds * self._gpus / 3600
        self._window = Totals()
        return figures

    def _rates(self, sums: Totals) -> dict[str, float]:
        busy = max(sums.busy_seconds, 1e-9)
        rates = {
            "steps_per_second": sums.updates / busy,
            "audio_hours_per_second": sums.clips * self._clip_seconds / 3600 / busy,
            "data_wait_share": sums.waited_seconds / busy,
        }
        peak = peak_flops(self._device)
        if peak is not None and sums.clips:
            flops = self._clip_flops(sums.masked_frames / sums.clips) * sums.clips
            rates["mfu"] = flops / busy / (peak * self._gpus)
        return rates

    def card(self) -> dict[str, Any]:
        """Return the whole run's figures, for the tracker and the checkpoint's card; call ``read`` before."""
        totals = self.totals
        per_clip = self._clip_flops(totals.masked_frames / totals.clips) if totals.clips else 0.0
        return {
            "device": self._device,
            "workers": self._worker.world,
            "updates": totals.updates,
            "audio_hours": totals.clips * self._clip_seconds / 3600,
            **self._rates(totals),
            "peak_memory_gib": totals.peak_memory_bytes / 2**30,
            "gpu_hours": totals.held_seconds * self._gpus / 3600,
            "wall_hours": totals.held_seconds / 3600,
            "gflop_per_clip": per_clip / 1e9,
            "total_pflop": per_clip * totals.clips / 1e15,
        }
