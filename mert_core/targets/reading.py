"""Where a store's shards are read from: mapped from its folder, or by byte ranges from an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.remote import UPLOAD, RemoteFolder
from mert_core.errors import MertError
from mert_core.targets.form import SHARDS_NAME, ShardEntry, number_type
from mert_core.teachers.kinds import Kind

Entries = Mapping[int, ShardEntry]


class Shards(Protocol):
    """Gives stretches of shards as they are stored, read-only."""

    def read(self, shards: NDArray[Any], begins: NDArray[np.int64], frames: int) -> list[NDArray[Any]]:
        """Return one (frames, width) for each shard and first frame.

        Raises:
            MertError: a shard is missing or not what was written.
        """


class LocalShards:
    """Memory-mapped, each verified by its SHA-256 when it is first read.

    Args:
        folder: of the store.
        entries: its shards.
        kind: what the targets are.
    """

    def __init__(self, folder: Path, entries: Entries, kind: Kind) -> None:
        self._folder, self._entries, self._kind = folder, entries, kind
        self._open: dict[int, NDArray[Any]] = {}

    def read(self, shards: NDArray[Any], begins: NDArray[np.int64], frames: int) -> list[NDArray[Any]]:
        """Return views; see `Shards`."""
        places = zip(shards.tolist(), begins.tolist(), strict=True)
        return [self._shard(shard)[begin : begin + frames] for shard, begin in places]

    def _shard(self, shard: int) -> NDArray[Any]:
        if shard not in self._open:
            self._open[shard] = self._verified(shard)
        return self._open[shard]

    def _verified(self, shard: int) -> NDArray[Any]:
        entry = self._entries[shard]
        path = self._folder / SHARDS_NAME / entry.name
        if not path.exists():
            raise MertError(f"target shard {path} is missing. {remedy(self._folder)}")
        content = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
        found = hashlib.sha256(content.data).hexdigest()
        if found != entry.sha256:
            raise MertError(
                f"target shard {path} has changed since it was written: its SHA-256 is {found[:16]}…, expected "
                f"{entry.sha256[:16]}…. Remove {self._folder}, then: {remedy(self._folder)}"
            )
        plain = content.view(np.ndarray)  # slicing np.memmap itself costs microseconds per crop
        return plain.view(number_type(self._kind)).reshape(-1, self._kind.width)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a memory map does not travel; it is verified again where it arrives


class RemoteShards:
    """Ranges of objects. Only their sizes are checked, here: `mert upload` has compared the rest.

    Args:
        url: of the shards.
        entries: the store's shards.
        kind: what the targets are.

    Raises:
        MertError: an object is missing or of another size, or the object store cannot be reached.
    """

    def __init__(self, url: str, entries: Entries, kind: Kind) -> None:
        self._remote, self._kind = RemoteFolder(url), kind
        self._names = {shard: entry.name for shard, entry in entries.items()}
        self._frame_bytes = kind.width * number_type(kind).itemsize
        sizes = self._remote.sizes()
        for entry in entries.values():
            expected, found = entry.frames * self._frame_bytes, sizes.get(entry.name)
            if found != expected:
                state = "is missing" if found is None else f"has {found} bytes"
                raise MertError(f"{self._remote.url}/{entry.name} {state}; expected {expected} bytes. {UPLOAD}")

    def read(self, shards: NDArray[Any], begins: NDArray[np.int64], frames: int) -> list[NDArray[Any]]:
        """Ask for all stretches at once; see `Shards`."""
        names = [self._names[shard] for shard in shards.tolist()]
        blocks = self._remote.read(names, (begins * self._frame_bytes).tolist(), frames * self._frame_bytes)
        return [np.frombuffer(block, number_type(self._kind)).reshape(frames, self._kind.width) for block in blocks]


def remedy(folder: Path) -> str:
    """Return what to do about a store that is missing or damaged."""
    return f"Run `dvc checkout`, or `mert targets {folder.name}`."
