"""The target store: what one teacher says of every frame, in checksummed shards aligned to the corpus's PCM shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.records import Record, read_record
from mert_core.targets.form import CHECKSUMS_NAME, INDEX_NAME, SHARDS_NAME, entries_of, kind_of
from mert_core.targets.reading import LocalShards, RemoteShards, Shards, remedy
from mert_core.teachers.kinds import Codes

_NUMBERS = ("shard", "offset_frames", "frames")


class TargetStore:
    """Read access to a teacher's targets. A row is an index into the corpus's manifest. Cheap to open and to pickle.

    Attributes:
        folder: where it lies.
        teacher: name of the teacher.
        teacher_id: the id of its record.
        kind: what the targets are, codes or spectra, and how many per frame.
    """

    def __init__(self, folder: Path, index: pa.Table, card: dict[str, Any], copy: str | None = None) -> None:
        self.folder = folder
        self.teacher: str = card["teacher"]
        self.teacher_id: str = card["teacher_id"]
        self.kind = kind_of(card)
        self._shard, self._offset, self._frames = (index[name].to_numpy() for name in _NUMBERS)
        entries = {entry.shard: entry for entry in entries_of(card)}
        self._shards: Shards = LocalShards(folder, entries, self.kind)
        if copy is not None:
            self._shards = RemoteShards(f"{copy}/{SHARDS_NAME}", entries, self.kind)

    @classmethod
    def open(cls, folder: Path, shards: str | None = None) -> TargetStore:
        """Open what ``mert targets`` wrote. Checksums are verified when a shard is first read.

        Args:
            folder: where it lies.
            shards: address of the folder's copy on an object store, to read the shards from there; None: they lie in
                the folder.

        Raises:
            MertError: it is missing or unreadable, or shards on the object store are of other sizes.
        """
        read_record(folder)
        try:
            card = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
            return cls(folder, pq.read_table(folder / INDEX_NAME, columns=list(_NUMBERS)), card, shards)
        except (OSError, pa.ArrowInvalid, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MertError(f"the targets in {folder} are damaged ({error}). {remedy(folder)}") from error

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

    @property
    def codebooks(self) -> int:
        """Codes per frame.

        Raises:
            MertError: the teacher gives spectra.
        """
        return self._codes.codebooks

    @property
    def entries(self) -> int:
        """Values per code.

        Raises:
            MertError: the teacher gives spectra.
        """
        return self._codes.entries

    @property
    def _codes(self) -> Codes:
        if not isinstance(self.kind, Codes):
            raise MertError(f"{self.folder} holds the spectra of {self.teacher} ({self.kind}), but codes are wanted")
        return self.kind

    def read(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[Any]:
        """Return equally long stretches of targets.

        Args:
            rows: (batch,) tracks.
            offset_frames: (batch,) first frame of each stretch within its track.
            frames: frames per stretch.

        Returns:
            int64 (batch, frames, codebooks), or float32 (batch, frames, bins).

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
        out = np.empty((len(rows), frames, self.kind.width), np.int64 if isinstance(self.kind, Codes) else np.float32)
        for place, stretch in enumerate(self._shards.read(self._shard[rows], self._offset[rows] + starts, frames)):
            out[place] = stretch
        return out

    def codes(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
        """Return equally long stretches of codes, int64 (batch, frames, codebooks), as `read` does.

        Raises:
            MertError: the teacher gives spectra.
        """
        assert self._codes
        return self.read(rows, offset_frames, frames)

    def track(self, row: int) -> NDArray[Any]:
        """Return a whole track's targets, read-only, uint16 (frames, codebooks) or float16 (frames, bins)."""
        return self._shards.read(self._shard[[row]], self._offset[[row]], int(self._frames[row]))[0]
