"""Mixture and stems of clips, decoded once and memory-mapped: pieces of them are asked for again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mert_core.audio.unusable import UnusableAudio
from mert_core.corpus.datasets.clips import Clip, Sound
from mert_core.errors import MertError
from mert_core.files import atomic_path, sha256_json

_SAMPLES_APART = 2400  # stems of one track that a lossy codec has padded differently


@dataclass(frozen=True)
class StoredTrack:
    """One clip's mixture and stems. Cheap to hold and to pickle.

    Attributes:
        track_id: the clip's.
        identity: SHA-256 of the identities of mixture and stems.
        path: NumPy file, float32 (1 + stems, channels, samples); the mixture comes first.
        channels: of all of them.
        samples: of all of them.
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
        clips: of one split.
        stems: their names, in order.
        caches: where caches lie; files go to ``stems/`` there.
        name: for the progress bar.

    Raises:
        MertError: a clip cannot be decoded, lacks a stem, or has stems that do not fit its mixture.
    """
    found = []
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
        found.append(StoredTrack(clip.clip_id, identity, path, shape[1], shape[2]))
    return found


def _together(track_id: str, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    channels, lengths = max(len(part) for part in parts), [part.shape[1] for part in parts]
    if any(len(part) not in {1, channels} for part in parts) or max(lengths) - min(lengths) > _SAMPLES_APART:
        raise MertError(
            f"mixture and stems of {track_id} do not fit each other: they have {[part.shape for part in parts]} "
            "(channels, samples); expected equal ones. Get the track again."
        )
    # One channel stands for all; codecs end their files a few frames apart.
    return np.stack([np.broadcast_to(part[:, : min(lengths)], (channels, min(lengths))) for part in parts])
