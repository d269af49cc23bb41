"""How work is spread here: threads and how they wait, the device, and independent parts side by side.

Nothing heavy is imported at the top: `choose_waiting` and `set_threads` act on libraries that load after them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mert_core.errors import MertError

Item = TypeVar("Item")
Result = TypeVar("Result")

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Lets OpenMP's threads sleep while they wait: for GNU's library, and for Intel's, which other builds of torch bring.

By default they spin, and beside one other busy process that makes each training step many times slower.
"""

SPINNING = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
"""Lets them look for some microseconds before they sleep.

Where nobody else computes, that is as fast as looking without end; where waking takes long, as it does in a virtual
machine, the demo's student makes 1.7 times as many steps a second as with threads that sleep at once.
"""


def choose_waiting() -> None:
    """Say how waiting threads wait, in this process and those that it starts, unless the environment says it.

    They sleep where other processes compute at this moment, and spin briefly where none does. Libraries read this once,
    when they load: call it before anything imports torch.
    """
    if not os.environ.keys() & PASSIVE.keys():
        os.environ.update(PASSIVE if _others_compute() else SPINNING)


def _others_compute(seconds: float = 0.1) -> bool:
    """Return whether other processes keep half a core of this machine busy."""
    import psutil

    return psutil.cpu_percent(seconds) / 100 * (psutil.cpu_count() or 1) > 0.5


def thread_variables(threads: int, processes: int = 1) -> dict[str, str]:
    """Return what the environment of processes that are yet to start says of threads: how many, how they wait.

    Args:
        threads: of each process.
        processes: that compute side by side on this machine; with more threads than cores, all of them sleep.
    """
    count = str(threads)
    waiting = {name: os.environ[name] for name in PASSIVE if name in os.environ}
    if not waiting or threads * processes > (os.cpu_count() or 1):
        waiting = PASSIVE
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, **waiting}


def set_threads(threads: int) -> None:
    """Set the threads of every pool of this process; before torch is imported.

    Pools are sized when their libraries load, and numpy's and torch's sums depend on the size.
    """
    os.environ.update(thread_variables(threads))
    import torch

    torch.set_num_threads(threads)


def choose_device(wanted: str) -> str:
    """Return this process's device, ``cuda`` or ``cpu``.

    Args:
        wanted: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.

    Raises:
        MertError: cuda is wanted, but torch finds no GPU.
    """
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise MertError(
            f"the device is to be cuda, but torch {torch.__version__} ({build}) finds no GPU here. Set pretrain.device "
            "(or the run's) to auto or cpu, or mend the driver: `mert doctor` says what torch sees."
        )
    return "cuda" if there and wanted != "cpu" else "cpu"


@contextmanager
def single_threads(device: str = "cpu", workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, or as are asked for, each of one torch thread; a GPU has one worker.

    Independent parts share the cores so without a barrier in every product, which brings more than two threads on
    one small product; and what a part computes does not depend on the number of threads.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        if workers is None:
            workers = threads if device == "cpu" else 1
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield the work's results in the items' order; ``ahead`` of them are begun before they are asked for.

    `ThreadPoolExecutor.map` begins all at once, and so may hold all results.
    """
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:  # after an error, or when the reader has had enough
            future.cancel()
