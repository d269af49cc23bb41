"""The target store: one code per frame and codebook, in checksummed shards aligned to the corpus's PCM shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.audio.remote import UPLOAD, RemoteFolder
from mert_core.errors import MertError
from mert_core.records import Record, read_record

SHARDS_NAME = "shards"
INDEX_NAME = "index.parquet"
CHECKSUMS_NAME = "shards.json"
USAGE_NAME = "usage.parquet"
GATE_NAME = "gate.json"
CODE_TYPE = np.dtype("<u2")

INDEX_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("shard", pa.int32()), ("offset_frames", pa.int64()), ("frames", pa.int64())]
)


def shard_name(shard: int) -> str:
    """Return a shard's file name."""
    return f"{shard:05d}.codes"


class TargetStore:
    """Read access to the codes. A row is an index into the corpus's manifest. Cheap to open and to pickle.

    Attributes:
        folder: where it lies.
        codebooks: codes per frame.
        entries: values per code.
    """

    def __init__(self, folder: Path, index: pa.Table, card: dict[str, Any], remote: RemoteFolder | None = None) -> None:
        self.folder = folder
        self._remote = remote
        self.codebooks = int(card["codebooks"])
        self.entries = int(card["entries"])
        self._card: list[dict[str, Any]] = card["shards"]
        self._track_ids = index["track_id"]
        self._shard = index["shard"].to_numpy()
        self._offset = index["offset_frames"].to_numpy()
        self._frames = index["frames"].to_numpy()
        self._open: dict[int, NDArray[np.uint16]] = {}

    @classmethod
    def open(cls, folder: Path, shards: str | None = None) -> TargetStore:
        """Open what ``mert targets`` wrote. Checksums are verified when a shard is first read.

        Args:
            folder: where it lies.
            shards: address of the folder's copy on an object store, to read the shards from there; of those only the
                sizes are checked here, `mert upload` has compared the rest. None: they lie in the folder.

        Raises:
            MertError: it is missing or unreadable.
        """
        read_record(folder)
        try:
            card = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
            remote = None if shards is None else RemoteFolder(f"{shards}/{SHARDS_NAME}")
            store = cls(folder, pq.read_table(folder / INDEX_NAME, schema=INDEX_SCHEMA), card, remote)
        except (OSError, pa.ArrowInvalid, json.JSONDecodeError, KeyError) as error:
            raise MertError(
                f"the targets in {folder} are damaged ({error}). Run `dvc checkout`, or `dvc repro targets`."
            ) from error
        store._check_remote_sizes()
        return store

    @property
    def record(self) -> Record:
        """The stage's record; its ``id`` is the targets'."""
        return read_record(self.folder)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frames(self) -> NDArray[np.int64]:
        """Frames of every track (tracks,)."""
        return self._frames

    def codes(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
        """Return equally long stretches of codes.

        Args:
            rows: (batch,) tracks.
            offset_frames: (batch,) first frame of each stretch within its track.
            frames: frames per stretch.

        Returns:
            int64 (batch, frames, codebooks).

        Raises:
            IndexError: a stretch does not lie inside its track.
            MertError: a shard's bytes are not those that were written.
        """
        rows, starts = np.asarray(rows, dtype=np.int64), np.asarray(offset_frames, dtype=np.int64)
        outside = (starts < 0) | (starts + frames > self._frames[rows])
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise IndexError(
                f"{frames} frames from {starts[first]} on of row {rows[first]}, which has {self._frames[rows[first]]}"
            )
        out = np.empty((len(rows), frames, self.codebooks), dtype=np.int64)
        if self._remote is not None:
            blocks = self._remote_codes(self._remote, self._shard[rows], self._offset[rows] + starts, frames)
            for place, block in enumerate(blocks):
                out[place] = block
            return out
        for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
            begin = self._offset[row] + start
            out[place] = self._codes_of(int(self._shard[row]))[begin : begin + frames]
        return out

    def track(self, row: int) -> NDArray[np.uint16]:
        """Return a whole track's codes, read-only, uint16 (frames, codebooks)."""
        begin = self._offset[row]
        if self._remote is not None:
            where = self._shard[[row]], self._offset[[row]]
            return self._remote_codes(self._remote, *where, int(self._frames[row]))[0]
        return self._codes_of(int(self._shard[row]))[begin : begin + self._frames[row]]

    def _remote_codes(
        self, remote: RemoteFolder, shards: NDArray[np.int32], begins: NDArray[np.int64], frames: int
    ) -> list[NDArray[np.uint16]]:
        width = self.codebooks * CODE_TYPE.itemsize
        names = [self._card[shard]["name"] for shard in shards.tolist()]
        blocks = remote.read(names, (begins * width).tolist(), frames * width)
        return [np.frombuffer(block, dtype=CODE_TYPE).reshape(frames, self.codebooks) for block in blocks]

    def _check_remote_sizes(self) -> None:
        if self._remote is None:
            return
        sizes = self._remote.sizes()
        for entry in self._card:
            expected, found = entry["frames"] * self.codebooks * CODE_TYPE.itemsize, sizes.get(entry["name"])
            if found != expected:
                state = "is missing" if found is None else f"has {found} bytes"
                raise MertError(f"{self._remote.url}/{entry['name']} {state}; expected {expected} bytes. {UPLOAD}")

    def _codes_of(self, shard: int) -> NDArray[np.uint16]:
        if shard not in self._open:
            self._open[shard] = self._verified(shard)
        return self._open[shard]

    def _verified(self, shard: int) -> NDArray[np.uint16]:
        entry = self._card[shard]
        path = self.folder / SHARDS_NAME / entry["name"]
        if not path.exists():
            raise MertError(f"target shard {path} is missing. Run `dvc checkout`, or `dvc repro targets`.")
        content = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
        found = hashlib.sha256(content.data).hexdigest()
        if found != entry["sha256"]:
            raise MertError(
                f"target shard {path} has changed since it was written: its SHA-256 is {found[:16]}…, expected "
                f"{entry['sha256'][:16]}…. Remove {self.folder} and run `dvc checkout`, or `dvc repro --force targets`."
            )
        return content.view(CODE_TYPE).reshape(-1, self.codebooks)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a memory map does not travel; it is verified again where it arrives
