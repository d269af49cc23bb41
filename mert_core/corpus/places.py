"""Where every track lies: the manifest's numbers, 21 bytes per track, and which tracks were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mert_core.audio.pcm import DTYPE, ShardReader, shard_name
from mert_core.audio.remote import RemoteShards
from mert_core.corpus.manifest import GROUP_ROWS, MANIFEST_NAME, SCHEMA, SPLITS
from mert_core.corpus.tables import in_groups, open_parquet
from mert_core.errors import MertError


@dataclass(frozen=True)
class Places:
    """Numbers of every track, in the manifest's order.

    Attributes:
        samples: int64 (tracks,), lengths.
        shard: int32 (tracks,), shard numbers.
        offset_samples: int64 (tracks,), starts within the shards.
        split: int8 (tracks,), indices into `SPLITS`.
        chosen: bool (tracks,), the tracks that were asked for; None: all.
    """

    samples: NDArray[np.int64]
    shard: NDArray[np.int32]
    offset_samples: NDArray[np.int64]
    split: NDArray[np.int8]
    chosen: NDArray[np.bool_] | None = None


def read_places(folder: Path, shards: ShardReader | RemoteShards, where: pc.Expression | None = None) -> Places:
    """Read a corpus's numbers, a row group at a time, and check that every shard has the right size.

    Args:
        folder: of the corpus.
        shards: reads the shards, wherever they lie.
        where: which tracks are asked for, over any columns of the manifest; only those that it names are read.

    Raises:
        MertError: a file is missing, the manifest is of another version, the shards are not the manifest's, or
            ``where`` names a column that there is not.
    """
    path = folder / MANIFEST_NAME
    with open_parquet(path) as file:
        if not file.schema_arrow.equals(SCHEMA):
            raise MertError(f"{path} has other columns than this version writes. Run `dvc repro`.")
        tracks = file.metadata.num_rows
    places = Places(
        np.empty(tracks, np.int64), np.empty(tracks, np.int32), np.empty(tracks, np.int64), np.empty(tracks, np.int8),
        None if where is None else np.empty(tracks, np.bool_),
    )  # fmt: skip
    first = 0
    for group in _groups(path, where):
        here = slice(first, first + len(group))
        places.samples[here] = group["samples"].to_numpy()
        places.shard[here] = group["shard"].to_numpy()
        places.offset_samples[here] = group["offset_samples"].to_numpy()
        places.split[here] = pc.index_in(group["split"], pa.array(SPLITS)).fill_null(-1).to_numpy()
        if places.chosen is not None:
            places.chosen[here] = group["chosen"].fill_null(False).to_numpy()
        first += len(group)
    _check_sizes(shards, places)
    return places


def _groups(path: Path, where: pc.Expression | None) -> Iterator[pa.Table]:
    """Yield the numbers, and with a filter the column ``chosen``."""
    numbers = ["samples", "shard", "offset_samples", "split"]
    if where is None:
        yield from in_groups(path, GROUP_ROWS, numbers)
        return
    import pyarrow.dataset as ds  # a third of a second and 50 MB, for filters alone

    columns = {**{name: ds.field(name) for name in numbers}, "chosen": where}
    try:
        scanner = ds.dataset(path, format="parquet").scanner(
            columns=columns, batch_size=GROUP_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        for batch in scanner.to_batches():
            yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise MertError(
            f"cannot select from {path} where {where}: {error}. Its columns are {', '.join(SCHEMA.names)}."
        ) from error


def _check_sizes(shards: ShardReader | RemoteShards, places: Places) -> None:
    if not len(places.shard):
        return
    ends = np.zeros(int(places.shard.max()) + 1, np.int64)
    np.maximum.at(ends, places.shard, places.offset_samples + places.samples)
    sizes = shards.sizes()
    for shard in np.flatnonzero(ends).tolist():
        expected = int(ends[shard]) * DTYPE.itemsize
        found = sizes.get(shard_name(shard))
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes"
            raise MertError(f"{shards.path(shard)} {state}; the manifest needs {expected} bytes. {shards.remedy}")
