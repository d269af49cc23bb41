"""The stage ``targets``: one teacher's targets for every track, and the gate."""

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

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, SAMPLE_RATE
from mert_core.config import Config
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SPLITS
from mert_core.data.record import Record, write_record
from mert_core.data.shards import to_float32
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.data.targets import (
    BINS_NAME,
    EXAMPLE_NAME,
    FACTS_NAME,
    GATE_NAME,
    INDEX_NAME,
    INDEX_SCHEMA,
    MOST_ENTRIES,
    SHARDS_NAME,
    USAGE_NAME,
    facts_name,
    number_type,
    write_card,
)
from mert_core.errors import MertError
from mert_core.features.mel import LogMel
from mert_core.files import atomic_folder, write_json
from mert_core.paths import Layout
from mert_core.targets.label import Crew, ShardPlan, in_threads, plan_shards
from mert_core.targets.quality import judge
from mert_core.targets.quality.labels import bin_deviations
from mert_core.targets.quality.table import Check, as_table, explain, render
from mert_core.targets.shards import Arrays, Kept, KnownFacts, Made, link, make_shards
from mert_core.targets.track_table import Evidence, gather, sketches, split_numbers
from mert_core.teachers.base import Teacher, online
from mert_core.teachers.stage import open_teacher
from mert_core.tracking import Tracker


def write_store(
    folder: Path,
    corpus: Corpus,
    teacher: tuple[str, str],
    kind: TargetKind,
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


EXAMPLE_SECONDS = 6


def write_example(
    folder: Path, corpus: Corpus, kind: TargetKind, plans: list[ShardPlan], shards: list[Made], splits: NDArray[np.int8]
) -> int:
    """Write ``example.npz``: ``targets`` (frames, width) and ``log_mel`` (frames, 128) of a track's first seconds.

    It is the first validation track, or the first of all if there is none.

    Returns:
        The track's row.
    """
    valid = np.flatnonzero(splits == SPLITS.index("valid"))
    row = int(valid[0]) if len(valid) else 0
    place = next(number for number, plan in enumerate(plans) if row in plan.rows)
    plan, made = plans[place], shards[place]
    at = int(np.flatnonzero(plan.rows == row)[0])
    frames = min(int(plan.samples[at]) // HOP_SAMPLES, EXAMPLE_SECONDS * FRAME_RATE)
    begin = int(plan.offsets[at]) // HOP_SAMPLES
    targets = np.memmap(made.targets, number_type(kind), "r", shape=(plan.frames, kind.width))[begin : begin + frames]
    with (folder / EXAMPLE_NAME).open("wb") as stream:
        np.savez(stream, targets=np.array(targets), log_mel=_log_mel(corpus, row, frames))
    return row


def example_of(teacher: Teacher, corpus: Corpus) -> dict[str, NDArray[Any]]:
    """Return the same of a teacher whose targets are not stored: it hears what it must of that track, here and now."""
    valid = corpus.rows("valid")
    row = int(valid[0]) if len(valid) else 0
    track_frames = int(corpus.samples[row]) // HOP_SAMPLES
    frames = min(track_frames, EXAMPLE_SECONDS * FRAME_RATE)
    _, end = teacher.context_span(0, frames, track_frames)
    with torch.inference_mode():
        targets = online(teacher, [torch.from_numpy(to_float32(corpus.pcm(row)[: end * HOP_SAMPLES]))], [0], frames)
    return {"targets": targets[0].numpy(), "log_mel": _log_mel(corpus, row, frames)}


def _log_mel(corpus: Corpus, row: int, frames: int) -> NDArray[np.float16]:
    waveform = torch.from_numpy(to_float32(corpus.pcm(row)[: frames * HOP_SAMPLES]))
    return LogMel()(waveform.unsqueeze(0))[0, :frames].numpy().astype(np.float16)


PAYS = 10
"""Actors are started if the work takes them this many times their start, or longer."""
_SHOWN = {"usage", "entropy bits", "dead bins", "largest magnitude", "silence", "upsampled tracks"}


def run(config: Config, layout: Layout, tracker: Tracker, name: str) -> Record:
    """Label the corpus with one teacher, pass the gate, write the store.

    A shard that the previous store has from the same music and the same teacher is used again. An interrupted run keeps
    its finished shards and goes on from there, as does a run whose only change is a threshold of the gate.

    Raises:
        MertError: corpus or teacher is missing; or the gate stopped the line (its table has been printed and logged,
            and what stood at the output before still stands there).
    """
    torch.set_num_threads(config.threads)
    corpus = Corpus.open(layout.corpus)
    teacher, teacher_id = open_teacher(config, layout, name)
    kind = teacher.kind
    if isinstance(kind, Codes) and kind.entries > MOST_ENTRIES:
        raise MertError(f"the teacher {name} has {kind.entries} entries per codebook; a code of the store has 16 bits")
    states = layout.resume / f"targets-{name}-{teacher_id[:16]}"
    kept = Kept(states, layout.targets(name), teacher_id, kind)
    plans, splits = plan_shards(corpus), split_numbers(corpus)
    shards = _shards(config, corpus, plans, teacher, (kept, KnownFacts(layout.caches)), splits)
    found, shards = gather(corpus, kind, plans, shards, kept)
    training = splits == SPLITS.index("train")
    checks = judge(
        found,
        kind,
        name,
        teacher_id,
        sketches(shards, plans, ~training),
        sketches(shards, plans, training),
        config.targets.gate,
    )
    _show(name, checks, tracker)
    with atomic_folder(layout.targets(name)) as folder:
        write_store(folder, corpus, (name, teacher_id), kind, shards, found, checks)
        row = write_example(folder, corpus, kind, plans, shards, splits)
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
                "frames": int(found.frames.sum()),
                "example": str(found.ids[row]),
                **_summary(kind, checks),
            },
            known={file: digest for made in shards for file, digest in known(made).items()},
        )
    shutil.rmtree(states, ignore_errors=True)
    return record


