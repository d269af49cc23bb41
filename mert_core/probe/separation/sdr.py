"""Signal-to-distortion ratio of separated stems, in decibels: of whole tracks, and as museval has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE

Stems = NDArray[np.floating]


def _decibels(signal: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal > 0, 10 * np.log10(signal / error), np.nan)


def global_sdr(truth: Stems, estimate: Stems) -> NDArray[np.float64]:
    """Return 10·log10 of the energy of each stem by that of its error, over the whole track and all channels (stems,).

    NaN for a stem that is silent, which has no ratio.

    Args:
        truth: (stems, channels, samples).
        estimate: the same.
    """
    signal = np.square(truth, dtype=np.float64).sum(axis=(1, 2))
    return _decibels(signal, np.square(truth - estimate, dtype=np.float64).sum(axis=(1, 2)))


def museval_sdr(truth: Stems, estimate: Stems, window_samples: int = SAMPLE_RATE) -> NDArray[np.float64]:
    """Return the median over windows of 1 s of each stem's SDR by BSS Eval version 4 (stems,).

    museval's SDR of images compares an estimate with the true stem itself: its three errors (spatial, interference,
    artefacts), each found with filters of 512 samples, add up to the difference. So neither filters nor the package,
    which needs ffmpeg to be imported, are needed. A window in which any true or estimated stem is silent does not
    count, nor does what is left after the last whole window; NaN if none counts, or if a whole true stem is silent.

    Args:
        truth: (stems, channels, samples).
        estimate: the same.
        window_samples: length of a window; they do not overlap.
    """
    samples = truth.shape[-1]
    window = min(window_samples, samples)
    used = samples // window * window

    def windows(stems: Stems) -> Stems:
        return stems[..., :used].reshape(*stems.shape[:2], -1, window)

    # museval's silence is a sum of channels that is 0 everywhere
    silent = [(windows(stems).sum(axis=1) == 0).all(axis=-1) for stems in (truth, estimate)]
    signal = np.square(windows(truth), dtype=np.float64).sum(axis=(1, 3))
    found = _decibels(signal, np.square(windows(truth - estimate), dtype=np.float64).sum(axis=(1, 3)))
    counts = ~(silent[0] | silent[1]).any(axis=0)
    if not counts.any() or (truth.sum(axis=1) == 0).all(axis=-1).any():
        return np.full(len(truth), np.nan)
    return np.nanmedian(found[:, counts], axis=1)
