"""Threads for work that falls into independent parts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def single_threads(device: str = "cpu", workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, or as are asked for, each of one torch thread; a GPU has one worker.

    Independent parts share the cores so without a barrier in every product, which brings more than two threads on
    one small product; and what a part computes does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    try:
        if workers is None:
            workers = threads if device == "cpu" else 1
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
