"""Keys and beats are what a musician would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mert_core.synth.labels import UNKNOWN_KEY, krumhansl_schmuckler, notated_key, transpose_key
from mert_core.synth.library import Library, corpus_folder
from mert_core.synth.performance import draw_performance
from mert_core.synth.pieces import Candidate, KeySignature, load_piece
from tests.synth.conftest import line_piece

_SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
_MELODY = (*_SCALE, *_SCALE[::-1], 60, 64, 67, 72, 67, 64, 60, 60)


@pytest.mark.parametrize("tonic", range(12))
def test_scales_have_their_keys(tonic: int) -> None:
    for first, steps in ((0, [0, 2, 4, 5, 7, 9, 11]), (12, [0, 2, 3, 5, 7, 8, 11])):  # major, harmonic minor
        times = np.zeros(12)
        times[steps] = [3, 1, 2, 1, 2, 1, 1]
        assert krumhansl_schmuckler(np.roll(times, tonic)) == first + tonic


def test_three_pitch_classes_say_nothing() -> None:
    assert krumhansl_schmuckler(np.eye(12)[0] + np.eye(12)[7] + np.eye(12)[4]) == UNKNOWN_KEY


@pytest.mark.parametrize(
    ("key", "semitones", "moved"), [(0, -6, 6), (11, 5, 4), (12, -1, 23), (UNKNOWN_KEY, 3, UNKNOWN_KEY)]
)
def test_transposition_moves_the_key(key: int, semitones: int, moved: int) -> None:
    assert transpose_key(key, semitones) == moved


@pytest.mark.parametrize(
    ("sharps", "mode", "expected"),
    [(0, None, 0), (0, "major", 0), (0, "minor", 12 + 9), (0, "dorian", UNKNOWN_KEY), (None, None, UNKNOWN_KEY)],
)
def test_signature_and_mode(sharps: int | None, mode: str | None, expected: int) -> None:
    assert notated_key(line_piece(_MELODY, KeySignature(0.0, sharps, mode)), 0.0, 8.0) == expected


def test_change_of_signature_makes_the_key_unknown() -> None:
    piece = line_piece(_MELODY, KeySignature(0.0, 0, None), KeySignature(8.0, 1, "major"))
    assert notated_key(piece, 0.0, 8.0) == 0
    assert notated_key(piece, 4.0, 9.0) == UNKNOWN_KEY


def test_performed_key_moves_with_the_transposition_and_foreign_notes_undo_it() -> None:
    performances = [draw_performance(line_piece(_MELODY), 60.0, np.random.default_rng(seed)) for seed in range(60)]
    assert all(performance.key == performance.transposition % 12 for performance in performances)
    assert {performance.transposition for performance in performances} == set(range(-6, 6))
    wrong = line_piece(tuple(pitch + 1 for pitch in _MELODY))
    assert draw_performance(wrong, 60.0, np.random.default_rng(0)).key == UNKNOWN_KEY


def test_excerpt_starts_on_a_downbeat_and_beats_follow_the_tempo(library: Library) -> None:
    performance = draw_performance(line_piece(_MELODY), 5.0, np.random.default_rng(1))
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


@pytest.mark.parametrize(("name", "expected"), [("bach/bwv66.6.mxl", 12 + 6), ("bach/bwv253.mxl", 9)])
def test_known_keys_of_known_chorales(name: str, expected: int, tmp_path: Path) -> None:
    piece = load_piece(Candidate(name, "bach", name, 0, corpus_folder() / name), tmp_path)
    assert notated_key(piece, 0.0, piece.length) == expected
