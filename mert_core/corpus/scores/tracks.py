"""Performed scores as tracks: the corpus to pre-train on and the labelled items to probe on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.config import Config, Split
from mert_core.corpus.scores.instruments import FAMILIES, NOTE_FAMILIES, NOTE_HIGHEST, NOTE_LOWEST
from mert_core.corpus.scores.labels import UNKNOWN_KEY
from mert_core.corpus.scores.library import SPLITS, Library, load_library
from mert_core.corpus.scores.performance import Performance, draw_performance
from mert_core.corpus.scores.pieces import Piece
from mert_core.corpus.scores.pool import Job, play_all
from mert_core.corpus.scores.randomness import generator
from mert_core.corpus.scores.synthesis import PlayedNote, PlayedPart, mix_mono, render_stems
from mert_core.corpus.track import SourceTrack
from mert_core.errors import MertError

LICENCE = "score: see music21's corpus; sound: TimGM6mb SoundFont (GPL-2)"

_HELD_OUT = 0.1  # share of the corpus in each of valid and test
_REDRAWS = 400
_LEVELS_DB = (-28.0, -16.0)  # root mean square of a track, below full scale
_PEAK = 0.98
_SILENT_RMS = 1e-4  # as played, before the level is set
_LAST_SHARE = 0.25  # of an item in which something must still be heard
_NOTE_DELAY_SECONDS = 0.1
_SHORTEST_NOTE_SHARE = 0.6  # of a single-note item


@dataclass(frozen=True)
class _Played:
    """A performance with its sound: mono at its final level, and the gain that brought it there."""

    piece: Piece
    performance: Performance
    waveform: NDArray[np.float32]
    gain: float


def count_corpus(config: Config) -> int:
    """Return how many tracks `perform_corpus` gives."""
    return sum(_corpus_counts(config).values())


def count_probe_set(config: Config) -> int:
    """Return how many items `perform_probe_set` gives."""
    return sum(getattr(kind, split) for kind in (config.probe_set.mixes, config.probe_set.notes) for split in SPLITS)


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
    """Play the probe set: excerpts with a known key, then single notes, split by split."""
    library = library or load_library(config, cache_folder)
    mixes, notes = config.probe_set.mixes, config.probe_set.notes
    jobs: list[Job] = []
    for split in SPLITS:
        jobs += [(mix_item, split, index) for index in range(getattr(mixes, split))]
        jobs += [(note_item, split, index) for index in range(getattr(notes, split))]
    yield from play_all(config, library, jobs)


def corpus_track(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one track of the corpus, the same whether others are played or not."""
    rng = generator(config.seed, "corpus", split, index)
    played = _draw(library, split, index, _samples(config.corpus.scores.track_seconds), rng, keyed=False)
    return _mix_track(f"corpus-{split}-{index:05d}", played)


def mix_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one excerpt of the probe set."""
    rng = generator(config.seed, "mixes", split, index)
    played = _draw(library, split, index, _samples(config.probe_set.mix_seconds), rng, keyed=True)
    return _mix_track(f"mix-{split}-{index:05d}", played)


def note_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one note of a score alone: families in turn, pitches evenly over what the instrument can play.

    The score's note is moved to its pitch by one of the twelve transpositions.
    """
    rng = generator(config.seed, "notes", split, index)
    family = NOTE_FAMILIES[index % len(NOTE_FAMILIES)]
    samples = _samples(config.probe_set.note_seconds)
    for _ in range(_REDRAWS):
        programs = sorted(FAMILIES[family])
        program = programs[int(rng.integers(len(programs)))]
        lowest, highest = FAMILIES[family][program]
        pitch = int(rng.integers(max(lowest, NOTE_LOWEST), min(highest, NOTE_HIGHEST) + 1))
        piece = _choose(library, split, int(rng.integers(len(library.composers))), rng)
        found = _find_note(piece, pitch, rng)
        if found is None:
            continue
        transposition, quarters = found
        delay = float(rng.uniform(0, _NOTE_DELAY_SECONDS))
        room = config.probe_set.note_seconds - delay
        quarter_seconds = float(np.exp(rng.uniform(*np.log((0.4, 0.9)))))
        held = float(np.clip(quarters * quarter_seconds, _SHORTEST_NOTE_SHARE * room, room))
        note = PlayedNote(delay, held, pitch, int(rng.integers(40, 121)))
        part = PlayedPart((note,), program, 1.0, float(rng.uniform(-0.8, 0.8)))
        performance = Performance((part,), (family,), (), UNKNOWN_KEY, transposition, 60 / quarter_seconds, -1)
        played = _sound(piece, performance, samples, rng)
        if played is not None:
            labels = {"kind": "note", "pitch": np.int16(pitch), "family": family}
            return _track(f"note-{split}-{index:05d}", played, labels)
    raise MertError(
        f"no {split} piece has a note for {family}, though {_REDRAWS} were tried; raise pieces.per_composer"
    )


