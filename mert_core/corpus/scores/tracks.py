"""Performed scores as tracks: the corpus to pre-train on and the labelled items to probe on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.config import Config, PerSplit, Split
from mert_core.corpus.scores.items import mix_item, note_item, rhythm_item
from mert_core.corpus.scores.library import SPLITS, Library, load_library
from mert_core.corpus.scores.phrases import phrase_item
from mert_core.corpus.scores.played import as_track, draw, whole_samples
from mert_core.corpus.scores.pool import Job, Player, play_all
from mert_core.corpus.scores.randomness import generator
from mert_core.corpus.scores.stems import ROLES, stem_items
from mert_core.corpus.track import SourceTrack

_HELD_OUT = 0.1  # share of the corpus in each of valid and test

# Count in the config, who plays one, and how many tracks one has.
_ITEMS: dict[str, tuple[Player, int]] = {
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
        (player, split, index)
        for split in SPLITS
        for name, (player, _) in _ITEMS.items()
        for index in range(getattr(_counts(config, name), split))
    ]
    yield from play_all(config, library, jobs)


def corpus_track(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one track of the corpus, the same whether others are played or not."""
    rng = generator(config.seed, "corpus", split, index)
    samples = whole_samples(config.corpus.scores.track_seconds)
    played = draw(library, split, index, samples, rng, lambda _: True, "can be heard")
    return as_track(f"corpus-{split}-{index:05d}", played, {"kind": "mix", "pitch": np.int16(-1), "family": ""})


def _counts(config: Config, name: str) -> PerSplit:
    counts: PerSplit = getattr(config.probe_set, name)
    return counts


def _corpus_counts(config: Config) -> dict[Split, int]:
    seconds = whole_samples(config.corpus.scores.track_seconds) / SAMPLE_RATE
    count = math.ceil(round(config.corpus.scores.minutes * 60 / seconds, 6))
    held_out = max(round(count * _HELD_OUT), 1)
    return {"train": max(count - 2 * held_out, 1), "valid": held_out, "test": held_out}
