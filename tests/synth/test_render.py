"""The sampler: in tune, linear, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.synth.instruments import FAMILIES, INSTRUMENTS, Instrument
from mert_core.synth.render import PlayedNote, PlayedPart, SoundFont, load_soundfont, mix_mono, render_stems

RATE = 24000


def _one(program: int, pitch: int, velocity: int = 90, seconds: float = 1.0) -> NDArray[np.float32]:
    part = PlayedPart((PlayedNote(0.0, seconds, pitch, velocity),), program, 1.0, 0.0)
    return mix_mono(render_stems([part], int(RATE * (seconds + 1))))


def _strength(spectrum: NDArray[np.float64], fundamental: float) -> float:
    """Return the sum of the magnitudes at the first harmonics; ``spectrum`` has bins of 1/8 Hz."""
    total = 0.0
    for harmonic in range(1, 8):
        at, reach = round(fundamental * harmonic * 8), max(3, int(fundamental * harmonic * 0.03))
        if fundamental * harmonic < 10000:
            total += float(spectrum[at - reach : at + reach + 1].max()) * harmonic**-0.3
    return total


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda one: f"{one.program}-{one.family}")
def test_every_instrument_is_in_tune_and_audible_over_its_range(instrument: Instrument) -> None:
    for pitch in {instrument.lowest, (instrument.lowest + instrument.highest) // 2, instrument.highest}:
        wave = _one(instrument.program, pitch, seconds=0.8)[1200:18000]
        assert np.sqrt(np.mean(wave**2)) > 0.002, pitch
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size), 8 * RATE))
        wanted = 440 * 2 ** ((pitch - 69) / 12)
        detunings = np.arange(-6, 6.01, 0.5)
        best = max(detunings, key=lambda step: _strength(spectrum, wanted * 2 ** (step / 12)))
        assert best == 0, f"program {instrument.program} plays {pitch} {best:+g} semitones off"


def test_mix_is_the_sum_of_its_stems_and_of_its_notes() -> None:
    chord = tuple(PlayedNote(0.1 * index, 0.5, 55 + 4 * index, 60 + 10 * index) for index in range(4))
    parts = [PlayedPart(chord, program, 0.5, pan) for program, pan in ((0, -0.5), (40, 0.5), (56, 0.0))]
    together = render_stems(parts, RATE)
    assert together.shape == (3, 2, RATE)
    for stem, part in zip(together, parts, strict=True):
        np.testing.assert_array_equal(stem, render_stems([part], RATE)[0])
        alone = [render_stems([PlayedPart((note,), part.program, part.gain, part.pan)], RATE)[0] for note in chord]
        np.testing.assert_allclose(stem, sum(alone), atol=1e-6)
    np.testing.assert_allclose(mix_mono(together), together.sum(axis=0).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(together, render_stems(parts, RATE))


def test_velocity_gain_and_pan() -> None:
    soft, loud = _one(0, 60, velocity=40), _one(0, 60, velocity=80)
    assert np.sqrt(np.mean(loud**2) / np.mean(soft**2)) == pytest.approx(4.0, rel=1e-3)
    note = (PlayedNote(0.0, 0.5, 60, 90),)
    left, right = render_stems([PlayedPart(note, 73, 1.0, -1.0)], RATE)[0]
    assert np.abs(right).max() < 1e-6 < np.abs(left).max()


def test_note_ends_softly_and_stays_ended() -> None:
    wave = _one(40, 67, seconds=0.5)
    end = int(0.5 * RATE)
    assert np.sqrt(np.mean(wave[end - 2400 : end] ** 2)) > 10 * np.sqrt(np.mean(wave[end + 9600 :] ** 2))
    assert np.abs(np.diff(wave[end - 10 :])).max() <= np.abs(np.diff(wave[:end])).max()
    assert not wave[int(1.2 * RATE) :].any()


def test_excerpt_cuts_a_long_note() -> None:
    part = PlayedPart((PlayedNote(0.5, 9.0, 60, 90), PlayedNote(2.0, 1.0, 60, 90)), 19, 1.0, 0.0)
    wave = mix_mono(render_stems([part], RATE))
    assert wave.shape == (RATE,)
    assert not wave[: RATE // 2].any()
    assert wave[-200:].any()


def test_all_programs_have_zones_for_their_range() -> None:
    font = load_soundfont()
    for programs in FAMILIES.values():
        for program, (lowest, highest) in programs.items():
            covered = {key for zone in font.zones(program) for key in range(zone.keys[0], zone.keys[1] + 1)}
            assert set(range(lowest, highest + 1)) <= covered, program


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "not.sf2"
    path.write_bytes(b"RIFF\0\0\0\0WAVE")
    with pytest.raises(MertError, match="not a SoundFont"):
        SoundFont(path)
