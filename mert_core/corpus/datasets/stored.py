"""Sound that lies in a corpus or probe set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.pcm import to_float32
from mert_core.corpus.manifest import MANIFEST_NAME
from mert_core.corpus.store import Corpus
from mert_core.errors import MertError


@dataclass(frozen=True)
class StoredSound:
    """One track of a corpus or probe set.

    Attributes:
        folder: of the corpus.
        row: of its manifest.
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
