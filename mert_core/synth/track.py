"""From a performance to a track: sound at its level, and rows of labels, notes and beats.

Moods, genres and two continuous descriptors follow from what is stored (notes, beats, key, composer, samples) by
rules, so that anybody can draw the same labels from a probe set's tables. Bounds were set so that each tag holds for
a tenth to a third of the demo's excerpts, the commonest key mode aside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.config import Split
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import COLLECTIONS, Library
from mert_core.synth.performance import Performance, draw_performance
from mert_core.synth.pieces import Piece
from mert_core.synth.render import mix_mono, render_stems

LICENCE = "score: see music21's corpus; sound: TimGM6mb SoundFont (GPL-2)"
REDRAWS = 400
LEVELS_DB = (-28.0, -16.0)  # root mean square of a track, below full scale

PEAK = 0.98
SILENT_RMS = 1e-4  # as played, before the level is set
_LAST_SHARE = 0.25  # of an item in which something must still be heard


@dataclass(frozen=True)
class Rendition:
    """A performance of a piece and its sound.

    Attributes:
        waveform: float32 (samples,), mono at its final level.
        gain: linear gain that brought it there.
    """

    piece: Piece
    performance: Performance
    waveform: NDArray[np.float32]
    gain: float


def whole_samples(seconds: float) -> int:
    """Return the samples of so many seconds, down to whole hops."""
    return max(int(seconds * SAMPLE_RATE + 1e-6) // HOP_SAMPLES, 1) * HOP_SAMPLES


def choose_piece(library: Library, split: Split, turn: int, rng: np.random.Generator) -> Piece:
    """Return a piece of the composer whose turn it is, so that all composers are heard equally often."""
    pieces = library.of(split, library.composers[turn % len(library.composers)])
    return pieces[int(rng.integers(len(pieces)))]


def draw_rendition(
    library: Library,
    split: Split,
    turn: int,
    samples: int,
    rng: np.random.Generator,
    accept: Callable[[Performance], bool],
    property_text: str,
    patience: int = REDRAWS,
) -> Rendition:
    """Draw performances of the composer whose turn it is until one is accepted and can be heard.

    After ``patience`` draws it is the next composer's turn. ``property_text`` says what is accepted, for the error.

    Raises:
        MertError: none of 400 is.
    """
    for attempt in range(REDRAWS):
        piece = choose_piece(library, split, turn + attempt // patience, rng)
        performance = draw_performance(piece, samples / SAMPLE_RATE, rng)
        if not accept(performance):
            continue
        rendition = render_performance(piece, performance, samples, rng)
        if rendition is not None:
            return rendition
    turns = range(turn, turn + math.ceil(REDRAWS / patience))
    tried = sorted({library.composers[number % len(library.composers)] for number in turns})
    raise MertError(
        f"no excerpt of the {split} pieces of {', '.join(tried)} {property_text}, though {REDRAWS} were tried; "
        "raise pieces.per_composer"
    )


def render_performance(
    piece: Piece, performance: Performance, samples: int, rng: np.random.Generator
) -> Rendition | None:
    """Render and set the level; None where (almost) nothing is heard, or nothing towards the end."""
    waveform = mix_mono(render_stems(list(performance.parts), samples))
    gain = level_gain(waveform, float(rng.uniform(*LEVELS_DB)))
    return None if gain is None else Rendition(piece, performance, waveform * np.float32(gain), gain)


def level_gain(waveform: NDArray[np.float32], level_db: float) -> float | None:
    """Return the gain to a root mean square in decibel below full scale, or to just below clipping.

    None where (almost) nothing is heard, or nothing towards the end.
    """
    loudness = rms(waveform)
    if loudness < SILENT_RMS or rms(waveform[-int(len(waveform) * _LAST_SHARE) :]) < 0.03 * loudness:
        return None
    return min(10 ** (level_db / 20) / loudness, PEAK / float(np.abs(waveform).max()))


def rms(waveform: NDArray[np.float32]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def as_track(track_id: str, rendition: Rendition, labels: dict[str, Any]) -> SourceTrack:
    """Return a track with the labels of its kind and those that every performance has."""
    piece, performance = rendition.piece, rendition.performance
    return SourceTrack(
        track_id=track_id,
        waveform=rendition.waveform,
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
            "gain": np.float32(rendition.gain),
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
                "gain": np.float32(part.gain * rendition.gain),
                "pan": np.float32(part.pan),
            }
            for number, (part, family) in enumerate(zip(performance.parts, performance.families, strict=True))
            for note in part.notes
        ],
        beats=[{"seconds": np.float32(seconds), "downbeat": downbeat} for seconds, downbeat in performance.beats],
    )


def probe_track(track_id: str, rendition: Rendition, kind: str, **own: Any) -> SourceTrack:
    """Return an item of the probe set; labels that its kind does not have are empty."""
    labels = {"kind": kind, "pitch": np.int16(-1), "family": "", "technique": "", "performer": "", "mix": "", **own}
    track = as_track(track_id, rendition, labels)
    return replace(track, labels={**(track.labels or {}), **describe(track)})


DESCRIPTORS = ("density", "register")

SLOW_SECONDS, FAST_SECONDS = 0.5, 0.33  # median time from a note to the next of its part
SPARSE, DENSE = 3.0, 9.0  # notes per second
SOFT_DB, LOUD_DB = -25.0, -19.0  # root mean square below full scale
LOW_PITCH, HIGH_PITCH = 60.0, 69.0  # mean pitch: below middle C; from the A above it on
STEPWISE, LEAPING = 1.5, 3.0  # semitones: mean interval of the highest part
CHROMATIC = 0.05  # share of the sounding time that lies outside the key's scale
POLYPHONIC, HOMOPHONIC = 0.5, 0.7  # share of the parts that move whenever one does
_SAME = 1e-3  # seconds: notes that begin together
# Steps above the tonic; minor with both forms of the sixth and the seventh.
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 9, 10, 11))


def describe(track: SourceTrack) -> dict[str, Any]:
    """Return the labels ``moods``, ``genres``, ``density`` and ``register`` of a track.

    ``density`` is the natural logarithm of the notes heard per second; ``register`` the mean MIDI pitch, each note
    counted for as long as it is held.
    """
    assert track.notes and track.labels and track.beats is not None
    part, pitch = (np.array([row[name] for row in track.notes]) for name in ("part", "pitch"))
    begins, held = (
        np.array([row[name] for row in track.notes], np.float64) for name in ("onset_seconds", "duration_seconds")
    )
    density = len(part) / (len(track.waveform) / SAMPLE_RATE)
    register = float(np.average(pitch, weights=held))
    level_db = 20 * np.log10(rms(track.waveform))

    # how fast each part goes from note to note, chords counted once, and how often parts move together
    onsets = np.rint(begins / _SAME).astype(np.int64)
    numbers = np.unique(part)
    struck = [np.unique(onsets[part == number]) for number in numbers]
    gaps = np.concatenate([np.diff(own * _SAME) for own in struck])
    pace = float(np.median(gaps)) if gaps.size else math.nan
    together = sum(map(len, struck)) / len(np.unique(onsets)) / len(numbers)

    # the line of the part that is highest on average: the top of each of its chords
    mine = part == max(numbers, key=lambda number: pitch[part == number].mean())
    line = [pitch[mine & (onsets == onset)].max() for onset in np.unique(onsets[mine])]
    interval = float(np.abs(np.diff(line)).mean()) if len(line) > 1 else math.nan

    key = int(track.labels["key"])
    mode, tonic = divmod(key, 12)
    foreign = np.isin((pitch - tonic) % 12, _SCALES[mode], invert=True)
    moods = {
        "slow": pace >= SLOW_SECONDS,
        "fast": pace <= FAST_SECONDS,
        "sparse": density <= SPARSE,
        "dense": density >= DENSE,
        "soft": level_db <= SOFT_DB,
        "loud": level_db >= LOUD_DB,
        "low": register < LOW_PITCH,
        "high": register >= HIGH_PITCH,
        "stepwise": interval <= STEPWISE,
        "leaping": interval >= LEAPING,
        "major": 0 <= key < 12,
        "minor": key >= 12,
        "chromatic": key != UNKNOWN_KEY and float(np.average(foreign, weights=held)) >= CHROMATIC,
    }
    downbeats = np.flatnonzero([beat["downbeat"] for beat in track.beats])
    genres = {
        "solo": len(numbers) == 1,
        "polyphonic": len(numbers) > 1 and together <= POLYPHONIC,
        "homophonic": len(numbers) > 1 and together >= HOMOPHONIC,
        "triple": len(downbeats) > 1 and downbeats[1] - downbeats[0] == 3,
    }
    return {
        "moods": sorted(tag for tag, holds in moods.items() if holds),
        "genres": sorted({*COLLECTIONS[track.artist].genres, *(tag for tag, holds in genres.items() if holds)}),
        "density": np.float32(np.log(density)),
        "register": np.float32(register),
    }
