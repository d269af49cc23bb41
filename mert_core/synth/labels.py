"""True labels of performed scores: key, beats, families.

A key is a number: 0-11 the major keys from C to B, 12-23 the minor ones, -1 unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mert_core.synth.pieces import Part, Piece

UNKNOWN_KEY = -1

# Krumhansl and Kessler's probe-tone ratings, from the tonic on.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_FEWEST_PITCH_CLASSES = 4  # fewer fit several keys equally well


_PROFILES = np.array([np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)])
_PROFILES -= _PROFILES.mean(axis=1, keepdims=True)
_PROFILES /= np.linalg.norm(_PROFILES, axis=1, keepdims=True)


def krumhansl_schmuckler(pitch_classes: NDArray[np.float64], candidates: Iterable[int] = range(24)) -> int:
    """Return the candidate whose profile correlates best with the time, (12,) from C on, that pitch classes sound."""
    if np.count_nonzero(pitch_classes) < _FEWEST_PITCH_CLASSES:
        return UNKNOWN_KEY
    scores = (_PROFILES * (pitch_classes - pitch_classes.mean())).sum(axis=1).round(9)
    return max(candidates, key=lambda key: (scores[key], -key))


def pitch_class_times(parts: Iterable[Part]) -> NDArray[np.float64]:
    """Return how many quarter notes each pitch class sounds in all parts together, (12,) from C on."""
    times = np.zeros(12)
    for part in parts:
        times += np.bincount(np.array(part.pitches) % 12, weights=part.durations, minlength=12)
    return times


def notated_key(piece: Piece, start: float, end: float) -> int:
    """Return the key that the score gives between two onsets (quarter notes), untransposed.

    The signature leaves a major key and its relative minor. A written minor is believed; a written major is not,
    because many programs write it under every signature: the whole piece decides by Krumhansl and Schmuckler's
    method. Unknown when the signature changes inside, the parts' signatures differ, or a church mode is written.
    """
    first = max((number for number, signature in enumerate(piece.keys) if signature.onset <= start), default=0)
    distinct = {(signature.sharps, signature.mode) for signature in piece.keys[first:] if signature.onset < end}
    sharps, mode = distinct.pop()
    if distinct or sharps is None or mode not in ("major", "minor", None):
        return UNKNOWN_KEY
    major = 7 * sharps % 12
    minor = 12 + (major + 9) % 12
    return minor if mode == "minor" else krumhansl_schmuckler(pitch_class_times(piece.parts), (major, minor))


def transpose_key(key: int, semitones: int) -> int:
    """Move a key with the music."""
    return key if key == UNKNOWN_KEY else key // 12 * 12 + (key + semitones) % 12
