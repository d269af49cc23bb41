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
        channels: number of channels of mixture and stems.
        samples: length of mixture and stems at 24 kHz.
    """

    track_id: str
    identity: str
    path: Path
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
        caches: folder of the caches; files go to ``stems/`` in it.
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
        shape = np.load(path, mmap_mode="r").shape
        tracks.append(StoredTrack(clip.clip_id, identity, path, shape[1], shape[2]))
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
        path: file of the stored track.
        identity: hash of the track, see `StoredTrack.identity`.
        row: 0 for the mixture, from 1 on for the stems.
        start: index of the first sample.
        gain: factor on the samples.
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
        stored = np.load(self.path, mmap_mode="r")[self.row, :, self.start : self.start + samples]
        piece = np.zeros((channels, samples), dtype=np.float32)
        piece[:, : stored.shape[1]] = stored[::-1] if self.swapped else stored
        piece *= np.float32(self.gain)
        return piece


@dataclass(frozen=True)
class RemixSound:
    """The sum of parts: a `mert_core.datasets.base.Sound`.

    Attributes:
        parts: pieces that are added up.
        track_channels: number of channels of the sum.
        samples: length of the sum at 24 kHz.
    """

    parts: tuple[MixPart, ...]
    track_channels: int
    samples: int

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the parts, with where each begins and how loud it is."""
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
        tracks: stored tracks of the training split.
        stems: number of stems.
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
            for row in range(1, stems + 1):
                source = tracks[int(generator.integers(len(tracks)))]
                start = int(generator.integers(max(1, source.samples - samples + 1)))
                gain = float(np.float32(generator.uniform(*GAINS)))
                swapped = bool(generator.uniform() < SWAP_PROBABILITY) and source.channels == 2
                parts.append(MixPart(source.path, source.identity, row, start, gain, swapped))
            remixes.append(RemixSound(tuple(parts), channels, samples))
    return remixes


def windows_of_track(track: StoredTrack, seconds: float) -> list[RemixSound]:
    """Return a track's own mixture in windows side by side.

    The last window is from half to one and a half times as long as the others, so that nothing is left out.
    """
    window = seconds_to_samples(seconds)
    count = max(1, (track.samples + window // 2) // window)
    bounds = [*(window * number for number in range(count)), track.samples]
    return [
        RemixSound((MixPart(track.path, track.identity, 0, start),), track.channels, end - start)
        for start, end in pairwise(bounds)
    ]


RESIDENT_BYTES = 3 << 30
"""Spectrograms up to this size are computed once and held in memory, in half precision."""


@dataclass(frozen=True)
class SeparationExcerpt:
    """A piece of music that is separated.

    Attributes:
        sound: the mixture, which is embedded.
        stems: what it is to be separated into.
    """

    sound: RemixSound
    stems: tuple[MixPart, ...]

    def spectra(self, device: str) -> Tensor:
        """Return magnitudes of mixture and stems (1 + stems, frames, channels, bins)."""
        sound = self.sound
        stems = np.stack([part.read(sound.track_channels, sound.samples) for part in self.stems])
        together = np.concatenate([sound.channels()[None], stems])
        return magnitude(torch.from_numpy(together).to(device)).permute(0, 3, 1, 2).contiguous()


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
        excerpts: Sequence[SeparationExcerpt],
        features: Standardized,
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
        self.frames = np.array([frame_count(excerpt.sound.samples) for excerpt in self.excerpts])
        self.channels = self.excerpts[0].sound.track_channels
        numbers = int(self.frames.sum()) * self.channels * BINS * (1 + len(self.excerpts[0].stems))
        self._held: list[Tensor] | None = None
        if numbers * torch.half.itemsize <= resident_bytes:
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
        samples: NDArray[np.int64] = (starts[:, None] + np.arange(frames)) * HOP_SAMPLES
        counts = (self._offsets[which + 1] - self._offsets[which])[:, None]
        rows: NDArray[np.int64] = self._offsets[which][:, None] + nearest_rows(samples, counts, self._frame_rate)
        features = self._features.take(rows.ravel())
        return features.view(len(features), *rows.shape, -1)

    def spectra(self, which: NDArray[np.int64], starts: NDArray[np.int64], frames: int, every: int = 1) -> Tensor:
        """Return magnitudes of mixture and stems (1 + stems, excerpts, ⌈frames / every⌉, channels, bins).

        Args:
            which: excerpts.
            starts: of each, the first frame.
            frames: up to how many after it.
            every: of those, each n-th.
        """
        spectra = []
        for number, start in zip(which, starts, strict=True):
            held = self.excerpts[number].spectra(self.device) if self._held is None else self._held[number]
            spectra.append(held[:, start : start + frames : every])
        return torch.stack(spectra, dim=1).float()
