"""Mixtures to train on: stems of different tracks, at different places and levels, drawn once.

Open-Unmix draws them anew in every epoch. Here they are a fixed set, so that each is embedded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE, seconds_to_samples
from mert_core.datasets.base import Clip, Sound
from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_json
from mert_core.parallel import single_threads
from mert_core.probing.features import Standardized
from mert_core.probing.separation.model import BINS, frame_count, magnitude

_SAMPLES_APART = 2400  # stems of one track that a lossy codec has padded differently


@dataclass(frozen=True)
class StoredTrack:
    """One clip's mixture and stems. Cheap to hold and to pickle.

    Attributes:
        track_id: identifier of the clip.
        identity: SHA-256 of the identities of mixture and stems.
        path: NumPy file, float32 (1 + stems, channels, samples); the mixture comes first.
        stems: number of stems.
        channels: number of channels of mixture and stems.
        samples: length of mixture and stems at 24 kHz.
    """

    track_id: str
    identity: str
    path: Path
    stems: int
    channels: int
    samples: int

    def array(self) -> NDArray[np.float32]:
        """Return mixture and stems, memory-mapped (1 + stems, channels, samples)."""
        return np.load(self.path, mmap_mode="r")


def store_tracks(clips: Sequence[Clip], stems: Sequence[str], caches: Path, name: str = "") -> list[StoredTrack]:
    """Decode clips whose label is stems, unless it has been done.

    Args:
        clips: clips of one split.
        stems: names of the stems, in order.
        caches: folder whose ``stems/`` gets the files.
        name: label of the progress bar.

    Raises:
        MertError: a clip cannot be decoded, lacks a stem, or has stems that do not fit its mixture.
    """
    tracks = []
    for clip in tqdm(clips, desc=f"decode {name}".strip(), unit="track", leave=False):
        label: Mapping[str, Sound] = clip.label
        missing = [stem for stem in stems if stem not in label]
        if missing:
            raise MertError(f"the clip {clip.clip_id} has no stem {', '.join(missing)}; it has {', '.join(label)}")
        sounds = [clip.sound, *(label[stem] for stem in stems)]
        try:
            identity = sha256_json([sound.identity for sound in sounds])
            path = caches / "stems" / f"{identity[:20]}.npy"
            if not path.exists():
                together = _together(clip.clip_id, [sound.channels() for sound in sounds])
                with atomic_path(path) as temporary, temporary.open("wb") as stream:
                    np.save(stream, together)
        except UnusableAudio as error:
            raise MertError(
                f"the mixture or a stem of {clip.clip_id} cannot be used: {error}. Get the file again, or remove the "
                "track from the data set's folder."
            ) from error
        _, channels, samples = np.load(path, mmap_mode="r").shape
        tracks.append(StoredTrack(clip.clip_id, identity, path, len(stems), channels, samples))
    return tracks


def _together(track_id: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    channels, lengths = max(len(part) for part in parts), [part.shape[1] for part in parts]
    if any(len(part) not in {1, channels} for part in parts) or max(lengths) - min(lengths) > _SAMPLES_APART:
        raise MertError(
            f"mixture and stems of {track_id} do not fit each other: they have {[part.shape for part in parts]} "
            "(channels, samples); expected equal ones. Get the track again."
        )
    # One channel stands for all; codecs end their files a few frames apart.
    return np.stack([np.broadcast_to(part[:, : min(lengths)], (channels, min(lengths))) for part in parts])


GAINS = (0.25, 1.25)
SWAP_PROBABILITY = 0.5


@dataclass(frozen=True)
class MixPart:
    """A piece of one row of a stored track, as it enters a mixture.

    Attributes:
        track: the stored track.
        row: 0 for the mixture, from 1 on for the stems.
        start: index of the first sample.
        gain: factor on the samples.
        swapped: whether the channels change places.
    """

    track: StoredTrack
    row: int
    start: int
    gain: float = 1.0
    swapped: bool = False

    def read(self, channels: int, samples: int) -> NDArray[np.float32]:
        """Return (channels, samples); silence after the track's end, and one channel stands for all."""
        stored = self.track.array()[self.row, :, self.start : self.start + samples]
        piece = np.zeros((channels, samples), dtype=np.float32)
        piece[:, : stored.shape[1]] = stored[::-1] if self.swapped else stored
        piece *= np.float32(self.gain)
        return piece


