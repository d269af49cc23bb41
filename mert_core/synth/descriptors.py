"""What a performance says about mood, genre and two continuous descriptors: rules over its rows, nothing else.

Every rule reads what is stored (notes, beats, key, composer, samples), so that anybody can draw the same labels from
a probe set's tables. Bounds were set so that each tag holds for a tenth to a third of the demo's excerpts, the
commonest key mode aside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.track import SourceTrack
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import COLLECTIONS
from mert_core.synth.track import rms

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
_SCALES = (frozenset({0, 2, 4, 5, 7, 9, 11}), frozenset({0, 2, 3, 5, 7, 8, 9, 10, 11}))


def describe(track: SourceTrack) -> dict[str, Any]:
    """Return the labels ``moods``, ``genres``, ``density`` and ``register`` of a track.

    ``density`` is the natural logarithm of the notes heard per second; ``register`` the mean MIDI pitch, each note
    counted for as long as it is held.
    """
    assert track.notes and track.labels and track.beats is not None
    notes = {name: np.array([row[name] for row in track.notes]) for name in ("part", "pitch")}
    notes |= {
        name: np.array([row[name] for row in track.notes], np.float64) for name in ("onset_seconds", "duration_seconds")
    }
    seconds = len(track.waveform) / SAMPLE_RATE
    density = len(track.notes) / seconds
    register = float(np.average(notes["pitch"], weights=notes["duration_seconds"]))
    return {
        "moods": _moods(notes, int(track.labels["key"]), density, register, 20 * np.log10(rms(track.waveform))),
        "genres": _genres(notes, track.beats, track.artist),
        "density": np.float32(np.log(density)),
        "register": np.float32(register),
    }


def _moods(notes: dict[str, NDArray[Any]], key: int, density: float, register: float, level_db: float) -> list[str]:
    pace, interval = _pace(notes), _interval(notes)
    holds = {
        "slow": pace is not None and pace >= SLOW_SECONDS,
        "fast": pace is not None and pace <= FAST_SECONDS,
        "sparse": density <= SPARSE,
        "dense": density >= DENSE,
        "soft": level_db <= SOFT_DB,
        "loud": level_db >= LOUD_DB,
        "low": register < LOW_PITCH,
        "high": register >= HIGH_PITCH,
        "stepwise": interval is not None and interval <= STEPWISE,
        "leaping": interval is not None and interval >= LEAPING,
        "major": 0 <= key < 12,
        "minor": key >= 12,
        "chromatic": key != UNKNOWN_KEY and _outside(notes, key) >= CHROMATIC,
    }
    return sorted(tag for tag, held in holds.items() if held)


def _genres(notes: dict[str, NDArray[Any]], beats: list[dict[str, Any]], composer: str) -> list[str]:
    onsets = np.rint(notes["onset_seconds"] / _SAME).astype(np.int64)
    parts = len(np.unique(notes["part"]))
    together = len(np.unique(np.stack([notes["part"], onsets]), axis=1).T) / len(np.unique(onsets)) / parts
    downbeats = np.flatnonzero([beat["downbeat"] for beat in beats])
    holds = {
        "solo": parts == 1,
        "polyphonic": parts > 1 and together <= POLYPHONIC,
        "homophonic": parts > 1 and together >= HOMOPHONIC,
        "triple": len(downbeats) > 1 and downbeats[1] - downbeats[0] == 3,
    }
    return sorted({*COLLECTIONS[composer].genres, *(tag for tag, held in holds.items() if held)})


def _pace(notes: dict[str, NDArray[Any]]) -> float | None:
    """Return the median seconds from a note to the next of its part, chords counted once."""
    gaps = [np.diff(_onsets(notes["onset_seconds"][notes["part"] == part])) for part in np.unique(notes["part"])]
    every = np.concatenate(gaps)
    return float(np.median(every)) if every.size else None


def _onsets(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.unique(np.rint(seconds / _SAME)) * _SAME


def _interval(notes: dict[str, NDArray[Any]]) -> float | None:
    """Return the mean interval, in semitones, between successive notes of the part that is highest on average."""
    numbers = np.unique(notes["part"])
    highest = max(numbers, key=lambda part: notes["pitch"][notes["part"] == part].mean())
    mine = notes["part"] == highest
    top: dict[int, int] = {}
    for onset, pitch in zip(np.rint(notes["onset_seconds"][mine] / _SAME), notes["pitch"][mine], strict=True):
        top[int(onset)] = max(top.get(int(onset), 0), int(pitch))
    line = [top[onset] for onset in sorted(top)]
    return float(np.abs(np.diff(line)).mean()) if len(line) > 1 else None


def _outside(notes: dict[str, NDArray[Any]], key: int) -> float:
    """Return the share of the sounding time whose pitch class is not in the key's scale."""
    mode, tonic = divmod(key, 12)
    foreign = [(int(pitch) - tonic) % 12 not in _SCALES[mode] for pitch in notes["pitch"]]
    return float(np.average(foreign, weights=notes["duration_seconds"]))
