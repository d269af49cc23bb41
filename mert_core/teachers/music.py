"""The training music: a corpus's shards and the four columns of its manifest that say where a track lies.

Teachers stand below the corpus's own code and read its files, whose format is a promise, without importing it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.pcm import ShardReader
from mert_core.errors import MertError


class StoredMusic:
    """Crops of a corpus folder.

    Attributes:
        samples: length of every track in samples (tracks,).
    """

    def __init__(self, folder: Path) -> None:
        """Open a corpus.

        Raises:
            MertError: its manifest is missing or unreadable.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / "manifest.parquet"
        try:
            table = pq.read_table(path, columns=["split", "samples", "shard", "offset_samples"])
        except (OSError, pa.ArrowInvalid) as error:
            raise MertError(f"cannot read the corpus's manifest {path}: {error}. Run `dvc repro corpus`.") from error
        self.samples: NDArray[np.int64] = table["samples"].to_numpy()
        self._split = table["split"]
        self._shard = table["shard"].to_numpy().astype(np.int64)
        self._offset = table["offset_samples"].to_numpy()
        self._reader = ShardReader(folder / "shards")

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split."""
        import pyarrow.compute as pc

        return np.flatnonzero(pc.equal(self._split, split).to_numpy())

    def crops(self, rows: NDArray[np.int64], offset_samples: NDArray[np.int64], length: int) -> NDArray[np.int16]:
        """Return equally long crops, int16 (batch, length), that lie inside their tracks."""
        return self._reader.gather(self._shard[rows], self._offset[rows] + offset_samples, length)
