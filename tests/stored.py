"""Stored data without the stages that make it: a corpus of given tracks, and random codes for a corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.corpus.writer import CorpusWriter
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import write_manifest
from mert_core.data.record import Record, read_record, write_record
from mert_core.data.target_kinds import Codes
from mert_core.data.targets import (
    INDEX_NAME,
    INDEX_SCHEMA,
    SHARDS_NAME,
    ShardEntry,
    number_type,
    shard_name,
    write_card,
)
from mert_core.data.track import SourceTrack
from mert_core.files import sha256_file
from mert_core.paths import Layout


def write_corpus(
    folder: Path,
    tracks: Iterable[SourceTrack],
    shard_megabytes: float = 0.5,
    kind: str = "corpus",
    params: dict[str, Any] | None = None,
) -> CorpusWriter:
    """Write a corpus or a probe set as its stage leaves it, without a data card."""
    with CorpusWriter(folder, shard_megabytes) as writer:
        for track in tracks:
            writer.add(track)
    write_manifest(folder, writer.rows())
    writer.quarantine.write(folder)
    write_record(folder, stage=kind, kind=kind, inputs={}, params=params or {}, facts={})
    return writer


def write_codes(layout: Layout, teacher: str = "rvqvae", kind: Codes | None = None) -> Record:
    """Write a store of random codes, and the record of a teacher that would have given them."""
    kind = kind or Codes(2, 16)
    made = write_record(
        layout.teacher(teacher), stage="teachers", kind="teacher", run=teacher, inputs={}, params={}, facts={}
    )
    corpus, folder = Corpus.open(layout.corpus), layout.targets(teacher)
    ends = corpus.offset_samples + corpus.samples
    (folder / SHARDS_NAME).mkdir(parents=True)
    generator, entries = np.random.default_rng(0), []
    for shard in sorted(set(corpus.shard.tolist())):
        frames = int(ends[corpus.shard == shard].max()) // HOP_SAMPLES
        path = folder / SHARDS_NAME / shard_name(shard, kind)
        generator.integers(0, kind.entries, (frames, kind.codebooks)).astype(number_type(kind)).tofile(path)
        entries.append(ShardEntry(shard, path.name, sha256_file(path), frames, "0" * 64, made.id, "0" * 64))
    write_card(folder, teacher, made.id, kind, entries)
    columns = [
        corpus.column("track_id"),
        corpus.shard,
        corpus.offset_samples // HOP_SAMPLES,
        corpus.samples // HOP_SAMPLES,
    ]
    pq.write_table(pa.table([pa.array(column) for column in columns], schema=INDEX_SCHEMA), folder / INDEX_NAME)
    inputs = {"corpus": read_record(layout.corpus).id, "teacher": made.id}
    return write_record(
        folder, stage="targets", kind="targets", run=teacher, inputs=inputs, params={}, facts={"kind": str(kind)}
    )