def _corpus_counts(config: Config) -> dict[Split, int]:
    seconds = _samples(config.corpus.scores.track_seconds) / SAMPLE_RATE
    count = math.ceil(round(config.corpus.scores.minutes * 60 / seconds, 6))
    held_out = max(round(count * _HELD_OUT), 1)
    return {"train": max(count - 2 * held_out, 1), "valid": held_out, "test": held_out}


def _samples(seconds: float) -> int:
    return max(int(seconds * SAMPLE_RATE + 1e-6) // HOP_SAMPLES, 1) * HOP_SAMPLES


def _choose(library: Library, split: Split, turn: int, rng: np.random.Generator) -> Piece:
    """Return a piece of the composer whose turn it is, so that all composers are heard equally often."""
    pieces = library.of(split, library.composers[turn % len(library.composers)])
    return pieces[int(rng.integers(len(pieces)))]


def _draw(
    library: Library, split: Split, index: int, samples: int, rng: np.random.Generator, *, keyed: bool
) -> _Played:
    for _ in range(_REDRAWS):
        piece = _choose(library, split, index, rng)
        performance = draw_performance(piece, samples / SAMPLE_RATE, rng)
        if keyed and performance.key == UNKNOWN_KEY:
            continue
        played = _sound(piece, performance, samples, rng)
        if played is not None:
            return played
    composer = library.composers[index % len(library.composers)]
    raise MertError(
        f"no excerpt of the {split} pieces of {composer} {'has a certain key' if keyed else 'can be heard'}, "
        f"though {_REDRAWS} were tried; raise pieces.per_composer"
    )


def _sound(piece: Piece, performance: Performance, samples: int, rng: np.random.Generator) -> _Played | None:
    """Render and set the level; None where (almost) nothing is heard, or nothing towards the end."""
    waveform = mix_mono(render_stems(list(performance.parts), samples))
    level = 10 ** (rng.uniform(*_LEVELS_DB) / 20)
    rms = _rms(waveform)
    if rms < _SILENT_RMS or _rms(waveform[-int(samples * _LAST_SHARE) :]) < 0.03 * rms:
        return None
    gain = min(level / rms, _PEAK / float(np.abs(waveform).max()))
    return _Played(piece, performance, waveform * np.float32(gain), gain)


def _rms(waveform: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _mix_track(track_id: str, played: _Played) -> SourceTrack:
    return _track(track_id, played, {"kind": "mix", "pitch": np.int16(-1), "family": ""})


def _track(track_id: str, played: _Played, labels: dict[str, Any]) -> SourceTrack:
    piece, performance = played.piece, played.performance
    return SourceTrack(
        track_id=track_id,
        waveform=played.waveform,
        source_rate=SAMPLE_RATE,
        source=piece.score,
        piece=piece.group,
        artist=piece.composer,
        split=piece.split,
        licence=LICENCE,
        labels={
            **labels,
            "key": np.int16(performance.key),
            "composer": piece.composer,
            "programs": [np.int16(program) for program in sorted({part.program for part in performance.parts})],
            "families": sorted(set(performance.families)),
            "transposition": np.int16(performance.transposition),
            "quarters_per_minute": np.float32(performance.quarters_per_minute),
            "start_bar": np.int16(performance.start_bar),
            "gain": np.float32(played.gain),
        },
        notes=[
            {
                "part": np.int16(number),
                "onset_seconds": np.float32(note.onset_seconds),
                "duration_seconds": np.float32(note.duration_seconds),
                "pitch": np.int16(note.pitch),
                "velocity": np.int16(note.velocity),
                "program": np.int16(part.program),
                "family": family,
                "gain": np.float32(part.gain * played.gain),
                "pan": np.float32(part.pan),
            }
            for number, (part, family) in enumerate(zip(performance.parts, performance.families, strict=True))
            for note in part.notes
        ],
        beats=[{"seconds": np.float32(seconds), "downbeat": downbeat} for seconds, downbeat in performance.beats],
    )


def _find_note(piece: Piece, pitch: int, rng: np.random.Generator) -> tuple[int, float] | None:
    """Return a transposition that brings some note of the piece to a pitch, and that note's length in quarters."""
    pitches = np.concatenate([part.pitches for part in piece.parts])
    durations = np.concatenate([part.durations for part in piece.parts])
    near = np.flatnonzero((pitch - pitches >= -6) & (pitch - pitches <= 5))
    if not near.size:
        return None
    chosen = int(near[rng.integers(near.size)])
    return pitch - int(pitches[chosen]), float(durations[chosen])
