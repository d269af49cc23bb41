"""The stage ``targets``: codes for every track, and the label gate."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.config import Config
from mert_core.corpus import Corpus
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_file, sha256_json, write_json
from mert_core.paths import Layout
from mert_core.records import Record, read_record, write_record
from mert_core.targets.encode import encode_corpus
from mert_core.targets.gate import Check, as_table, check_codebooks, check_lengths, count_codes, explain, render
from mert_core.targets.store import (
    CHECKSUMS_NAME,
    CODE_TYPE,
    GATE_NAME,
    INDEX_NAME,
    INDEX_SCHEMA,
    SHARDS_NAME,
    USAGE_NAME,
)
from mert_core.teachers import AcousticTeacher, load_acoustic
from mert_core.tracking.protocol import Tracker

SPLITS = ("train", "valid", "test")
_WIDEST = 65536  # values that a code of 16 bits can have


def run(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Encode the corpus, pass the gate, write the store.

    An interrupted run keeps its finished shards and goes on from there, as does a run whose only change is a
    threshold of the gate.

    Raises:
        MertError: corpus or teacher is missing; or the gate stopped the line (its table has been printed and logged,
            and what stood at the output before still stands there).
    """
    torch.set_num_threads(config.threads)
    inputs = {"corpus": read_record(layout.corpus).id, "teacher": read_record(layout.teachers).id}
    corpus, teacher = Corpus.open(layout.corpus), load_acoustic(layout.teachers)
    if teacher.entries > _WIDEST:
        raise MertError(f"the teacher has {teacher.entries} entries per codebook; a code of the store has 16 bits")
    states = layout.resume / f"targets-{sha256_json(inputs)[:16]}"
    shards = encode_corpus(corpus, teacher, states)
    frames = corpus.samples // HOP_SAMPLES
    counts = _count(corpus, shards, frames, teacher)
    others = sum(counts[split] for split in SPLITS[1:])
    checks = check_codebooks(counts["train"], np.asarray(others), config.targets.gate)
    checks += check_lengths(
        [str(name) for name in corpus.column("track_id")], frames, corpus.column("seconds"), config.targets.gate
    )
    _show(checks, tracker)
    facts = {
        "codebooks": teacher.codebooks,
        "entries": teacher.entries,
        "frames": int(frames.sum()),
        **_summary(checks),
    }
    params = {"gate": config.targets.gate.model_dump(mode="json")}
    with atomic_folder(layout.targets) as folder:
        _write(folder, corpus, teacher, shards, frames, counts, checks)
        record = write_record(folder, stage="targets", kind="targets", inputs=inputs, params=params, facts=facts)
    shutil.rmtree(states, ignore_errors=True)
    return record


def _count(
    corpus: Corpus, shards: list[Path], frames: NDArray[np.int64], teacher: AcousticTeacher
) -> dict[str, NDArray[np.int64]]:
    counts = {split: np.zeros((teacher.codebooks, teacher.entries + 1), dtype=np.int64) for split in SPLITS}
    shard_of, offsets, splits = corpus.column("shard"), corpus.column("offset_samples"), corpus.column("split")
    for shard, path in enumerate(shards):
        codes = np.fromfile(path, dtype=CODE_TYPE).reshape(-1, teacher.codebooks)
        for row in np.flatnonzero(shard_of == shard):
            begin = offsets[row] // HOP_SAMPLES
            counts[splits[row]] += count_codes(codes[begin : begin + frames[row]], teacher.entries)
    return counts


def _show(checks: list[Check], tracker: Tracker) -> None:
    """Print and log the table; raise if the gate is shut."""
    print(render(checks), file=sys.stderr, flush=True)
    table = as_table(checks)
    tracker.table("gate", table)
    tracker.metrics(
        {
            f"gate/{row['check']}/{row['where']}".replace(" ", "_"): row["value"]
            for row in table
            if row["check"] in {"usage", "entropy bits"}
        }
    )
    failed = explain(checks)
    if failed:
        raise MertError(
            f"the label gate stopped the line:\n{failed}\n"
            "Nothing was written. The thresholds are targets.gate in params.yaml."
        )


def _write(
    folder: Path,
    corpus: Corpus,
    teacher: AcousticTeacher,
    shards: list[Path],
    frames: NDArray[np.int64],
    counts: dict[str, NDArray[np.int64]],
    checks: list[Check],
) -> None:
    (folder / SHARDS_NAME).mkdir()
    for path in shards:
        shutil.copyfile(path, folder / SHARDS_NAME / path.name)
    card: dict[str, Any] = {
        "codebooks": teacher.codebooks,
        "entries": teacher.entries,
        "shards": [
            {
                "name": path.name,
                "sha256": sha256_file(path),
                "frames": path.stat().st_size // (teacher.codebooks * CODE_TYPE.itemsize),
            }
            for path in shards
        ],
    }
    write_json(folder / CHECKSUMS_NAME, card)
    index = pa.table(
        {
            "track_id": corpus.tracks["track_id"].combine_chunks(),
            "shard": corpus.column("shard"),
            "offset_frames": corpus.column("offset_samples") // HOP_SAMPLES,
            "frames": frames,
        },
        schema=INDEX_SCHEMA,
    )
    pq.write_table(index, folder / INDEX_NAME, compression="zstd")
    pq.write_table(_usage(counts), folder / USAGE_NAME, compression="zstd")
    write_json(folder / GATE_NAME, {"passed": True, "checks": as_table(checks)})


def _usage(counts: dict[str, NDArray[np.int64]]) -> pa.Table:
    """Return one row per split, codebook and entry with its count."""
    stacked = np.stack([counts[split][:, :-1] for split in SPLITS])
    split, book, entry = np.unravel_index(np.arange(stacked.size), stacked.shape)
    return pa.table(
        {
            "split": pa.array([SPLITS[number] for number in split]),
            "codebook": book.astype(np.int16),
            "entry": entry.astype(np.int32),
            "count": stacked.reshape(-1),
        }
    )


def _summary(checks: list[Check]) -> dict[str, float]:
    usage = [check.value for check in checks if check.check == "usage"]
    entropy = [check.value for check in checks if check.check == "entropy bits"]
    return {
        "least_usage": round(min(usage), 4),
        "mean_usage": round(float(np.mean(usage)), 4),
        "least_entropy_bits": round(min(entropy), 4),
    }
