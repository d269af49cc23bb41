"""What a separation network is shown: excerpts' embeddings, frame by frame, beside their spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.frames import HOP_SAMPLES, SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.probe.features import Standardised
from mert_core.probe.separation.augment import Part, RemixSound
from mert_core.probe.separation.stft import BINS, frames_of, magnitude, spectrum
from mert_core.workers import single_threads

RESIDENT_BYTES = 3 << 30
"""Spectrograms up to this size are computed once and held in memory, in half precision."""


@dataclass(frozen=True)
class Excerpt:
    """A piece of music that is separated.

    Attributes:
        sound: the mixture, which is embedded.
        stems: what it is to be separated into.
    """

    sound: RemixSound
    stems: tuple[Part, ...]

    def spectra(self, device: str) -> Tensor:
        """Return magnitudes of mixture and stems (1 + stems, frames, channels · bins)."""
        sound = self.sound
        stems = np.stack([part.read(sound.track_channels, sound.samples) for part in self.stems])
        together = np.concatenate([sound.channels()[None], stems])
        found = magnitude(spectrum(torch.from_numpy(together).to(device)))
        return found.transpose(1, 2).flatten(2)


def nearest_rows(samples: NDArray[np.int64], rows: int | NDArray[np.int64], frame_rate: float) -> NDArray[np.int64]:
    """Return which of an excerpt's embedded frames is at each place; beyond its end, the last.

    Args:
        samples: places in the excerpt.
        rows: how many frames the excerpt has; of several excerpts, one each (excerpts, 1).
        frame_rate: frames per second.
    """
    return np.minimum((samples * frame_rate / SAMPLE_RATE).astype(np.int64), rows - 1)


class Excerpts:
    """Excerpts of one split.

    Args:
        excerpts: all with as many stems and channels.
        features: of the embeddings' rows, excerpt by excerpt; standardised.
        offsets: rows of excerpt i are offsets[i]:offsets[i + 1].
        frame_rate: embedded frames per second.
        device: where spectrograms are computed.
        resident_bytes: how large spectrograms in memory may be; what is larger is computed when it is asked for.

    Raises:
        MertError: an excerpt has no embedded frame.
    """

    def __init__(
        self,
        excerpts: Sequence[Excerpt],
        features: Standardised,
        offsets: NDArray[np.int64],
        frame_rate: float,
        device: str = "cpu",
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.excerpts, self.device = list(excerpts), device
        self._features, self._offsets, self._frame_rate = features, offsets, frame_rate
        counts = np.diff(offsets)
        if len(counts) != len(self.excerpts) or not counts.all():
            raise MertError(
                f"{int((counts == 0).sum())} of {len(counts)} excerpts have no embedded frame, expected "
                f"{len(self.excerpts)} excerpts with frames: their sound is missing or too short"
            )
        self.frames = np.array([frames_of(excerpt.sound.samples) for excerpt in self.excerpts])
        self.outputs = self.excerpts[0].sound.track_channels * BINS
        self._held: list[Tensor] | None = None
        if int(self.frames.sum()) * self.outputs * (1 + len(self.excerpts[0].stems)) * 2 <= resident_bytes:
            with single_threads(device) as pool:
                self._held = list(pool.map(lambda excerpt: excerpt.spectra(device).half(), self.excerpts))

    def __len__(self) -> int:
        return len(self.excerpts)

    def features(self, which: NDArray[np.int64], starts: NDArray[np.int64], frames: int) -> Tensor:
        """Return standardised features of the frames of spectrograms (inputs, excerpts, frames, width).

        Args:
            which: excerpts.
            starts: of each, the first frame.
            frames: how many frames.
        """
        places: NDArray[np.int64] = (starts[:, None] + np.arange(frames)) * HOP_SAMPLES
        counts = (self._offsets[which + 1] - self._offsets[which])[:, None]
        rows: NDArray[np.int64] = self._offsets[which][:, None] + nearest_rows(places, counts, self._frame_rate)
        found = self._features.take(rows.ravel())
        return found.view(len(found), *rows.shape, -1)

    def spectra(self, which: NDArray[np.int64], starts: NDArray[np.int64], frames: int, every: int = 1) -> Tensor:
        """Return magnitudes of mixture and stems (1 + stems, excerpts · frames, outputs).

        Args:
            which: excerpts.
            starts: of each, the first frame.
            frames: up to how many after it.
            every: of those, each n-th.
        """
        found = []
        for number, start in zip(which, starts, strict=True):
            held = self.excerpts[number].spectra(self.device) if self._held is None else self._held[number]
            found.append(held[:, start : start + frames : every])
        return torch.cat(found, dim=1).float()
