"""Mixtures to train on: stems of different tracks, at different places and levels, drawn once.

Open-Unmix draws them anew in every epoch. Here they are a fixed set, so that each is embedded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import seconds_to_samples
from mert_core.files import sha256_json
from mert_core.probe.separation.stems import StoredTrack

GAINS = (0.25, 1.25)
SWAP_PROBABILITY = 0.5


@dataclass(frozen=True)
class Part:
    """A piece of one row of a stored track, as it enters a mixture.

    Attributes:
        path: of the track's file.
        identity: of the track.
        row: 0: its mixture; from 1: its stems.
        start: first sample.
        gain: factor.
        swapped: whether the channels change places.
    """

    path: Path
    identity: str
    row: int
    start: int
    gain: float = 1.0
    swapped: bool = False

    def read(self, channels: int, samples: int) -> NDArray[np.float32]:
        """Return (channels, samples); silence after the track's end, and one channel stands for all."""
        found = np.load(self.path, mmap_mode="r")[self.row, :, self.start : self.start + samples]
        piece = np.zeros((channels, samples), dtype=np.float32)
        piece[:, : found.shape[1]] = found[::-1] if self.swapped else found
        piece *= np.float32(self.gain)
        return piece


@dataclass(frozen=True)
class RemixSound:
    """The sum of parts: a `mert_core.corpus.datasets.clips.Sound`.

    Attributes:
        parts: what is added.
        track_channels: of the result.
        samples: of the result.
    """

    parts: tuple[Part, ...]
    track_channels: int
    samples: int

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the parts, their places and levels."""
        parts = [[part.identity, part.row, part.start, part.gain, part.swapped] for part in self.parts]
        return sha256_json({"remix": parts, "channels": self.track_channels, "samples": self.samples})

    def stems(self) -> NDArray[np.float32]:
        """Return each part (parts, channels, samples)."""
        return np.stack([part.read(self.track_channels, self.samples) for part in self.parts])

    def channels(self) -> NDArray[np.float32]:
        """Return the sum of the parts (channels, samples)."""
        return self.stems().sum(axis=0)

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the sum's channels (samples,)."""
        return self.channels().mean(axis=0)


def draw_remixes(
    tracks: Sequence[StoredTrack], stems: int, seconds: float, per_track: int, seed: int
) -> list[RemixSound]:
    """Draw mixtures: each stem from any track, anywhere in it, with any gain from .25 to 1.25, channels swapped or not.

    What is drawn for a track's n-th mixture follows from the seed, the track's id, n and the list of tracks.

    Args:
        tracks: of the training split.
        stems: how many there are.
        seconds: length of a mixture.
        per_track: how many mixtures per track.
        seed: of the draws.
    """
    samples, channels = seconds_to_samples(seconds), max(track.channels for track in tracks)
    found = []
    for track in tracks:
        for number in range(per_track):
            draw = hashlib.sha256(f"{seed} {number} {track.track_id}".encode()).digest()
            generator = np.random.default_rng(list(draw))
            parts = []
            for row in range(1, stems + 1):
                source = tracks[int(generator.integers(len(tracks)))]
                start = int(generator.integers(max(1, source.samples - samples + 1)))
                gain = float(np.float32(generator.uniform(*GAINS)))
                swapped = bool(generator.uniform() < SWAP_PROBABILITY) and source.channels == 2
                parts.append(Part(source.path, source.identity, row, start, gain, swapped))
            found.append(RemixSound(tuple(parts), channels, samples))
    return found


def windows_of_track(track: StoredTrack, seconds: float) -> list[RemixSound]:
    """Return a track's own mixture in windows side by side.

    The last window is from half to one and a half times as long as the others, so that nothing is left out.
    """
    window = seconds_to_samples(seconds)
    count = max(1, (track.samples + window // 2) // window)
    bounds = [*(window * number for number in range(count)), track.samples]
    return [
        RemixSound((Part(track.path, track.identity, 0, start),), track.channels, end - start)
        for start, end in pairwise(bounds)
    ]
