"""Taking over from the previous corpus what need not be made again: its untouched shards, byte for byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.pcm import ShardReader, shard_name
from mert_core.corpus.manifest import SHARDS_NAME
from mert_core.corpus.previous import Previous

if TYPE_CHECKING:
    from mert_core.corpus.writer import CorpusWriter


def take_over(previous: Previous, kept: NDArray[np.bool_], writer: CorpusWriter) -> None:
    """Begin a new corpus with tracks of the previous one.

    A shard of which all tracks are kept is linked, and not read. One that lost tracks is written again under its
    number, the others moved together; one that lost all is left out, and its number stays unused. New tracks go to
    shards behind the last one, so what is kept keeps its name and bytes.

    Args:
        previous: the corpus.
        kept: bool (tracks,).
        writer: of the new corpus, still empty.
    """
    where, folder = previous.places, writer.folder / SHARDS_NAME
    offsets, linked, shards = where.offset_samples.copy(), {}, 0
    reader = ShardReader(previous.folder / SHARDS_NAME)
    for shard, rows in previous.shards():
        if kept[rows].all():
            _link(previous.path(shard), folder / shard_name(shard))
            if sha256 := previous.sha256(shard):
                linked[f"{SHARDS_NAME}/{shard_name(shard)}"] = sha256
        elif kept[rows].any():
            lengths = where.samples[rows] * kept[rows]
            offsets[rows] = np.cumsum(lengths) - lengths
            with (folder / shard_name(shard)).open("wb") as stream:
                for row in (np.flatnonzero(kept[rows]) + rows.start).tolist():
                    stream.write(reader.view(shard, int(where.offset_samples[row]), int(where.samples[row])).data)
        else:
            continue
        shards += 1
    tables = previous.tables(kept, offsets)
    writer.begin_with(tables, first_shard=int(where.shard.max()) + 1, shards=shards, known=linked)


def _link(old: Path, new: Path) -> None:
    """Link a file, or copy it where the file system cannot."""
    try:
        os.link(old.resolve(), new)  # a link to what a symbolic link points to, which is how DVC may lay files out
    except OSError:
        shutil.copyfile(old, new)
