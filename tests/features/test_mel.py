"""Log-mel spectrum and chroma against what their definitions say of simple sounds."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from mert_core.features.cqt import ConstantQ
from mert_core.features.mel import LogMel, chroma
from tests.features.test_cqt import sine


def test_log_mel_agrees_with_librosa() -> None:
    waveform = torch.randn(24000, generator=torch.Generator().manual_seed(0)) * 0.1
    magnitudes = np.abs(librosa.stft(waveform.numpy(), n_fft=2048, hop_length=320, pad_mode="constant"))
    expected = np.log1p(100 * librosa.filters.mel(sr=24000, n_fft=2048, n_mels=128) @ magnitudes).T
    found = LogMel()(waveform[None])[0].numpy()
    assert found.shape == (76, 128)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_log_mel_of_silence_is_zero() -> None:
    assert LogMel()(torch.zeros(2, 3200)).abs().max() == 0


@pytest.mark.parametrize("hertz", [110.0, 220.0, 440.0, 880.0])
def test_chroma_forgets_the_octave(hertz: float) -> None:
    middle = chroma(ConstantQ()(sine(hertz, seconds=3.0)))[0, 100]
    assert middle.shape == (48,)
    assert int(middle.argmax()) == 36  # A, 21 semitones of four bins above C1 at 32.7 Hz


def test_chroma_forgets_the_level_but_not_silence() -> None:
    cqt = ConstantQ()(torch.cat([sine(261.63, amplitude=0.2, seconds=3.0), torch.zeros(1, 72000)]))
    folded = chroma(cqt)
    assert folded[0, 100].square().mean().item() == pytest.approx(1.0, rel=0.05)
    assert folded[1].abs().max() == 0
