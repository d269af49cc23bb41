"""What performers and techniques do to a line can be measured in its sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.data.track import SourceTrack
from mert_core.synth.phrases import PERFORMERS, TECHNIQUES, LineNote, Performer, brighten, play_note, single_line
from mert_core.synth.pieces import Part
from mert_core.synth.render import Expression, PlayedNote, PlayedPart, mix_mono, render_stems

RATE = 24000
PLAIN = Performer("plain", 71, 0.0, 0.0, -20.0, 0.0, 0.0, 5.5, 50.0)  # a clarinet, whose sample is steady
NOTE = LineNote(onset_seconds=0.0, duration_seconds=1.0, pitch=72, velocity=90, from_cents=-700.0)


def _sound(notes: list[PlayedNote], seconds: float = 1.0) -> NDArray[np.float32]:
    return mix_mono(render_stems([PlayedPart(tuple(notes), PLAIN.program, 1.0, 0.0)], int(RATE * seconds)))


def _hertz(wave: NDArray[np.float32], near: float) -> float:
    """Return the strongest frequency within a third of an octave and a bit of a guess."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size), 8 * RATE))
    low, high = int(near * 0.6 * 8), int(near * 1.3 * 8)
    return (low + int(np.argmax(spectrum[low:high]))) / 8


def _loudness(wave: NDArray[np.float32], pieces: int = 20) -> NDArray[np.float64]:
    return np.sqrt(np.mean(wave.astype(np.float64).reshape(pieces, -1) ** 2, axis=1))


def _play(technique: str, performer: Performer = PLAIN) -> list[PlayedNote]:
    return play_note(technique, NOTE, performer, np.random.default_rng(0))


def test_no_expression_and_an_empty_one_sound_the_same() -> None:
    plain = PlayedNote(0.0, 0.8, 72, 90)
    np.testing.assert_allclose(_sound([replace(plain, expression=Expression())]), _sound([plain]), atol=1e-6)


@pytest.mark.parametrize("cents", [-40.0, 25.0, 60.0])
def test_tuning_moves_the_pitch(cents: float) -> None:
    in_tune, moved = (
        _hertz(_sound([PlayedNote(0.0, 1.0, 72, 90, Expression(tuning_cents=value))])[2400:], 523.25)
        for value in (0.0, cents)
    )
    assert 1200 * np.log2(moved / in_tune) == pytest.approx(cents, abs=3)


def test_slide_begins_at_the_note_before_and_arrives() -> None:
    (note,) = _play("slide")
    assert note.expression is not None
    bend = note.expression.cents(RATE)
    assert bend[0] == -700 and np.all(np.diff(bend) >= 0)
    arrives = int(note.expression.slide_seconds * RATE)
    assert not bend[arrives + 1 :].any() and bend[arrives - 100] < 0
    wave = _sound([note])
    assert _hertz(wave[:1200], 400.0) < 450 < _hertz(wave[8000:], 523.25)


def test_vibrato_swings_as_fast_and_as_far_as_the_performer_does() -> None:
    (note,) = _play("vibrato")
    assert note.expression is not None
    bend = note.expression.cents(RATE)[RATE // 5 :]
    assert bend.max() == pytest.approx(50, abs=0.5) and bend.min() == pytest.approx(-50, abs=0.5)
    crossings = np.count_nonzero(np.diff(np.sign(bend)) > 0)
    assert crossings == pytest.approx(0.8 * 5.5, abs=1)
    steady, swinging = (np.abs(np.fft.rfft(_sound(_play(name))[4800:16800])) for name in ("legato", "vibrato"))
    centre = round(523.25 / 2)
    beside = np.r_[centre - 12 : centre - 3, centre + 4 : centre + 13]
    assert swinging[beside].sum() / swinging[centre] > 2 * steady[beside].sum() / steady[centre]


def test_loudness_of_swell_accent_and_staccato() -> None:
    legato, swell, accent, staccato = (
        _loudness(_sound(_play(name))) for name in ("legato", "swell", "accent", "staccato")
    )
    assert legato[3:18].max() < 2 * legato[3:18].min()
    assert 8 <= swell.argmax() <= 11 and swell[0] < 0.2 * swell.max() and swell[-1] < 0.2 * swell.max()
    assert accent.argmax() <= 2 and accent[-1] < 0.3 * accent.max()
    assert staccato[16:].max() < 0.02 * staccato.max()


def test_tremolo_repeats_and_trill_alternates() -> None:
    for technique, pitches in (("tremolo", {72}), ("trill", {72, 74})):
        notes = _play(technique)
        assert 10 <= len(notes) <= 13
        onsets = [note.onset_seconds for note in notes]
        np.testing.assert_allclose(np.diff(onsets), 1 / len(notes))
        assert {note.pitch for note in notes} == pitches
        assert all(a.pitch != b.pitch or technique == "tremolo" for a, b in pairwise(notes))
        assert onsets[-1] + notes[-1].duration_seconds <= 1.0


def test_soft_attack_rises() -> None:
    (hard,), (soft,) = _play("legato"), _play("legato", replace(PLAIN, attack_seconds=0.2))
    assert _loudness(_sound([soft]))[0] < 0.3 * _loudness(_sound([hard]))[0]
    np.testing.assert_allclose(_sound([soft])[6000:], _sound([hard])[6000:], atol=1e-6)


@pytest.mark.parametrize("brightness_db", [-6.0, 4.0])
def test_colour_changes_what_is_high_and_nothing_low(brightness_db: float) -> None:
    time = np.arange(RATE) / RATE
    for hertz, expected in ((500.0, 0.0), (8000.0, brightness_db)):
        tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
        change = 20 * np.log10(np.std(brighten(tone, brightness_db)) / np.std(tone))
        assert change == pytest.approx(expected, abs=0.01)


def test_line_is_the_top_of_chords_and_never_overlaps() -> None:
    line = single_line(Part((0.0, 0.0, 1.0, 3.0), (2.0, 4.0, 1.0, 1.0), (60, 64, 62, 55)))
    assert line == Part((0.0, 1.0, 3.0), (1.0, 1.0, 1.0), (64, 62, 55))


def test_phrases_have_all_performers_and_techniques_in_turn(of_kind: Callable[[str], list[SourceTrack]]) -> None:
    phrases = [item for item in of_kind("phrase") if item.split == "train"]
    seen = defaultdict(set)
    programs = {one.name: one.program for one in PERFORMERS}
    for phrase in phrases:
        assert phrase.labels and phrase.notes
        seen[phrase.labels["performer"]].add(phrase.labels["technique"])
        assert {note["program"] for note in phrase.notes} == {programs[phrase.labels["performer"]]}
        assert len(phrase.notes) >= 4
    assert {name: len(techniques) for name, techniques in seen.items()} == dict.fromkeys(programs, 2)
    assert set().union(*seen.values()) == set(TECHNIQUES)
    held_out = [one for one in PERFORMERS if one.held_out]
    assert 0 < len(held_out) < len(PERFORMERS) / 2
    assert {one.program for one in held_out} - {one.program for one in PERFORMERS if not one.held_out}
