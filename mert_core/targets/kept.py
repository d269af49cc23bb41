"""Finished target shards that are used again: a shard is a function of its PCM shard and its teacher."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.files import atomic_path, sha256_file, write_json
from mert_core.targets.facts import TRACK_FACTS
from mert_core.targets.form import (
    CHECKSUMS_NAME,
    FACTS_NAME,
    SHARDS_NAME,
    ShardEntry,
    entries_of,
    facts_name,
    shard_name,
)
from mert_core.targets.plan import ShardPlan
from mert_core.teachers.kinds import Kind

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """A finished shard: its entry and where its two files lie now.

    Attributes:
        entry: as the card will say it.
        targets: the shard.
        facts: a NumPy archive: ``tracks`` (tracks,) of `TRACK_FACTS`, and the arrays of `mert_core.targets.tally`.
        made_now: whether this run made it.
    """

    entry: ShardEntry
    targets: Path
    facts: Path
    made_now: bool = False

    def arrays(self) -> Arrays:
        """Return what the facts' file holds."""
        with np.load(self.facts) as stored:
            return {name: stored[name] for name in stored.files}


class Kept:
    """The shards that a teacher has labelled before: in an earlier store, and those of a run that did not end.

    Attributes:
        folder: of unfinished runs; a shard there goes by the checksum of its PCM shard.
        teacher_id: of the teacher.
        kind: of its targets.
    """

    def __init__(self, folder: Path, previous: Path, teacher_id: str, kind: Kind) -> None:
        self.folder, self.teacher_id, self.kind = folder, teacher_id, kind
        self._previous: dict[str, Made] = {}
        try:
            entries = entries_of(json.loads((previous / CHECKSUMS_NAME).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, KeyError, TypeError):
            return  # no store, or one that cannot be used
        for entry in entries:
            if entry.teacher == teacher_id:
                targets, facts = previous / SHARDS_NAME / entry.name, previous / FACTS_NAME / facts_name(entry.name)
                self._previous[entry.pcm_sha256] = Made(entry, targets, facts)

    def find(self, plan: ShardPlan) -> Made | None:
        """Return a shard that need not be made again: same music, same teacher, same tracks, bytes as written."""
        for made in (self._unfinished(plan), self._previous.get(plan.pcm_sha256)):
            if made is not None and self._is_good(made, plan):
                name = shard_name(plan.shard, self.kind)
                return replace(made, entry=replace(made.entry, shard=plan.shard, name=name))
        return None

    def path(self, plan: ShardPlan) -> Path:
        """Return where a shard's targets lie while the run has not ended."""
        return self.folder / f"{plan.pcm_sha256}.targets"

    def keep(self, plan: ShardPlan, facts: Arrays) -> Made:
        """Take in a shard whose targets lie at `path`; from here on it is finished."""
        path = self.path(plan)
        entry = ShardEntry(
            shard=plan.shard, name=shard_name(plan.shard, self.kind), sha256=sha256_file(path), frames=plan.frames,
            pcm_sha256=plan.pcm_sha256, teacher=self.teacher_id, facts_sha256="",
        )  # fmt: skip
        return self.with_facts(Made(entry, path, path, made_now=True), facts)

    def with_facts(self, made: Made, facts: Arrays) -> Made:
        """Return the shard with other facts; they lie here, whatever lies in the earlier store stays as it is."""
        path = self.folder / f"{made.entry.pcm_sha256}.facts.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **facts)  # type: ignore[arg-type]
        entry = replace(made.entry, facts_sha256=sha256_file(path))
        if made.targets.parent == self.folder:
            write_json(self.folder / f"{entry.pcm_sha256}.json", asdict(entry))
        return replace(made, entry=entry, facts=path)

    def _unfinished(self, plan: ShardPlan) -> Made | None:
        try:
            text = (self.folder / f"{plan.pcm_sha256}.json").read_text(encoding="utf-8")
            entry = ShardEntry(**json.loads(text))
        except (OSError, json.JSONDecodeError, TypeError):
            return None
        return Made(entry, self.path(plan), self.folder / f"{plan.pcm_sha256}.facts.npz")

    def _is_good(self, made: Made, plan: ShardPlan) -> bool:
        try:
            whole = (
                made.entry.teacher == self.teacher_id
                and made.entry.frames == plan.frames
                and sha256_file(made.facts) == made.entry.facts_sha256
                and sha256_file(made.targets) == made.entry.sha256
            )
            tracks = made.arrays()["tracks"] if whole else None
        except (OSError, ValueError, KeyError):
            return False
        return (
            tracks is not None
            and tracks.dtype == TRACK_FACTS
            and np.array_equal(tracks["offset_samples"], plan.offsets)
            and np.array_equal(tracks["samples"], plan.samples)
        )


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
