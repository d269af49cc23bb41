"""Features to cluster, against the libraries that define them."""

from __future__ import annotations

import librosa
import numpy as np
import torch
import torchaudio

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.features.mfcc_chroma import CHROMA_FFT_SAMPLES, Cepstrum, FineChroma, pitch_class_bank, slopes


def noise(samples: int = 24_000) -> torch.Tensor:
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def test_pitch_classes_are_librosas() -> None:
    for classes, fft_samples in ((264, CHROMA_FFT_SAMPLES), (12, 1024)):
        theirs = librosa.filters.chroma(sr=SAMPLE_RATE, n_fft=fft_samples, n_chroma=classes, tuning=0, dtype=np.float64)
        assert np.allclose(pitch_class_bank(classes, fft_samples).numpy().T, theirs, atol=1e-11)


def test_chroma_is_librosas() -> None:
    waveform = noise()
    theirs = librosa.feature.chroma_stft(
        y=waveform[0].numpy().astype(np.float64),
        sr=SAMPLE_RATE,
        n_fft=CHROMA_FFT_SAMPLES,
        hop_length=HOP_SAMPLES,
        n_chroma=264,
        tuning=0,
    )
    assert np.allclose(FineChroma(264)(waveform)[0].numpy().T, theirs, atol=1e-3)  # the floor


def test_a_tone_sounds_in_its_pitch_class_whatever_its_octave() -> None:
    time = torch.arange(24_000) / SAMPLE_RATE
    for hertz in (220.0, 440.0, 1760.0):
        chroma = FineChroma(264)(0.2 * torch.sin(2 * torch.pi * hertz * time)[None])[0, 40]
        assert abs(int(chroma.argmax()) - 9 * 22) <= 6  # A, from C, 22 to a semitone


def test_cepstrum_is_torchaudios() -> None:
    reference = torchaudio.transforms.MFCC(
        SAMPLE_RATE,
        13,
        log_mels=True,
        melkwargs={
            "n_fft": 1024,
            "win_length": 600,
            "hop_length": HOP_SAMPLES,
            "n_mels": 23,
            "f_min": 20.0,
            "pad_mode": "constant",
        },
    ).double()
    mine, theirs = Cepstrum(13)(noise()), reference(noise().double()).transpose(1, 2)
    assert torch.allclose(mine[..., 1:], theirs[..., 1:], atol=1e-2)
    level = mine[..., 0] - theirs[..., 0]  # another unit of power
    assert torch.allclose(level, level.mean().expand_as(level), atol=1e-2)


def test_slopes_of_a_ramp_are_its_steepness_and_of_one_frame_nothing() -> None:
    ramp = torch.arange(30, dtype=torch.float64)[None, :, None] * torch.tensor([1.0, -2.0])
    assert torch.allclose(slopes(ramp)[:, 2:-2], torch.tensor([1.0, -2.0], dtype=torch.float64))
    assert torch.equal(slopes(ramp[:, :1]), torch.zeros(1, 1, 2, dtype=torch.float64))