@dataclass(frozen=True)
class Mixture:
    """A mixture, which is embedded, and the stems that it is to be separated into: a `mert_core.datasets.base.Sound`.

    Attributes:
        parts: pieces that are added up to the mixture.
        stems: pieces that are its true stems.
        track_channels: number of channels of mixture and stems.
        samples: length at 24 kHz.
    """

    parts: tuple[MixPart, ...]
    stems: tuple[MixPart, ...]
    track_channels: int
    samples: int

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the mixture's parts, with where each begins and how loud it is."""
        parts = [[part.track.identity, part.row, part.start, part.gain, part.swapped] for part in self.parts]
        return sha256_json({"remix": parts, "channels": self.track_channels, "samples": self.samples})

    def channels(self) -> NDArray[np.float32]:
        """Return the mixture (channels, samples)."""
        return self._read(self.parts).sum(axis=0)

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels (samples,)."""
        return self.channels().mean(axis=0)

    def spectra(self, device: str) -> Tensor:
        """Return magnitudes of mixture and stems (1 + stems, frames, channels, bins)."""
        together = np.concatenate([self.channels()[None], self._read(self.stems)])
        return magnitude(torch.from_numpy(together).to(device)).permute(0, 3, 1, 2).contiguous()

    def _read(self, parts: Sequence[MixPart]) -> NDArray[np.float32]:
        return np.stack([part.read(self.track_channels, self.samples) for part in parts])


def draw_remixes(tracks: Sequence[StoredTrack], seconds: float, per_track: int, seed: int) -> list[Mixture]:
    """Draw mixtures: each stem from any track, anywhere in it, with any gain from .25 to 1.25, channels swapped or not.

    What is drawn for a track's n-th mixture follows from the seed, the track's id, n and the list of tracks.

    Args:
        tracks: stored tracks of the training split.
        seconds: length of a mixture.
        per_track: number of mixtures per track.
        seed: base of all draws.
    """
    samples, channels = seconds_to_samples(seconds), max(track.channels for track in tracks)
    remixes = []
    for track in tracks:
        for number in range(per_track):
            draw = hashlib.sha256(f"{seed} {number} {track.track_id}".encode()).digest()
            generator = np.random.default_rng(list(draw))
            parts = []
            for row in range(1, track.stems + 1):
                source = tracks[int(generator.integers(len(tracks)))]
                start = int(generator.integers(max(1, source.samples - samples + 1)))
                gain = float(np.float32(generator.uniform(*GAINS)))
                swapped = bool(generator.uniform() < SWAP_PROBABILITY) and source.channels == 2
                parts.append(MixPart(source, row, start, gain, swapped))
            remixes.append(Mixture(tuple(parts), tuple(parts), channels, samples))
    return remixes


def windows_of_track(track: StoredTrack, seconds: float) -> list[Mixture]:
    """Return a track's own mixture in windows side by side.

    The last window is from half to one and a half times as long as the others, so that nothing is left out.
    """
    window = seconds_to_samples(seconds)
    count = max(1, (track.samples + window // 2) // window)
    windows = []
    for start, end in pairwise([*(window * number for number in range(count)), track.samples]):
        mixture, *stems = (MixPart(track, row, start) for row in range(track.stems + 1))
        windows.append(Mixture((mixture,), tuple(stems), track.channels, end - start))
    return windows


def nearest_rows(samples: NDArray[np.int64], rows: int | NDArray[np.int64], frame_rate: float) -> NDArray[np.int64]:
    """Return which of an excerpt's embedded frames is at each sample; beyond its end, the last.

    ``rows`` is how many frames the excerpt has; of several excerpts, one number each (excerpts, 1).
    """
    return np.minimum((samples * frame_rate / SAMPLE_RATE).astype(np.int64), rows - 1)


RESIDENT_BYTES = 3 << 30
"""Spectrograms up to this size are computed once and held in memory, in half precision."""


class Excerpts:
    """Mixtures of one split with their features. Spectrograms are computed where the features are.

    Args:
        mixtures: all with as many stems and channels.
        features: standardized features of the embeddings' rows, mixture by mixture.
        offsets: rows of mixture i are offsets[i]:offsets[i + 1].
        frame_rate: embedded frames per second.

    Raises:
        MertError: a mixture has no embedded frame.
    """

    def __init__(
        self, mixtures: Sequence[Mixture], features: Standardized, offsets: NDArray[np.int64], frame_rate: float
    ) -> None:
        self.mixtures, self.standardized, self.device = list(mixtures), features, features.device
        self._offsets, self._frame_rate = offsets, frame_rate
        counts = np.diff(offsets)
        if len(counts) != len(self.mixtures) or not counts.all():
            raise MertError(
                f"{int((counts == 0).sum())} of {len(counts)} excerpts have no embedded frame, expected "
                f"{len(self.mixtures)} excerpts with frames: their sound is missing or too short"
            )
        self.frames = np.array([frame_count(mixture.samples) for mixture in self.mixtures])
        self.channels = self.mixtures[0].track_channels
        numbers = int(self.frames.sum()) * self.channels * BINS * (1 + len(self.mixtures[0].stems))
        self._held: list[Tensor] | None = None
        if numbers * torch.half.itemsize <= RESIDENT_BYTES:
            with single_threads(self.device) as pool:
                self._held = list(pool.map(lambda mixture: mixture.spectra(self.device).half(), self.mixtures))

    def __len__(self) -> int:
        return len(self.mixtures)

    def features(self, which: NDArray[np.int64], starts: NDArray[np.int64], frames: int) -> Tensor:
        """Return standardized features of so many frames of some mixtures' spectrograms from their starts on.

        ``which`` and ``starts`` are (excerpts,); returns (inputs, excerpts, frames, width).
        """
        samples: NDArray[np.int64] = (starts[:, None] + np.arange(frames)) * HOP_SAMPLES
        counts = (self._offsets[which + 1] - self._offsets[which])[:, None]
        rows: NDArray[np.int64] = self._offsets[which][:, None] + nearest_rows(samples, counts, self._frame_rate)
        features = self.standardized.take(rows.ravel())
        return features.view(len(features), *rows.shape, -1)

    def spectra(self, which: NDArray[np.int64], starts: NDArray[np.int64], frames: int, every: int = 1) -> Tensor:
        """Return magnitudes of the same frames, or of each n-th of them.

        They are (1 + stems, excerpts, ⌈frames / every⌉, channels, bins); the mixture comes first.
        """
        spectra = []
        for number, start in zip(which, starts, strict=True):
            held = self.mixtures[number].spectra(self.device) if self._held is None else self._held[number]
            spectra.append(held[:, start : start + frames : every])
        return torch.stack(spectra, dim=1).float()
