"""Sound that lies in a file of its own, or in a part of one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.decode import decode, decode_channels
from mert_core.audio.errors import UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.corpus import Corpus
from mert_core.data.hashes import Stamp, hash_file
from mert_core.data.manifest import MANIFEST_NAME
from mert_core.data.shards import to_float32
from mert_core.errors import MertError


@dataclass(frozen=True)
class FileSound:
    """The sound of a file in any format and at any rate that `mert_core.audio.decode` reads.

    Attributes:
        path: the audio file.
        start_seconds: where in the file the sound begins.
        seconds: length of the sound; None: to the file's end. A file that ends earlier gives what it has.
    """

    path: Path
    start_seconds: float = 0.0
    seconds: float | None = None

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the file's bytes and the window; the bytes are read once while they stay the same.

        Raises:
            UnusableAudio: the file cannot be read.
        """
        try:
            content = _content(self.path, Stamp.of(self.path))
        except OSError as error:
            raise UnusableAudio("unreadable", error.strerror or type(error).__name__) from error
        window = f"{float(self.start_seconds)!r}:{None if self.seconds is None else float(self.seconds)!r}"
        return hashlib.sha256(content + window.encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded, or ends before the window begins.
        """
        return self._cut(decode(self.path).waveform)

    def channels(self) -> NDArray[np.float32]:
        """Return all channels at 24 kHz, (channels, samples).

        Raises:
            UnusableAudio: it cannot be decoded, or ends before the window begins.
        """
        return self._cut(decode_channels(self.path).waveform)

    def _cut(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        start = round(self.start_seconds * SAMPLE_RATE)
        stop = None if self.seconds is None else start + round(self.seconds * SAMPLE_RATE)
        cut = samples[..., start:stop]
        if not cut.shape[-1]:
            length = f"{samples.shape[-1] / SAMPLE_RATE:.3f} s; the clip begins at {self.start_seconds:g} s"
            raise UnusableAudio("too short", length)
        return cut


@lru_cache(maxsize=1 << 20)
def _content(path: Path, stamp: Stamp) -> bytes:
    """Return the SHA-256 of a file that looks like ``stamp``."""
    return hash_file(path)[1]


@dataclass(frozen=True)
class StoredSound:
    """One track of a corpus or probe set.

    Attributes:
        folder: the corpus or probe set.
        row: index of the track in the manifest.
        content_hash: SHA-256 of the track's int16 bytes; other bytes are refused.
    """

    folder: Path
    row: int
    content_hash: str

    @property
    def identity(self) -> str:
        """The manifest's content hash."""
        return self.content_hash

    def waveform(self) -> NDArray[np.float32]:
        """Return the track, (samples,).

        Raises:
            MertError: the corpus is gone, or has other sound in this row.
        """
        pcm = _corpus(self.folder, _stamp(self.folder)).pcm(self.row)
        if hashlib.sha256(np.ascontiguousarray(pcm).data).hexdigest() != self.content_hash:
            raise MertError(
                f"row {self.row} of {self.folder} is not the sound that it was: the folder was made again meanwhile, "
                "or a shard is damaged. Start again; if that does not help, remove the folder and run `dvc repro`."
            )
        return to_float32(pcm)

    def channels(self) -> NDArray[np.float32]:
        """Return the track as one channel, (1, samples)."""
        return self.waveform()[None]


def _stamp(folder: Path) -> int:
    try:
        return (folder / MANIFEST_NAME).stat().st_mtime_ns
    except OSError as error:
        raise MertError(f"cannot read the probe set {folder}: {error.strerror}. Run `mert probe-set`.") from error


@lru_cache(maxsize=4)
def _corpus(folder: Path, stamp: int) -> Corpus:
    """Return a corpus, opened once per process and version of its manifest."""
    return Corpus.open(folder)
