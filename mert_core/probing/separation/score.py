"""Separating whole tracks with trained networks, and how well it goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.probing.features import Standardized
from mert_core.probing.separation.data import StoredTrack, nearest_rows
from mert_core.probing.separation.model import BINS, SeparatorWeights, frames_of, magnitude, spectrum, waveform_of

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


SCALE, EPSILON = 10.0, 1e-10
"""Open-Unmix's: what the loudest cell is scaled to, and what keeps silent ones from a division by nothing."""
WINDOW_FRAMES = 300
"""Spatial covariances are of so many frames, Open-Unmix's number."""


def filtered(magnitudes: Tensor, mixture: Tensor, iterations: int = 1) -> Tensor:
    """Share the mixture among stems.

    Each stem begins as its magnitude with the mixture's phase. A step then estimates each stem's power per frame and
    covariance of the channels, and gives it its share of the mixture; there is no residual, so the stems' sum is the
    mixture. Without steps it is only where the magnitudes' sum is.

    Args:
        magnitudes: estimates (stems, channels, frames, bins).
        mixture: complex spectrum (channels, frames, bins).
        iterations: steps; MARBLE's and Open-Unmix's 1.

    Returns:
        Complex spectra (stems, channels, frames, bins). The package computes in double precision, as it advises; one
        channel, which needs no covariance, takes the same step in closed form and the input's precision.
    """
    if len(mixture) == 1 and iterations == 1:
        return torch.cat(
            [
                _one_channel(*window)
                for window in zip(
                    magnitudes.split(WINDOW_FRAMES, dim=2), mixture.split(WINDOW_FRAMES, dim=1), strict=True
                )
            ],
            dim=2,
        )
    from openunmix.filtering import wiener

    parts = torch.view_as_real(mixture).permute(1, 2, 0, 3).double()
    asked = magnitudes.permute(2, 3, 1, 0).double()
    found = [
        wiener(asked[start : start + WINDOW_FRAMES], parts[start : start + WINDOW_FRAMES], iterations)
        for start in range(0, len(parts), WINDOW_FRAMES)
    ]
    return torch.view_as_complex(torch.cat(found).permute(4, 2, 0, 1, 3).to(mixture.real.dtype).contiguous())


def _one_channel(magnitudes: Tensor, mixture: Tensor) -> Tensor:
    """Return what `openunmix` returns for one step on one channel, where covariances are numbers; twenty times faster.

    Args:
        magnitudes: (stems, 1, frames, bins).
        mixture: (1, frames, bins).
    """
    loudest = max(1.0, float(mixture.abs().max()) / SCALE)
    power = (magnitudes / loudest).square()
    total = power.sum(dim=2, keepdim=True)
    share = power * (total / (total + EPSILON))
    return share / (share.sum(dim=0) + EPSILON**0.5) * mixture


class TrackFeatures:
    """A track's embeddings, window by window.

    Args:
        features: of the windows' rows; standardised.
        offsets: rows of window i are offsets[i]:offsets[i + 1].
        bounds: first sample of each window, and the track's end (windows + 1,).
        frame_rate: embedded frames per second.
    """

    def __init__(
        self, features: Standardized, offsets: NDArray[np.int64], bounds: NDArray[np.int64], frame_rate: float
    ) -> None:
        self._features, self._offsets, self._bounds, self._frame_rate = features, offsets, bounds, frame_rate

    def windows(self) -> list[Tensor]:
        """Return what a network is shown of each window, (inputs, 1, frames, width); together all of the spectrum."""
        frames = np.arange(frames_of(int(self._bounds[-1])))
        window_of = np.minimum(
            np.searchsorted(self._bounds, frames * HOP_SAMPLES, side="right") - 1, len(self._bounds) - 2
        )
        found = []
        for window, first in enumerate(self._offsets[:-1]):
            places = frames[window_of == window] * HOP_SAMPLES - self._bounds[window]
            rows = first + nearest_rows(places, int(self._offsets[window + 1] - first), self._frame_rate)
            found.append(self._features.take(rows)[:, None])
        return found


@torch.no_grad()
def separated(
    heads: SeparatorWeights,
    ensembles: Sequence[Sequence[int]],
    windows: Sequence[Tensor],
    mixture: Tensor,
    iterations: int = 1,
) -> list[NDArray[np.float32]]:
    """Separate one track.

    Args:
        heads: trained networks.
        ensembles: of each, positions of the networks for the stems, in order.
        windows: see `TrackFeatures.windows`.
        mixture: waveform (channels, samples).
        iterations: of the Wiener step.

    Returns:
        Of each ensemble the stems (stems, channels, samples).
    """
    mixed = spectrum(mixture)
    levels = magnitude(mixed).transpose(0, 1).flatten(1)
    hidden = torch.cat([heads.hidden([window], [len(heads)]) for window in windows], dim=1)
    found = []
    for ensemble in ensembles:
        asked = torch.stack([heads.last(network).mask(hidden[network]).mul_(levels) for network in ensemble])
        by_channel = asked.view(len(ensemble), len(levels), len(mixture), BINS).transpose(1, 2)
        stems = filtered(by_channel, mixed, iterations)
        found.append(waveform_of(stems, mixture.shape[-1]).cpu().numpy())
    return found


def track_ratios(
    heads: SeparatorWeights,
    ensembles: Sequence[Sequence[int]],
    features: TrackFeatures,
    track: StoredTrack,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Return SDR of whole track and by museval of each ensemble's stems, (2, ensembles, stems); see `sdr`."""
    sounds = np.asarray(track.array())
    mixture = torch.from_numpy(sounds[0].copy()).to(device)
    estimates = separated(heads, ensembles, features.windows(), mixture)
    return np.stack([[ratio(sounds[1:], estimate) for estimate in estimates] for ratio in (global_sdr, museval_sdr)])
