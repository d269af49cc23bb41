"""Separating whole tracks with trained networks, and how well it goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.probe.features import Standardised
from mert_core.probe.separation.excerpts import nearest_rows
from mert_core.probe.separation.head import Heads
from mert_core.probe.separation.sdr import global_sdr, museval_sdr
from mert_core.probe.separation.stems import StoredTrack
from mert_core.probe.separation.stft import BINS, frames_of, magnitude, spectrum, waveform_of
from mert_core.probe.separation.wiener import filtered


class TrackFeatures:
    """A track's embeddings, window by window.

    Args:
        features: of the windows' rows; standardised.
        offsets: rows of window i are offsets[i]:offsets[i + 1].
        bounds: first sample of each window, and the track's end (windows + 1,).
        frame_rate: embedded frames per second.
    """

    def __init__(
        self, features: Standardised, offsets: NDArray[np.int64], bounds: NDArray[np.int64], frame_rate: float
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
    heads: Heads, ensembles: Sequence[Sequence[int]], windows: Sequence[Tensor], mixture: Tensor, iterations: int = 1
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
    hidden = torch.cat([heads.hidden(window) for window in windows], dim=1)
    found = []
    for ensemble in ensembles:
        asked = torch.stack([heads.last(network).mask(hidden[network]).mul_(levels) for network in ensemble])
        by_channel = asked.view(len(ensemble), len(levels), len(mixture), BINS).transpose(1, 2)
        stems = filtered(by_channel, mixed, iterations)
        found.append(waveform_of(stems, mixture.shape[-1]).cpu().numpy())
    return found


def track_ratios(
    heads: Heads, ensembles: Sequence[Sequence[int]], features: TrackFeatures, track: StoredTrack, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return SDR of whole track and by museval of each ensemble's stems, (2, ensembles, stems); see `sdr`."""
    sounds = np.asarray(track.array())
    mixture = torch.from_numpy(sounds[0].copy()).to(device)
    estimates = separated(heads, ensembles, features.windows(), mixture)
    return np.stack([[ratio(sounds[1:], estimate) for estimate in estimates] for ratio in (global_sdr, museval_sdr)])
