"""Playing many tracks on several cores, in order: each track follows from its own number, whoever plays it."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from mert_core.config import Config, Split
from mert_core.corpus.scores.library import Library
from mert_core.corpus.track import SourceTrack

Player = Callable[[Config, Library, Split, int], SourceTrack | list[SourceTrack]]
Job = tuple[Player, Split, int]

_CHUNK = 16  # tracks
_AHEAD = 3  # chunks per process that may wait to be taken, so that memory is bounded
_WORTH_A_POOL = 128  # tracks; a process takes two seconds to start

_context: tuple[Config, Library] | None = None  # of a pool's process


def play_all(config: Config, library: Library, jobs: Sequence[Job]) -> Iterator[SourceTrack]:
    """Yield the tracks of ``jobs`` in their order, on ``config.threads`` processes if there are many."""
    if config.threads == 1 or len(jobs) < _WORTH_A_POOL:
        for job in jobs:
            yield from _play(config, library, job)
        return
    chunks = deque(jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK))
    waiting: deque[Future[list[SourceTrack]]] = deque()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.threads, context, initializer=_begin, initargs=(config, library)) as pool:
        try:
            while chunks or waiting:
                while chunks and len(waiting) < _AHEAD * config.threads:
                    waiting.append(pool.submit(_play_chunk, chunks.popleft()))
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(config: Config, library: Library) -> None:
    global _context
    _context = config, library


def _play_chunk(jobs: Sequence[Job]) -> list[SourceTrack]:
    assert _context is not None
    config, library = _context
    return [track for job in jobs for track in _play(config, library, job)]


def _play(config: Config, library: Library, job: Job) -> list[SourceTrack]:
    player, split, index = job
    played = player(config, library, split, index)
    return played if isinstance(played, list) else [played]
