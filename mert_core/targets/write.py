"""Writing the store: shards by a second name, card, index, and the figures that the report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import SPLITS
from mert_core.files import write_json
from mert_core.targets.evidence import Evidence
from mert_core.targets.form import (
    BINS_NAME,
    FACTS_NAME,
    GATE_NAME,
    INDEX_NAME,
    INDEX_SCHEMA,
    SHARDS_NAME,
    USAGE_NAME,
    facts_name,
    write_card,
)
from mert_core.targets.gate import Check, as_table
from mert_core.targets.gate.labels import bin_deviations
from mert_core.targets.kept import Arrays, Made, link
from mert_core.teachers.kinds import Codes, Kind


def write_store(
    folder: Path,
    corpus: Corpus,
    teacher: tuple[str, str],
    kind: Kind,
    shards: list[Made],
    found: Evidence,
    checks: list[Check],
) -> None:
    """Write everything but the example and the record into an empty folder.

    Args:
        folder: receives the store.
        corpus: what was labelled.
        teacher: name and id.
        kind: of the targets.
        shards: in the order of their numbers.
        found: what the gate judged.
        checks: its table.
    """
    for name in (SHARDS_NAME, FACTS_NAME):
        (folder / name).mkdir()
    for made in shards:
        link(made.targets, folder / SHARDS_NAME / made.entry.name)
        link(made.facts, folder / FACTS_NAME / facts_name(made.entry.name))
    write_card(folder, *teacher, kind, (made.entry for made in shards))
    index = pa.table(
        {
            "track_id": found.ids,
            "shard": corpus.column("shard").astype(np.int32),
            "offset_frames": corpus.column("offset_samples") // HOP_SAMPLES,
            "frames": found.frames,
        },
        schema=INDEX_SCHEMA,
    ).combine_chunks()
    pq.write_table(index, folder / INDEX_NAME, compression="zstd")
    name, table = (USAGE_NAME, _usage(found.figures)) if isinstance(kind, Codes) else (BINS_NAME, _bins(found.figures))
    pq.write_table(table, folder / name, compression="zstd")
    write_json(folder / GATE_NAME, {"passed": True, "checks": as_table(checks)})


def known(made: Made) -> dict[str, str]:
    """Return the checksums of a shard's two files by their paths in the store: they need not be read for the record."""
    name, entry = made.entry.name, made.entry
    return {f"{SHARDS_NAME}/{name}": entry.sha256, f"{FACTS_NAME}/{facts_name(name)}": entry.facts_sha256}


def _usage(figures: Arrays) -> pa.Table:
    """Return one row per split, codebook and entry with its count."""
    counts = figures["counts"][:, :, :-1]
    split, book, entry = np.unravel_index(np.arange(counts.size), counts.shape)
    return pa.table(
        {
            "split": pa.array([SPLITS[number] for number in split]),
            "codebook": book.astype(np.int16),
            "entry": entry.astype(np.int32),
            "count": counts.reshape(-1),
        }
    )


def _bins(figures: Arrays) -> pa.Table:
    """Return one row per bin and split that has music: mean, deviation, least and most."""
    split, bin_number = np.nonzero(np.repeat(figures["frames"][:, None] > 0, figures["sums"].shape[1], axis=1))
    mean = figures["sums"] / np.maximum(figures["frames"], 1)[:, None]
    columns = {"mean": mean, "deviation": bin_deviations(figures), "least": figures["least"], "most": figures["most"]}
    return pa.table(
        {
            "split": pa.array([SPLITS[number] for number in split]),
            "bin": bin_number.astype(np.int32),
            **{name: values[split, bin_number] for name, values in columns.items()},
        }
    )
