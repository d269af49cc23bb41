"""The tracks of the corpus and of the probe set, and playing many of them on several processes if that pays.

An item of the probe set is an excerpt with a key, a single note, an excerpt with a steady pulse, or what `phrases`
and `stems` make.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, Split
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.parallel import in_order
from mert_core.synth.instruments import FAMILIES, NOTE_FAMILIES, NOTE_HIGHEST, NOTE_LOWEST
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import SPLITS, Library, load_library
from mert_core.synth.performance import Performance
from mert_core.synth.phrases import phrase_item
from mert_core.synth.render import PlayedNote, PlayedPart
from mert_core.synth.rng import generator
from mert_core.synth.stems import ROLES, stem_items
from mert_core.synth.track import (
    REDRAWS,
    as_track,
    choose_piece,
    draw_rendition,
    probe_track,
    render_performance,
    whole_samples,
)

_HELD_OUT = 0.1  # share of the corpus in each of valid and test

_NOTE_DELAY_SECONDS = 0.1
_SHORTEST_NOTE_SHARE = 0.6  # of a single-note item

_BEATS_PER_MINUTE = (55.0, 215.0)
_FEWEST_BEATS = 4
_STEADY = 1.02  # longest over shortest time between beats
_ON_THE_BEAT_SECONDS = 0.02
_HEARD_BEATS = 0.75  # share of the beats on which some note begins
_PATIENCE = 50  # draws; a few pieces of one composer may all be too free


def corpus_track(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one track of the corpus, the same whether others are played or not."""
    rng = generator(config.seed, "corpus", split, index)
    samples = whole_samples(config.corpus.scores.track_seconds)
    rendition = draw_rendition(library, split, index, samples, rng, lambda _: True, "can be heard")
    return as_track(f"corpus-{split}-{index:05d}", rendition, {"kind": "mix", "pitch": np.int16(-1), "family": ""})


def mix_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one excerpt with a certain key."""
    rng = generator(config.seed, "mixes", split, index)
    samples = whole_samples(config.probe_set.mix_seconds)
    rendition = draw_rendition(
        library, split, index, samples, rng, lambda one: one.key != UNKNOWN_KEY, "has a certain key"
    )
    return probe_track(f"mix-{split}-{index:05d}", rendition, "mix")


def rhythm_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one excerpt whose beats are steady and can be heard."""
    rng = generator(config.seed, "rhythms", split, index)
    samples = whole_samples(config.probe_set.rhythm_seconds)
    rendition = draw_rendition(library, split, index, samples, rng, has_steady_pulse, "has a steady pulse", _PATIENCE)
    return probe_track(f"rhythm-{split}-{index:05d}", rendition, "rhythm")


def has_steady_pulse(performance: Performance) -> bool:
    """Return whether beats are equally far apart, neither too slow nor too fast, and notes begin on most of them."""
    beats = np.array([seconds for seconds, _ in performance.beats])
    if len(beats) < _FEWEST_BEATS:
        return False
    between = np.diff(beats)
    slowest, fastest = _BEATS_PER_MINUTE
    if between.max() > _STEADY * between.min() or not slowest <= 60 / between.mean() <= fastest:
        return False
    onsets = np.array([note.onset_seconds for part in performance.parts for note in part.notes])
    nearest = np.abs(beats[:, None] - onsets[None, :]).min(axis=1, initial=np.inf)
    return bool(np.mean(nearest <= _ON_THE_BEAT_SECONDS) >= _HEARD_BEATS)


