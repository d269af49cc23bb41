"""Separation of whole tracks with trained heads, and its signal-to-distortion ratios (SDR)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from openunmix.model import Separator
from torch import Tensor, nn

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.probing.features import Standardized
from mert_core.probing.separation.data import Mixture, StoredTrack, nearest_rows
from mert_core.probing.separation.model import FFT_SAMPLES, SeparationHead, frame_count

Stems = NDArray[np.floating]

WIENER_STEPS = 1  # MARBLE's and Open-Unmix's


def _decibels(signal: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal > 0, 10 * np.log10(signal / error), np.nan)


def global_sdr(truth: Stems, estimate: Stems) -> NDArray[np.float64]:
    """Return 10·log10 of the energy of each stem by that of its error, over the whole track and all channels (stems,).

    True and estimated stems are (stems, channels, samples). NaN for a stem that is silent, which has no ratio.
    """
    signal = np.square(truth, dtype=np.float64).sum(axis=(1, 2))
    return _decibels(signal, np.square(truth - estimate, dtype=np.float64).sum(axis=(1, 2)))


def museval_sdr(truth: Stems, estimate: Stems, window_samples: int = SAMPLE_RATE) -> NDArray[np.float64]:
    """Return the median over windows of 1 s of each stem's SDR by BSS Eval version 4 (stems,).

    museval's SDR of images compares an estimate with the true stem itself: its three errors (spatial, interference,
    artefacts), each found with filters of 512 samples, add up to the difference. So neither filters nor the package,
    which needs ffmpeg to be imported, are needed. A window in which any true or estimated stem is silent does not
    count, nor does what is left after the last whole window; NaN if none counts, or if a whole true stem is silent.

    True and estimated stems are (stems, channels, samples). Windows do not overlap.
    """
    samples = truth.shape[-1]
    window = min(window_samples, samples)
    used = samples // window * window

    def windows(stems: Stems) -> Stems:
        return stems[..., :used].reshape(*stems.shape[:2], -1, window)

    # museval's silence is a sum of channels that is 0 everywhere
    silent = [(windows(stems).sum(axis=1) == 0).all(axis=-1) for stems in (truth, estimate)]
    signal = np.square(windows(truth), dtype=np.float64).sum(axis=(1, 3))
    ratios = _decibels(signal, np.square(windows(truth - estimate), dtype=np.float64).sum(axis=(1, 3)))
    counts = ~(silent[0] | silent[1]).any(axis=0)
    if not counts.any() or (truth.sum(axis=1) == 0).all(axis=-1).any():
        return np.full(len(truth), np.nan)
    return np.nanmedian(ratios[:, counts], axis=1)


def window_features(
    mixtures: Sequence[Mixture], features: Standardized, offsets: NDArray[np.int64], frame_rate: float
) -> list[Tensor]:
    """Return what a head reads of each window of a track, (inputs, 1, frames, width); together all of the spectrum.

    Args:
        mixtures: the track's windows side by side, see `mert_core.probing.separation.data.windows_of_track`.
        features: standardized features of the windows' rows.
        offsets: rows of window i are offsets[i]:offsets[i + 1].
        frame_rate: embedded frames per second.
    """
    bounds = np.cumsum([0, *(mixture.samples for mixture in mixtures)])
    frames = np.arange(frame_count(int(bounds[-1])))
    window_of = np.minimum(np.searchsorted(bounds, frames * HOP_SAMPLES, side="right") - 1, len(bounds) - 2)
    windows = []
    for window, (first, end) in enumerate(pairwise(offsets)):
        samples = frames[window_of == window] * HOP_SAMPLES - bounds[window]
        windows.append(features.take(first + nearest_rows(samples, int(end - first), frame_rate))[:, None])
    return windows


class _StemModel(nn.Module):
    """A head together with the features of one track: `openunmix.model.Separator`'s model of one stem."""

    def __init__(self, head: SeparationHead, windows: Sequence[Tensor]) -> None:
        super().__init__()
        self.head, self.windows = head, windows

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Return the stem's magnitudes from the mixture's, both (1, channels, bins, frames)."""
        mask = torch.cat([self.head(window) for window in self.windows], dim=1)
        return mask.permute(0, 2, 3, 1) * magnitudes


@torch.no_grad()
def separate(heads: Sequence[SeparationHead], windows: Sequence[Tensor], mixture: Tensor) -> NDArray[np.float32]:
    """Separate one track as Open-Unmix does: masks, then one step of its multichannel Wiener filter.

    Args:
        heads: trained heads, one per stem.
        windows: features of the track, see `window_features`.
        mixture: waveform (channels, samples).

    Returns:
        The stems (stems, channels, samples).
    """
    models = {str(number): _StemModel(head, windows) for number, head in enumerate(heads)}
    separator = Separator(
        models, WIENER_STEPS, sample_rate=SAMPLE_RATE, n_fft=FFT_SAMPLES, n_hop=HOP_SAMPLES, nb_channels=len(mixture)
    )
    # The filter inverts covariances of the channels, for which the package advises double precision. Those of one
    # channel are numbers, which single precision inverts as well, in half of the time.
    mixture = mixture if len(mixture) == 1 else mixture.double()
    # The heads stay as they are: `Module.to` touches an LSTM's list of weights, which other threads read.
    for transform in (separator.stft, separator.istft):
        transform.to(mixture.device, mixture.dtype)
    return separator(mixture[None])[0].float().cpu().numpy()


def track_ratios(
    ensembles: Sequence[Sequence[SeparationHead]], windows: Sequence[Tensor], track: StoredTrack, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return the SDR of one track, of the whole and by museval, in dB (2, ensembles, stems).

    Args:
        ensembles: heads for all stems, in their order; one ensemble per seed.
        windows: features of the track, see `window_features`.
        track: mixture and true stems.
        device: where heads and filter run.
    """
    sounds = np.asarray(track.array())
    mixture = torch.from_numpy(sounds[0].copy()).to(device)
    estimates = [separate(heads, windows, mixture) for heads in ensembles]
    return np.stack([[ratio(sounds[1:], estimate) for estimate in estimates] for ratio in (global_sdr, museval_sdr)])
