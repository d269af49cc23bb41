"""PCM shards: raw little-endian int16 mono at 24 kHz, memory-mapped for reading."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.errors import MertError

FULL_SCALE = 32768.0
DTYPE = np.dtype("<i2")


def to_int16(waveform: NDArray[np.float32]) -> tuple[NDArray[np.int16], int]:
    """Convert float32 in [-1, 1] to int16; what lies outside is clipped.

    Returns:
        The samples, and how many of them lay outside.
    """
    clipped = int(np.count_nonzero(np.abs(waveform) > 1.0))
    scaled = np.rint(waveform * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled).astype(DTYPE), clipped


def to_float32(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert int16 to float32 in [-1, 1); the inverse of `to_int16` on what that returns."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


def shard_name(shard: int) -> str:
    """Return a shard's file name."""
    return f"{shard:05d}.pcm"


class ShardWriter:
    """Appends tracks to shards, one after the other; no track lies in two shards.

    A shard is closed when the next track would pass its size, so only a track that is longer than a whole
    shard makes a larger one.
    """

    def __init__(self, folder: Path, shard_megabytes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit_samples = int(shard_megabytes * 1e6) // DTYPE.itemsize
        self._shard = -1
        self._used_samples = 0
        self._stream: BinaryIO | None = None

    def begin_at(self, shard: int) -> None:
        """Give the next shard this number; those below it are somebody else's."""
        self.close()
        self._shard = shard - 1

    def append(self, pcm: NDArray[np.int16]) -> tuple[int, int]:
        """Write one track (samples,); return its shard and its offset in samples.

        Raises:
            ValueError: the length is no positive multiple of the hop, which would move later tracks off the grid.
        """
        if pcm.dtype != DTYPE or pcm.ndim != 1 or not len(pcm) or len(pcm) % HOP_SAMPLES:
            raise ValueError(f"expected int16 (n × {HOP_SAMPLES},), got {pcm.dtype} {pcm.shape}")
        if self._stream is None or (self._used_samples and self._used_samples + len(pcm) > self._limit_samples):
            self.close()
            self._shard += 1
            self._used_samples = 0
            self._stream = (self._folder / shard_name(self._shard)).open("wb")
        offset_samples = self._used_samples
        self._stream.write(np.ascontiguousarray(pcm).data)
        self._used_samples += len(pcm)
        return self._shard, offset_samples

    def close(self) -> None:
        """Close the open shard."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShardReader:
    """Reads from the shards of a folder. Maps a shard at its first use; cheap to pickle for another process."""

    remedy = "Run `dvc pull` or `dvc repro`."

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[int, NDArray[np.int16]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_maps": {}}

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of all files of the folder, by name; empty if there is no such folder."""
        if not self._folder.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in self._folder.iterdir()}

    def path(self, shard: int) -> Path:
        """Return where a shard lies."""
        return self._folder / shard_name(shard)

    def _map(self, shard: int) -> NDArray[np.int16]:
        if shard not in self._maps:
            path = self.path(shard)
            try:
                mapped = np.memmap(path, dtype=DTYPE, mode="r")
            except (OSError, ValueError) as error:
                raise MertError(f"cannot map the shard {path}: {error}. {self.remedy}") from error
            self._maps[shard] = mapped.view(np.ndarray)  # slicing np.memmap itself costs microseconds per crop
        return self._maps[shard]

    def view(self, shard: int, offset_samples: int, samples: int) -> NDArray[np.int16]:
        """Return a read-only view (samples,) without copying."""
        return self._map(shard)[offset_samples : offset_samples + samples]

    def gather(
        self, shards: NDArray[np.int64], starts: NDArray[np.int64], length: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Copy ``length`` samples from each (shard, start); see `copy_crops`.

        The caller has checked that every stretch lies inside its track.
        """
        pairs = zip(shards.tolist(), starts.tolist(), strict=True)
        stretches = (self._map(shard)[start : start + length] for shard, start in pairs)
        return copy_crops(stretches, len(starts), length, out)


def copy_crops(
    stretches: Iterable[NDArray[np.int16]], count: int, length: int, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Copy equally long stretches of PCM into ``out`` (batch, length), or into a new int16 array, and return it.

    A float32 ``out`` receives waveforms, −1 … 1.
    """
    if out is None:
        out = np.empty((count, length), dtype=DTYPE)
    scale = None if out.dtype == DTYPE else np.float32(1 / FULL_SCALE)
    for row, stretch in zip(out, stretches, strict=True):
        row[:] = stretch
        if scale is not None:
            row *= scale  # a crop is still in the cache
    return out
