"""Keys and beats are what a musician would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mert_core.synth.labels import UNKNOWN_KEY, krumhansl_schmuckler, notated_key, transpose_key
from mert_core.synth.library import Library, corpus_folder
from mert_core.synth.parse import load_piece
from mert_core.synth.performance import draw_performance
from mert_core.synth.pieces import Bar, Candidate, KeySignature, Part, Piece

_SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
_MELODY = (*_SCALE, *_SCALE[::-1], 60, 64, 67, 72, 67, 64, 60, 60)


def _piece(pitches: tuple[int, ...], *keys: KeySignature) -> Piece:
    count = len(pitches)
    part = Part(tuple(map(float, range(count))), (1.0,) * count, pitches)
    bars = tuple(
        Bar(4.0 * index, 4.0, tuple(4.0 * index + beat for beat in range(4)), True) for index in range(count // 4)
    )
    return Piece((part,), bars, keys, 120.0)


@pytest.mark.parametrize("tonic", range(12))
def test_scales_have_their_keys(tonic: int) -> None:
    major, harmonic_minor = np.zeros(12), np.zeros(12)
    major[[0, 2, 4, 5, 7, 9, 11]] = [3, 1, 2, 1, 2, 1, 1]
    harmonic_minor[[0, 2, 3, 5, 7, 8, 11]] = [3, 1, 2, 1, 2, 1, 1]
    assert krumhansl_schmuckler(np.roll(major, tonic)) == tonic
    assert krumhansl_schmuckler(np.roll(harmonic_minor, tonic)) == 12 + tonic


def test_three_pitch_classes_say_nothing() -> None:
    assert krumhansl_schmuckler(np.eye(12)[0] + np.eye(12)[7] + np.eye(12)[4]) == UNKNOWN_KEY


def test_transposition_moves_the_key() -> None:
    assert transpose_key(0, -6) == 6
    assert transpose_key(11, 5) == 4
    assert transpose_key(12, -1) == 23
    assert transpose_key(UNKNOWN_KEY, 3) == UNKNOWN_KEY


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (KeySignature(0.0, 0, None), 0),
        (KeySignature(0.0, 0, "major"), 0),
        (KeySignature(0.0, 0, "minor"), 12 + 9),
        (KeySignature(0.0, 0, "dorian"), UNKNOWN_KEY),
        (KeySignature(0.0, None, None), UNKNOWN_KEY),
    ],
)
def test_signature_and_mode(signature: KeySignature, expected: int) -> None:
    assert notated_key(_piece(_MELODY, signature), 0.0, 8.0) == expected


def test_change_of_signature_makes_the_key_unknown() -> None:
    piece = _piece(_MELODY, KeySignature(0.0, 0, None), KeySignature(8.0, 1, "major"))
    assert notated_key(piece, 0.0, 8.0) == 0
    assert notated_key(piece, 4.0, 9.0) == UNKNOWN_KEY


def test_performed_key_moves_with_the_transposition_and_foreign_notes_undo_it() -> None:
    piece = _piece(_MELODY, KeySignature(0.0, 0, None))
    seen = set()
    for seed in range(60):
        performance = draw_performance(piece, 60.0, np.random.default_rng(seed))
        assert performance.key == performance.transposition % 12
        seen.add(performance.transposition)
    assert seen == set(range(-6, 6))
    wrong = _piece(tuple(pitch + 1 for pitch in _MELODY), KeySignature(0.0, 0, None))
    assert draw_performance(wrong, 60.0, np.random.default_rng(0)).key == UNKNOWN_KEY


def test_excerpt_starts_on_a_downbeat_and_beats_follow_the_tempo(library: Library) -> None:
    performance = draw_performance(_piece(_MELODY, KeySignature(0.0, 0, None)), 5.0, np.random.default_rng(1))
    seconds = np.array([beat for beat, _ in performance.beats])
    assert performance.beats[0] == (0.0, True)
    np.testing.assert_allclose(np.diff(seconds), 60 / performance.quarters_per_minute, rtol=1e-6)
    assert [downbeat for _, downbeat in performance.beats[:5]] == [True, False, False, False, True]
    onsets = [note.onset_seconds for note in performance.parts[0].notes]
    np.testing.assert_allclose(onsets, seconds[: len(onsets)], atol=1e-6)
    for piece in library.pieces:
        beats = draw_performance(piece, 8.0, np.random.default_rng(2)).beats
        assert all(0 <= beat < 8.0 for beat, _ in beats)
        assert any(downbeat for _, downbeat in beats)


def test_known_keys_of_known_chorales(tmp_path: Path) -> None:
    for name, expected in (("bach/bwv66.6.mxl", 12 + 6), ("bach/bwv253.mxl", 9)):
        path = corpus_folder() / name
        piece = load_piece(Candidate(name, "bach", name, path.suffix, 0, str(path)), tmp_path)
        assert notated_key(piece, 0.0, piece.length) == expected, name
