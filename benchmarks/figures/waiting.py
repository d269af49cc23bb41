"""How threads wait: the demo student's step beside one other busy process, and with threads that sleep or spin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from benchmarks.figures.step import update
from benchmarks.row import Row, Tell, time_of
from benchmarks.student import batch, objective, student, target_set
from benchmarks.timing import seconds
from mert_core.parallel import PASSIVE, SPINNING

CLIPS, SECONDS, STEPS = 4, 1.0, 20
ENDLESS = {"GOMP_SPINCOUNT": "300000"}
"""GNU's default, which it only takes where the environment says nothing."""


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure both: libraries read the environment when they load, so that each way of waiting has its own process."""
    sides: dict[str, list[float]] = {"alone": [], "endless": [], "beside": [], "surprised": []}
    with ExitStack() as stack:
        sleeping, spinning, endless = (
            stack.enter_context(_student(waiting)) for waiting in (PASSIVE, SPINNING, ENDLESS)
        )
        students = {"alone": spinning, "endless": endless, "beside": sleeping, "surprised": spinning}
        other = stack.enter_context(_busy())
        for number in range(rounds + 1):
            order = list(sides) if number % 2 else list(sides)[::-1]
            for side in order:
                busy = side in {"beside", "surprised"}
                other.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
                taken = _step(students[side])
                other.send_signal(signal.SIGSTOP)
                if number:  # the first round warms up
                    sides[side].append(taken)
            tell(f"round {number} of {rounds}")
    step = f"the demo student's step, {CLIPS} clips of {SECONDS:g} s"
    compared = [
        ("beside one busy process against alone", 2.0, "beside", "alone"),
        ("beside one that came later against alone", 2.0, "surprised", "alone"),
        ("threads that spin briefly against endlessly", 1.05, "alone", "endless"),
    ]
    return [
        Row.of_less(f"{step}: {what}", target, sides[ours], sides[theirs], time_of)
        for what, target, ours, theirs in compared
    ]


def serve(threads: int) -> None:
    """Be a student: for each line that comes, make some steps and print the seconds of one."""
    torch.set_num_threads(threads)
    shape = student("mert-tiny")
    module, targets, crops = objective(shape), target_set(), batch(shape, CLIPS, SECONDS)
    once = update(module, lambda: module(crops, targets(crops)).weighted, crops.masked_frames)
    for _ in sys.stdin:
        print(seconds(once, STEPS), flush=True)


@contextmanager
def _student(waiting: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    code = f"from benchmarks.figures import waiting; waiting.serve({torch.get_num_threads()})"
    environment = {name: value for name, value in os.environ.items() if name not in PASSIVE} | waiting
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=pipe, stdout=pipe, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _step(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    print(file=process.stdin, flush=True)
    return float(process.stdout.readline())


@contextmanager
def _busy() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that computes without end, and stop it until it is needed."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.kill()
