"""The stage ``targets``: one teacher's targets for every track, and the quality gate.

Plan the shards, take over those that are finished, label the others, gather what they say of every track, judge it,
and write the store: shards, index, statistics, the gate's table and an example for the report.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, SAMPLE_RATE
from mert_core.config import Config
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SHARDS_NAME, SPLITS
from mert_core.data.record import Record, write_record
from mert_core.data.shards import to_float32
from mert_core.data.tables import write_table
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.data.targets import FACTS_NAME, INDEX_NAME, INDEX_SCHEMA, facts_name, number_type, shard_name, write_card
from mert_core.errors import MertError
from mert_core.features.mel import LogMel
from mert_core.files import atomic_folder, link_or_copy, write_json
from mert_core.paths import Layout
from mert_core.targets.label import choose_executor, plan_shards
from mert_core.targets.quality import Check, as_table, bin_deviations, explain, judge, render
from mert_core.targets.shards import Arrays, ShardCache, TrackStatsCache, fingerprints, gather, label_shards
from mert_core.teachers.base import Teacher, online
from mert_core.teachers.stage import open_teacher

if TYPE_CHECKING:
    from mert_core.tracking import Tracker

EXAMPLE_SECONDS = 6
_SHOWN = {"usage", "entropy bits", "dead bins", "largest magnitude", "silence", "upsampled tracks"}

logger = logging.getLogger(__name__)


def run(config: Config, layout: Layout, tracker: Tracker, name: str) -> Record:
    """Label the corpus with one teacher, pass the gate, write the store.

    A shard that the previous store has from the same music and the same teacher is used again. An interrupted run keeps
    its finished shards and goes on from there, as does a run whose only change is a threshold of the gate.

    Raises:
        MertError: corpus or teacher is missing; or the gate stopped the pipeline (its table has been logged, and what
            stood at the output before still stands there).
    """
    torch.set_num_threads(config.threads)
    corpus = Corpus.open(layout.corpus)
    teacher, teacher_id = open_teacher(config, layout, name)
    kind = teacher.kind
    if isinstance(kind, Codes) and kind.entries > 2**16:
        raise MertError(f"the teacher {name} has {kind.entries} entries per codebook; a code of the store has 16 bits")

    # targets of every shard: those that are finished are not made again
    unfinished = layout.resume / f"targets-{name}-{teacher_id[:16]}"
    cache = ShardCache(unfinished, layout.targets(name), teacher_id, kind)
    plans = plan_shards(corpus)
    finished = {plan.shard: shard for plan in plans if (shard := cache.find(plan))}
    missing = [plan for plan in plans if plan.shard not in finished]
    if finished:
        logger.info("targets: %d of %d shards of %s are there already", len(finished), len(plans), name)
    if missing:
        seconds = sum(int(plan.samples.sum()) for plan in missing) / SAMPLE_RATE
        executor = choose_executor(config.targets.actors, teacher, seconds)
        for shard in label_shards(corpus, missing, teacher, cache, TrackStatsCache(layout.caches), executor):
            finished[shard.entry.shard] = shard

    # the gate, over what the shards say of every track
    tracks, statistics, shards = gather(corpus, kind, plans, [finished[plan.shard] for plan in plans], cache)
    training = corpus.split == SPLITS.index("train")
    checks = judge(
        tracks,
        statistics,
        kind,
        {shard.entry.name: shard.entry.teacher for shard in shards},
        (name, teacher_id),
        fingerprints(shards, plans, ~training),
        fingerprints(shards, plans, training),
        config.targets.gate,
    )
    _report(name, checks, tracker)

    with atomic_folder(layout.targets(name)) as folder:
        for subfolder in (SHARDS_NAME, FACTS_NAME):
            (folder / subfolder).mkdir()
        for shard in shards:
            link_or_copy(shard.targets, folder / SHARDS_NAME / shard.entry.name)
            link_or_copy(shard.statistics, folder / FACTS_NAME / facts_name(shard.entry.name))
        write_card(folder, name, teacher_id, kind, (shard.entry for shard in shards))
        _write_tables(folder, corpus, tracks, kind, statistics)
        write_json(folder / "gate.json", {"passed": True, "checks": as_table(checks)})
        row = _write_example(folder, corpus, kind)
        record = write_record(
            folder,
            stage="targets",
            kind="targets",
            run=name,
            inputs={"corpus": corpus.record.id, "teacher": teacher_id},
            params={"gate": config.targets.gate.model_dump(mode="json")},
            facts={
                "teacher": name,
                "kind": str(kind),
                "frames": int(tracks["frames"].to_numpy().sum()),
                "example": str(tracks["track_id"][row]),
                **_summary(kind, checks),
            },
            known={path: sha256 for shard in shards for path, sha256 in shard.checksums.items()},
        )
    shutil.rmtree(unfinished, ignore_errors=True)
    return record


def _report(name: str, checks: list[Check], tracker: Tracker) -> None:
    """Log and track the gate's table.

    Raises:
        MertError: a check failed.
    """
    logger.info("%s", render(checks, f"gate of {name}"))
    table = as_table(checks)
    tracker.table("gate", table)
    shown = [row for row in table if row["check"] in _SHOWN and not row["where"].startswith("track ")]
    tracker.metrics({f"gate/{row['check']}/{row['where']}".replace(" ", "_"): row["value"] for row in shown})
    if failed := explain(checks):
        raise MertError(
            f"the gate stopped the pipeline at the targets of {name}:\n{failed}\n"
            "Nothing was written. The thresholds are targets.gate in params.yaml."
        )


def _summary(kind: TargetKind, checks: list[Check]) -> dict[str, Any]:
    """Return the record's facts about the targets' quality."""
    values: dict[str, list[float]] = {}
    for check in checks:
        values.setdefault(check.check, []).append(check.value)
    facts: dict[str, Any] = {"silence": round(values["silence"][0], 4)}
    if not isinstance(kind, Codes):
        return {"bins": kind.bins, "largest_magnitude": round(values["largest magnitude"][0], 4), **facts}
    return {
        "codebooks": kind.codebooks,
        "entries": kind.entries,
        "least_usage": round(min(values["usage"]), 4),
        "mean_usage": round(float(np.mean(values["usage"])), 4),
        "least_entropy_bits": round(min(values["entropy bits"]), 4),
        **facts,
    }


def _write_tables(folder: Path, corpus: Corpus, tracks: pa.Table, kind: TargetKind, statistics: Arrays) -> None:
    """Write the index, and the statistics: of codes how often each occurs, of spectra what the bins are like."""
    columns = {
        "track_id": tracks["track_id"],
        "shard": corpus.shard,
        "offset_frames": corpus.offset_samples // HOP_SAMPLES,
        "frames": tracks["frames"],
    }
    write_table(folder / INDEX_NAME, pa.table(columns, schema=INDEX_SCHEMA).combine_chunks())
    names = np.array(SPLITS)
    if isinstance(kind, Codes):
        counts = statistics["counts"][:, :, :-1]
        split, book, entry = np.unravel_index(np.arange(counts.size), counts.shape)
        usage = {
            "split": pa.array(names[split].tolist()),
            "codebook": book.astype(np.int16),
            "entry": entry.astype(np.int32),
            "count": counts.reshape(-1),
        }
        write_table(folder / "usage.parquet", pa.table(usage))
        return
    frames = statistics["frames"][:, None]
    split, bin_number = np.nonzero(np.repeat(frames > 0, kind.bins, axis=1))  # one row per bin of a split with music
    values = {
        "mean": statistics["sums"] / np.maximum(frames, 1),
        "deviation": bin_deviations(statistics),
        "least": statistics["least"],
        "most": statistics["most"],
    }
    bins = {"split": pa.array(names[split].tolist()), "bin": bin_number.astype(np.int32)}
    write_table(
        folder / "bins.parquet", pa.table({**bins, **{name: of[split, bin_number] for name, of in values.items()}})
    )


def _write_example(folder: Path, corpus: Corpus, kind: TargetKind) -> int:
    """Write ``example.npz``: ``targets`` (frames, width) and ``log_mel`` (frames, 128) of a track's first seconds.

    Returns:
        The track's row.
    """
    row, frames = _example_track(corpus)
    shard, begin = int(corpus.shard[row]), int(corpus.offset_samples[row]) // HOP_SAMPLES
    stored = np.memmap(folder / SHARDS_NAME / shard_name(shard, kind), number_type(kind), "r")
    targets = stored.reshape(-1, kind.width)[begin : begin + frames]
    with (folder / "example.npz").open("wb") as stream:
        np.savez(stream, targets=np.array(targets), log_mel=_log_mel(corpus, row, frames))
    return row


def _example_track(corpus: Corpus) -> tuple[int, int]:
    """Return a row and a number of frames: of the first validation track, or the first of all if there is none."""
    row = int(next(iter(corpus.rows("valid")), 0))
    return row, min(int(corpus.samples[row]) // HOP_SAMPLES, EXAMPLE_SECONDS * FRAME_RATE)


def example_of(teacher: Teacher, corpus: Corpus) -> dict[str, NDArray[Any]]:
    """Return what ``example.npz`` holds for a teacher whose targets are not stored, computed here and now."""
    row, frames = _example_track(corpus)
    _, end = teacher.context_span(0, frames, int(corpus.samples[row]) // HOP_SAMPLES)
    with torch.inference_mode():
        targets = online(teacher, [torch.from_numpy(to_float32(corpus.pcm(row)[: end * HOP_SAMPLES]))], [0], frames)
    return {"targets": targets[0].numpy(), "log_mel": _log_mel(corpus, row, frames)}


def _log_mel(corpus: Corpus, row: int, frames: int) -> NDArray[np.float16]:
    waveform = torch.from_numpy(to_float32(corpus.pcm(row)[: frames * HOP_SAMPLES]))
    return LogMel()(waveform.unsqueeze(0))[0, :frames].numpy().astype(np.float16)