def _shards(
    config: Config,
    corpus: Corpus,
    plans: list[ShardPlan],
    teacher: Teacher,
    before: tuple[Kept, KnownFacts],
    splits: NDArray[np.int8],
) -> list[Made]:
    """Return all shards in order; those that are finished are not made again."""
    kept, known = before
    made = {plan.shard: found for plan in plans if (found := kept.find(plan))}
    missing = [plan for plan in plans if plan.shard not in made]
    if made:
        print(f"targets: {len(made)} of {len(plans)} shards of {teacher.name} are there already", file=sys.stderr)
    if missing:
        seconds = sum(int(plan.samples.sum()) for plan in missing) / SAMPLE_RATE
        crew = _crew(config.targets.actors, teacher, seconds)
        made |= {shard.entry.shard: shard for shard in make_shards(corpus, missing, teacher, kept, known, crew, splits)}
    return [made[plan.shard] for plan in plans]


def _crew(actors: int, teacher: Teacher, seconds: float) -> Crew:
    """Return who labels so much music: actors if that takes much longer than their start, else threads."""
    from mert_core.targets.label import START_SECONDS, with_actors

    pays = bool(actors) and seconds / teacher.speed / actors >= PAYS * START_SECONDS
    who = f"{actors} Ray actors" if pays else f"{torch.get_num_threads()} threads"
    print(f"targets: {seconds:,.0f} s of music to label with {teacher.name}, by {who}", file=sys.stderr)
    return with_actors(actors) if pays else in_threads


def _show(name: str, checks: list[Check], tracker: Tracker) -> None:
    """Print and log the table; raise if the gate is shut."""
    print(render(checks, f"gate of {name}"), file=sys.stderr, flush=True)
    table = as_table(checks)
    tracker.table("gate", table)
    tracker.metrics(
        {f"gate/{row['check']}/{row['where']}".replace(" ", "_"): row["value"] for row in table if _is_figure(row)}
    )
    failed = explain(checks)
    if failed:
        raise MertError(
            f"the gate stopped the line at the targets of {name}:\n{failed}\n"
            "Nothing was written. The thresholds are targets.gate in params.yaml."
        )


def _is_figure(row: dict[str, Any]) -> bool:
    return row["check"] in _SHOWN and not row["where"].startswith("track ")


def _summary(kind: Codes | Any, checks: list[Check]) -> dict[str, Any]:
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