def note_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one note of a score alone: families in turn, pitches evenly over what the instrument can play.

    The score's note is moved to its pitch by one of the twelve transpositions.
    """
    rng = generator(config.seed, "notes", split, index)
    family = NOTE_FAMILIES[index % len(NOTE_FAMILIES)]
    samples = whole_samples(config.probe_set.note_seconds)
    for _ in range(REDRAWS):
        programs = sorted(FAMILIES[family])
        program = programs[int(rng.integers(len(programs)))]
        lowest, highest = FAMILIES[family][program]
        pitch = int(rng.integers(max(lowest, NOTE_LOWEST), min(highest, NOTE_HIGHEST) + 1))
        piece = choose_piece(library, split, int(rng.integers(len(library.composers))), rng)
        pitches = np.concatenate([part.pitches for part in piece.parts])
        durations = np.concatenate([part.durations for part in piece.parts])
        near = np.flatnonzero((pitch - pitches >= -6) & (pitch - pitches <= 5))
        if not near.size:
            continue
        chosen = int(near[rng.integers(near.size)])
        delay = float(rng.uniform(0, _NOTE_DELAY_SECONDS))
        room = config.probe_set.note_seconds - delay
        quarter_seconds = float(np.exp(rng.uniform(*np.log((0.4, 0.9)))))
        held = float(np.clip(durations[chosen] * quarter_seconds, _SHORTEST_NOTE_SHARE * room, room))
        note = PlayedNote(delay, held, pitch, int(rng.integers(40, 121)))
        part = PlayedPart((note,), program, 1.0, float(rng.uniform(-0.8, 0.8)))
        transposition = pitch - int(pitches[chosen])
        performance = Performance((part,), (family,), (), UNKNOWN_KEY, transposition, 60 / quarter_seconds, -1)
        rendition = render_performance(piece, performance, samples, rng)
        if rendition is not None:
            return probe_track(f"note-{split}-{index:05d}", rendition, "note", pitch=np.int16(pitch), family=family)
    raise MertError(f"no {split} piece has a note for {family}, though {REDRAWS} were tried; raise pieces.per_composer")


ItemMaker = Callable[[Config, Library, Split, int], SourceTrack | list[SourceTrack]]
"""Gives the track or tracks of one item of a split, the same whether others are made or not."""
Job = tuple[ItemMaker, Split, int]

# By the name of their count in the config.
_ITEMS: dict[str, ItemMaker] = {
    "mixes": mix_item,
    "notes": note_item,
    "rhythms": rhythm_item,
    "phrases": phrase_item,
    "stems": stem_items,
}


def count_corpus(config: Config) -> int:
    """Return how many tracks `perform_corpus` gives."""
    return len(_corpus_jobs(config))


def count_probe_set(config: Config) -> int:
    """Return how many tracks `perform_probe_set` gives."""
    return sum(1 + len(ROLES) if make is stem_items else 1 for make, _, _ in _probe_jobs(config))


def perform_corpus(config: Config, cache_folder: Path, library: Library | None = None) -> Iterator[SourceTrack]:
    """Play the corpus: as many tracks as ``minutes`` need, a tenth each of valid and test pieces.

    ``cache_folder`` keeps parsed scores; ``library`` gives the pieces to play instead of the whole library.
    """
    yield from _play_all(config, library or load_library(config, cache_folder), _corpus_jobs(config))


def perform_probe_set(config: Config, cache_folder: Path, library: Library | None = None) -> Iterator[SourceTrack]:
    """Play the probe set, split by split: excerpts with a key, single notes, rhythms, phrases, mixtures with stems."""
    yield from _play_all(config, library or load_library(config, cache_folder), _probe_jobs(config))


def _corpus_jobs(config: Config) -> list[Job]:
    seconds = whole_samples(config.corpus.scores.track_seconds) / SAMPLE_RATE
    count = math.ceil(round(config.corpus.scores.minutes * 60 / seconds, 6))
    held_out = max(round(count * _HELD_OUT), 1)
    counts: dict[Split, int] = {"train": max(count - 2 * held_out, 1), "valid": held_out, "test": held_out}
    return [(corpus_track, split, index) for split in SPLITS for index in range(counts[split])]


def _probe_jobs(config: Config) -> list[Job]:
    return [
        (make, split, index)
        for split in SPLITS
        for name, make in _ITEMS.items()
        for index in range(getattr(getattr(config.probe_set, name), split))
    ]


_CHUNK = 16  # tracks
_AHEAD = 3  # chunks per process that may wait to be taken, so that memory is bounded
_WORTH_A_POOL = 128  # tracks; a process takes two seconds to start

_context: tuple[Config, Library] | None = None  # of a pool's process


def _play_all(config: Config, library: Library, jobs: list[Job]) -> Iterator[SourceTrack]:
    """Yield the tracks of ``jobs`` in their order, on ``config.threads`` processes if there are many."""
    chunks = (jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK))
    if config.threads == 1 or len(jobs) < _WORTH_A_POOL:
        for chunk in chunks:
            yield from _play(config, library, chunk)
        return
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


def _play_chunk(jobs: list[Job]) -> list[SourceTrack]:
    assert _context is not None
    return list(_play(*_context, jobs))


def _play(config: Config, library: Library, jobs: list[Job]) -> Iterator[SourceTrack]:
    for make, split, index in jobs:
        made = make(config, library, split, index)
        yield from made if isinstance(made, list) else [made]
