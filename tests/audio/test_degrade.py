from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mert_core.audio.degrade import DEFORMATIONS, gain, low_pass, mp3, pitch_shift, stretch, white_noise

SECONDS = 1.5
TIME = np.arange(round(24000 * SECONDS)) / 24000


def tones(*hertz: float) -> NDArray[np.float32]:
    return sum(0.2 * np.sin(2 * np.pi * frequency * TIME) for frequency in hertz).astype(np.float32)  # type: ignore[union-attr]


def music(samples: int = len(TIME), seed: int = 0) -> NDArray[np.float32]:
    """Noise with little above 3 kHz."""
    return low_pass(np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32), 3000.0)


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def power(waveform: NDArray[np.floating]) -> float:
    return float(np.square(waveform, dtype=np.float64).mean())


def peak(waveform: NDArray[np.float32], near_hertz: float) -> tuple[float, float]:
    """Return frequency and amplitude of the strongest sine within a semitone."""
    window = np.hanning(len(waveform))
    spectrum = np.abs(np.fft.rfft(waveform * window, 1 << 19))
    hertz = np.fft.rfftfreq(1 << 19, 1 / 24000)
    near = np.abs(np.log2(np.maximum(hertz, 1) / near_hertz)) < 1 / 12
    return float(hertz[near][spectrum[near].argmax()]), float(2 * spectrum[near].max() / window.sum())


@pytest.mark.parametrize("name", sorted(DEFORMATIONS))
@pytest.mark.parametrize("samples", [1200, 24_001])
def test_length_and_type_stay_and_the_same_seed_gives_the_same_bits(name: str, samples: int) -> None:
    deformation, waveform = DEFORMATIONS[name], music(samples)
    before = waveform.copy()
    for level in deformation.levels:
        found = deformation.apply(waveform, level, 7)
        assert (found.shape, found.dtype) == ((samples,), np.float32)
        assert np.isfinite(found).all()
        assert np.array_equal(found, deformation.apply(waveform, level, 7))
        assert not np.array_equal(found, waveform)
    assert np.array_equal(waveform, before)


@pytest.mark.parametrize("name", ["noise", "mp3", "lowpass"])
def test_levels_go_from_slight_to_strong(name: str) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    lost = [power(DEFORMATIONS[name].apply(waveform, level, 0) - waveform) for level in DEFORMATIONS[name].levels]
    assert lost == sorted(lost)
    assert lost[-1] > 1.2 * lost[0]


def test_noise_has_the_ratio_it_says_and_its_own_seed() -> None:
    waveform = music()
    for snr in DEFORMATIONS["noise"].levels:
        noise = white_noise(waveform, snr, 3) - waveform
        assert decibels(power(waveform) / power(noise)) == pytest.approx(snr, abs=0.01)
    spectrum = np.square(np.abs(np.fft.rfft(white_noise(waveform, 0.0, 3) - waveform)))
    assert spectrum[: len(spectrum) // 2].mean() == pytest.approx(spectrum[len(spectrum) // 2 :].mean(), rel=0.05)
    assert not np.array_equal(white_noise(waveform, 0.0, 3), white_noise(waveform, 0.0, 4))
    assert not white_noise(np.zeros(1000, np.float32), 0.0, 1).any()


def test_gains_and_shifts_grow_and_gain_is_in_decibels() -> None:
    for name in ("gain", "pitch"):
        assert sorted(DEFORMATIONS[name].levels, key=abs) == list(DEFORMATIONS[name].levels)
    assert decibels(power(gain(music(), -24.0)) / power(music())) == pytest.approx(-24.0, abs=1e-4)


@pytest.mark.parametrize("samples", [1200, 24_000, 40_001])
@pytest.mark.parametrize("kbits", [64.0, 40.0, 32.0, 16.0])
def test_mp3_comes_back_without_delay(samples: int, kbits: float) -> None:
    waveform = music(samples)
    coded = mp3(waveform, kbits)
    product = np.fft.irfft(np.fft.rfft(coded, 2 * samples) * np.fft.rfft(waveform, 2 * samples).conj())
    assert int(product.argmax()) == 0
    assert float(np.corrcoef(coded, waveform)[0, 1]) > 0.9
    assert decibels(power(coded) / power(waveform)) == pytest.approx(0, abs=1.5)


def test_low_pass_keeps_what_lies_below_and_nothing_above() -> None:
    for hertz in DEFORMATIONS["lowpass"].levels:
        below, above = tones(hertz * 0.9), tones(hertz * 1.1)
        middle = slice(1000, -1000)
        assert np.abs(low_pass(below, hertz) - below)[middle].max() < 1e-4
        assert np.abs(low_pass(above, hertz))[middle].max() < 1e-4


@pytest.mark.parametrize("semitones", [0.5, 1.0, 4.0, -3.0, 12.0])
def test_a_shifted_chord_is_in_tune_and_as_loud(semitones: float) -> None:
    chord = (220.0, 277.2, 440.0, 1318.5)
    shifted = pitch_shift(tones(*chord), semitones)
    for hertz in chord:
        expected = hertz * 2 ** (semitones / 12)
        frequency, amplitude = peak(shifted, expected)
        assert 1200 * abs(np.log2(frequency / expected)) < 2, "cents"
        assert amplitude == pytest.approx(0.2, rel=0.03)


def test_a_shift_keeps_time() -> None:
    clicks = np.zeros(24000, np.float32)
    for place in (6000, 12000, 18000):
        clicks[place : place + 200] = tones(880.0)[:200] * 4
    shifted = pitch_shift(clicks, 2.0)
    for place in (6000, 12000, 18000):
        centre = place + 100
        around = np.square(shifted[centre - 2000 : centre + 2000])
        assert abs(float(np.average(np.arange(-2000, 2000), weights=around))) < 240, "10 ms"


def test_stretched_by_one_is_the_waveform() -> None:
    waveform = music()
    np.testing.assert_allclose(stretch(waveform, 1.0), waveform, atol=1e-5)
    assert np.array_equal(pitch_shift(waveform, 0.0), waveform)
    assert not pitch_shift(np.zeros(5000, np.float32), 1.0).any()
    assert len(pitch_shift(np.zeros(0, np.float32), 1.0)) == 0


def test_labels_are_for_people() -> None:
    assert [DEFORMATIONS["gain"].label(level) for level in (0.0, -12.0)] == ["clean", "−12 dB"]
    assert DEFORMATIONS["pitch"].label(0.5) == "0.5 semitones"
    assert all(item.clean not in item.levels and item.name == name for name, item in DEFORMATIONS.items())
