"""The constant-Q transforms that people have, with MERT's settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.features.cqt import BINS_PER_OCTAVE, CQT_BINS, MIN_HERTZ

_SETTINGS: dict[str, Any] = {
    "sr": SAMPLE_RATE,
    "hop_length": HOP_SAMPLES,
    "fmin": MIN_HERTZ,
    "n_bins": CQT_BINS,
    "bins_per_octave": BINS_PER_OCTAVE,
    "norm": 1,
    "window": "hann",
    "pad_mode": "constant",
}


def nnaudio() -> nn.Module:
    """Return nnAudio's ``CQT1992v2``: (batch, samples) → (batch, 336, frames)."""
    from nnAudio.features.cqt import CQT1992v2

    return CQT1992v2(**_SETTINGS, center=True, trainable=False, verbose=False)


def librosa_cqt(waveform: np.ndarray) -> np.ndarray:
    """Return the magnitudes of librosa's ``cqt``: float32 (samples,) → (336, frames)."""
    import librosa

    return np.abs(librosa.cqt(waveform, **_SETTINGS, scale=True))
