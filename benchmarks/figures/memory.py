"""Peak memory of the 95M update: the whole process's, each side alone in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.figures import step
from benchmarks.row import Row, Tell
from benchmarks.student import student

CLIPS, UPDATES = (1, 4), 2
TARGET = 0.6
_GIB = 2**30


def peak_bytes(side: str, clips: int) -> int:
    """Return the largest resident memory of a fresh process that makes two updates."""
    code = f"from benchmarks.figures import memory; print(memory.measure({side!r}, {clips}, {torch.get_num_threads()}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout.splitlines()[-1])


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure in fp32, with one clip in a micro-batch and with several; two rounds, which hardly differ."""
    found, rounds = [], min(rounds, 2)
    for clips in CLIPS:
        ours, theirs = list[float](), list[float]()
        for number in range(1, rounds + 1):
            ours.append(peak_bytes("ours", clips))
            theirs.append(peak_bytes("theirs", clips))
            tell(f"round {number} of {rounds}: {ours[-1] / theirs[-1]:.3g}×")
        figure = f"peak memory of the 95M update, {clips} clip{'s' if clips > 1 else ''} of 5 s, fp32"
        found.append(Row.of_less(figure, TARGET, ours, theirs, lambda size: f"{size / _GIB:.2f} GiB"))
    return found


def measure(side: str, clips: int, threads: int) -> int:
    """Make two updates and return the largest resident memory of this process, in bytes.

    From Linux's own account of it: what ``getrusage`` says begins with the parent's memory.
    """
    torch.set_num_threads(threads)
    make = step.ours if side == "ours" else step.theirs
    once = make(student("mert-95m"), "fp32", clips)
    for _ in range(UPDATES):
        once()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
