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
from mert_core.data.corpus import Corpus
from mert_core.data.hashes import Stamp, hash_file
from mert_core.data.manifest import MANIFEST_NAME
from mert_core.data.shards import to_float32
from mert_core.errors import MertError


@dataclass(frozen=True)
class FileSound:
    """The sound of a file in any format and at any rate that `mert_core.audio.decode` reads."""

    path: Path

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) that follows the file's bytes, which are read once while they stay the same.

        Raises:
            UnusableAudio: the file cannot be read.
        """
        try:
            content = _content(self.path, Stamp.of(self.path))
        except OSError as error:
            raise UnusableAudio("unreadable", error.strerror or type(error).__name__) from error
        return hashlib.sha256(content + b"0.0:None").hexdigest()  # the suffix stands in all stored identities

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz, (samples,)."""
        return decode(self.path).waveform

    def channels(self) -> NDArray[np.float32]:
        """Return all channels at 24 kHz, (channels, samples)."""
        return decode_channels(self.path).waveform


@lru_cache(maxsize=1 << 20)
def _content(path: Path, stamp: Stamp) -> bytes:
    """Return the SHA-256 of a file that looks like ``stamp``."""
    return hash_file(path)[1]


@dataclass(frozen=True)
class StoredSound:
    """A track of the corpus or probe set in a folder, by its row in the manifest; bytes of another hash are refused."""

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
