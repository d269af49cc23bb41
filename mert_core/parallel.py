"""Threads for work that falls into independent parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield the work's results in the items' order; ``ahead`` of them are begun before they are asked for.

    `ThreadPoolExecutor.map` begins all at once, and so may hold all results.
    """
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
