"""`python -m benchmarks.gpu`: what one GPU does with the published students, in bf16 at the largest batch that fits.

Needs a checkout, Python 3.11 or newer, torch and numpy. Per student: hours of audio per second, model FLOPs
utilization, where the time goes by kind of kernel, and how far the losses are from those of the CPU in fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.student import CODES, SAMPLE_RATE, SPECTRUM, batch, objective, optimizer, student, target_set
from mert_core.files import write_json
from mert_core.training.cost import peak_flops, training_flops
from mert_core.training.distributed import Engine
from mert_core.training.loss import Losses
from mert_core.training.worker import Worker

STUDENTS = {"mert-95m": (5.0, 1.3, 0.40), "mert-330m": (5.12, 0.64, 0.50)}
"""Seconds of a clip, and the targets: hours of audio per second, and model FLOPs utilization."""
_KINDS = {  # the first whose word is in a kernel's name counts
    "attention": ("flash", "fmha", "attention"),
    "matrix products": ("gemm", "cutlass", "nvjet", "cublas", "xmma", "mm_"),
    "convolution": ("conv", "wgrad", "dgrad"),
    "FFT": ("fft",),
    "optimizer": ("adam", "multi_tensor"),
    "norms": ("norm", "softmax"),
    "copies": ("memcpy", "memset", "copy", "catarray"),
    "element by element": ("elementwise", "vectorized", "gelu", "reduce", "triton"),
}


@dataclass(frozen=True)
class Options:
    """How a student is run: the engine's options, named as in mert_core.config.PretrainConfig, and how long."""

    device: torch.device
    compile: bool
    activation_checkpointing: bool
    steps: int
    sharding: str = "none"
    precision: str = "bf16"
    clip_norm: float = 10.0


class Trainer:
    """One student with its optimizer on a device, making updates on a batch that stays there."""

    def __init__(self, preset: str, clips: int, seconds: float, options: Options) -> None:
        self.shape, self.options = student(preset), options
        self.module = objective(self.shape).train()
        self.engine = Engine(options, self.module, Worker(device=options.device))  # type: ignore[arg-type]
        self.optimizer = optimizer(self.module)
        self.batch = batch(self.shape, clips, seconds).to(options.device)
        self.target_set = target_set().to(options.device)

    def update(self) -> None:
        """Make one update as the training loop does."""
        with self.engine.update(seed=0, step=0):
            losses = self.engine.losses(self.batch, self.target_set(self.batch))
            (losses.weighted / self.batch.masked_frames).backward()
        self.engine.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def seconds_per_update(self) -> float:
        """Return the median time of an update."""
        for _ in range(3):
            self.update()
        times = []
        for _ in range(self.options.steps):
            _wait(self.options.device)
            start = time.perf_counter()
            self.update()
            _wait(self.options.device)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def largest_batch(preset: str, seconds: float, options: Options, most: int) -> int:
    """Return the largest number of clips, a power of two or one and a half, whose update fits into memory.

    Raises:
        RuntimeError: not even one clip fits.
    """
    fitting = 0
    for clips in sorted({size for power in range(12) for size in (2**power, 3 * 2**power // 2)} - {0}):
        if clips > most or not _fits(preset, clips, seconds, options):
            break
        fitting = clips
    if not fitting:
        raise RuntimeError(f"one clip of {preset} does not fit into the memory of {_name(options.device)}")
    return fitting


def _fits(preset: str, clips: int, seconds: float, options: Options) -> bool:
    try:
        trainer = Trainer(preset, clips, seconds, options)
        for _ in range(2):  # the optimizer's state comes with the first
            trainer.update()
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer = None  # type: ignore[assignment]
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def parity(preset: str, seconds: float, device: torch.device) -> dict[str, float]:
    """Return each loss term's relative difference between the device in bf16 and the CPU in fp32, without dropout."""
    shape = student(preset, dropout=False)
    module, crops = objective(shape).eval(), batch(shape, 2, seconds)
    with torch.no_grad():
        targets = target_set()
        expected = _terms(module(crops, targets(crops)))
        module.to(device)
        crops, targets = crops.to(device), targets.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            there = _terms(module(crops, targets(crops)))
    return {name: abs(there[name] - value) / abs(value) for name, value in expected.items()}


def _terms(losses: Losses) -> dict[str, float]:
    sums = {name: losses.sums[name][0].sum().item() for name in ("feature_penalty", CODES, SPECTRUM)}
    return {"weighted": losses.weighted.item(), **sums}


def kernels(trainer: Trainer) -> dict[str, float]:
    """Return the share of an update's kernel time by kind of kernel; on a CPU by kind of operator."""
    cuda = trainer.options.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as record:
        trainer.update()
        _wait(trainer.options.device)
    spent: dict[str, float] = defaultdict(float)
    for event in record.key_averages():
        spent[_kind(event.key)] += event.self_device_time_total if cuda else event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time / total for kind, time in sorted(spent.items(), key=lambda item: -item[1]) if total}


def _kind(name: str) -> str:
    lowered = name.lower()
    return next((kind for kind, words in _KINDS.items() if any(word in lowered for word in words)), "other")


def measure(preset: str, options: Options, clips: int | None, most: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return all figures of one student."""
    seconds, target_hours, target_mfu = STUDENTS.get(preset, (1.0, None, None))
    if clips is None:
        clips = largest_batch(preset, seconds, options, most)
    tell(f"{preset}: {clips} clips of {seconds} s")
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(options.device)  # what did not fit must not count
    trainer = Trainer(preset, clips, seconds, options)
    per_update = trainer.seconds_per_update()
    masked = trainer.batch.masked_frames / clips
    flops = clips * training_flops(trainer.shape, round(seconds * SAMPLE_RATE), masked)
    peak = peak_flops(_name(options.device))
    figures = {
        "clips": clips,
        "clip_seconds": seconds,
        "milliseconds_per_update": per_update * 1e3,
        "audio_hours_per_second": clips * seconds / 3600 / per_update,
        "target_audio_hours_per_second": target_hours,
        "mfu": flops / per_update / peak if peak else None,
        "target_mfu": target_mfu,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if options.device.type == "cuda" else None,
        "share_of_kernel_time": kernels(trainer),
    }
    del trainer
    return figures | {"relative_difference_from_cpu_fp32": parity(preset, seconds, options.device)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure the students on one GPU.")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=[*STUDENTS, "mert-tiny"])
    parser.add_argument("--device", default="cuda", help="cuda; cpu only to try this command")
    parser.add_argument("--clips", type=int, help="clips per update; without it the largest number that fits")
    parser.add_argument("--most", type=int, default=512, help="clips to try at most (512)")
    parser.add_argument("--steps", type=int, default=10, help="updates to take the median of (10)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the encoder's layers")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--to", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; run this on a machine with a GPU")
    options = Options(device, arguments.compile, arguments.activation_checkpointing, arguments.steps)
    found: dict[str, Any] = {"device": _name(device), "torch": torch.__version__}
    for preset in arguments.students:
        found[preset] = measure(
            preset, options, arguments.clips, arguments.most, lambda text: print(text, file=sys.stderr)
        )
    print(json.dumps(found, indent=2))
    if arguments.to:
        write_json(arguments.to, found)


if __name__ == "__main__":
    main()
