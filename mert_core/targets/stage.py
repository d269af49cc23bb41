"""The stage ``targets``: one teacher's targets for every track, and the gate."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.config import Config
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import SPLITS
from mert_core.errors import MertError
from mert_core.files import atomic_folder
from mert_core.paths import Layout
from mert_core.records import Record, write_record
from mert_core.targets.crew import Crew, in_threads
from mert_core.targets.encode import make_shards
from mert_core.targets.evidence import gather, sketches, split_numbers
from mert_core.targets.example import write_example
from mert_core.targets.form import MOST_ENTRIES
from mert_core.targets.gate import Check, as_table, explain, judge, render
from mert_core.targets.kept import Kept, Made
from mert_core.targets.known import KnownFacts
from mert_core.targets.plan import ShardPlan, plan_shards
from mert_core.targets.write import known, write_store
from mert_core.teachers.base import Teacher
from mert_core.teachers.kinds import Codes
from mert_core.teachers.stage import open_teacher
from mert_core.tracking.protocol import Tracker

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
        found, kind, name, teacher_id,
        sketches(shards, plans, ~training), sketches(shards, plans, training), config.targets.gate,
    )  # fmt: skip
    _show(name, checks, tracker)
    with atomic_folder(layout.targets(name)) as folder:
        write_store(folder, corpus, (name, teacher_id), kind, shards, found, checks)
        row = write_example(folder, corpus, kind, plans, shards, splits)
        record = write_record(
            folder, stage="targets", kind="targets", run=name,
            inputs={"corpus": corpus.record.id, "teacher": teacher_id},
            params={"gate": config.targets.gate.model_dump(mode="json")},
            facts={
                "teacher": name, "kind": str(kind), "frames": int(found.frames.sum()), "example": str(found.ids[row]),
                **_summary(kind, checks),
            },
            known={file: digest for made in shards for file, digest in known(made).items()},
        )  # fmt: skip
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
    from mert_core.targets.actors import START_SECONDS, with_actors

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
