"""Performing many tracks, on several processes if that pays: the corpus to pre-train on, and the probe set."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, PerSplit, Split
from mert_core.data.track import SourceTrack
from mert_core.parallel import in_order
from mert_core.synth.items import mix_item, note_item, rhythm_item
from mert_core.synth.library import SPLITS, Library, load_library
from mert_core.synth.phrases import phrase_item
from mert_core.synth.rng import generator
from mert_core.synth.stems import ROLES, stem_items
from mert_core.synth.track import as_track, draw_rendition, whole_samples

ItemMaker = Callable[[Config, Library, Split, int], SourceTrack | list[SourceTrack]]
"""Gives the track or tracks of one item of a split, the same whether others are made or not."""
Job = tuple[ItemMaker, Split, int]

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
    chunks = (jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.threads, context, initializer=_begin, initargs=(config, library)) as pool:
        try:
            for tracks in in_order(pool, _play_chunk, chunks, ahead=_AHEAD * config.threads):
                yield from tracks
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(config: Config, library: Library) -> None:
    """Hand a new process what all its jobs need."""
    global _context
    _context = config, library


def _play_chunk(jobs: Sequence[Job]) -> list[SourceTrack]:
    assert _context is not None
    config, library = _context
    return [track for job in jobs for track in _play(config, library, job)]


def _play(config: Config, library: Library, job: Job) -> list[SourceTrack]:
    make, split, index = job
    made = make(config, library, split, index)
    return made if isinstance(made, list) else [made]


_HELD_OUT = 0.1  # share of the corpus in each of valid and test

# By the name of their count in the config: what makes one, and how many tracks one has.
_ITEMS: dict[str, tuple[ItemMaker, int]] = {
    "mixes": (mix_item, 1),
    "notes": (note_item, 1),
    "rhythms": (rhythm_item, 1),
    "phrases": (phrase_item, 1),
    "stems": (stem_items, 1 + len(ROLES)),
}


def count_corpus(config: Config) -> int:
    """Return how many tracks `perform_corpus` gives."""
    return sum(_corpus_counts(config).values())


def count_probe_set(config: Config) -> int:
    """Return how many tracks `perform_probe_set` gives."""
    return sum(
        getattr(_counts(config, name), split) * tracks for name, (_, tracks) in _ITEMS.items() for split in SPLITS
    )


def perform_corpus(config: Config, cache_folder: Path, library: Library | None = None) -> Iterator[SourceTrack]:
    """Play the corpus: as many tracks as ``minutes`` need, a tenth each of valid and test pieces.

    Args:
        config: seed, threads, ``corpus.scores`` and ``pieces`` count.
        cache_folder: keeps parsed scores.
        library: pieces to play instead of the whole library.
    """
    library = library or load_library(config, cache_folder)
    jobs: list[Job] = [
        (corpus_track, split, index) for split, count in _corpus_counts(config).items() for index in range(count)
    ]
    yield from play_all(config, library, jobs)


def perform_probe_set(config: Config, cache_folder: Path, library: Library | None = None) -> Iterator[SourceTrack]:
    """Play the probe set, split by split: excerpts with a key, single notes, rhythms, phrases, mixtures with stems."""
    library = library or load_library(config, cache_folder)
    jobs: list[Job] = [
        (make, split, index)
        for split in SPLITS
        for name, (make, _) in _ITEMS.items()
        for index in range(getattr(_counts(config, name), split))
    ]
    yield from play_all(config, library, jobs)


def corpus_track(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one track of the corpus, the same whether others are played or not."""
    rng = generator(config.seed, "corpus", split, index)
    samples = whole_samples(config.corpus.scores.track_seconds)
    rendition = draw_rendition(library, split, index, samples, rng, lambda _: True, "can be heard")
    return as_track(f"corpus-{split}-{index:05d}", rendition, {"kind": "mix", "pitch": np.int16(-1), "family": ""})


def _counts(config: Config, name: str) -> PerSplit:
    counts: PerSplit = getattr(config.probe_set, name)
    return counts


def _corpus_counts(config: Config) -> dict[Split, int]:
    seconds = whole_samples(config.corpus.scores.track_seconds) / SAMPLE_RATE
    count = math.ceil(round(config.corpus.scores.minutes * 60 / seconds, 6))
    held_out = max(round(count * _HELD_OUT), 1)
    return {"train": max(count - 2 * held_out, 1), "valid": held_out, "test": held_out}
