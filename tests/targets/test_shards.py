"""What need not be made again: shards of a run that did not end, and those of music that has not changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mert_core.config import Config
from mert_core.data.record import write_record
from mert_core.data.targets import TargetStore
from mert_core.paths import Layout
from mert_core.targets.label import Labeler, in_threads
from mert_core.targets.stage import run
from mert_core.tracking import NullTracker
from tests.targets.conftest import write_corpus


@pytest.fixture
def labeled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shard of every batch that is labeled from here on."""
    seen: list[int] = []
    whole = Labeler.__call__

    def counted(self: Labeler, batch: Any) -> Any:
        seen.append(batch.shard)
        return whole(self, batch)

    monkeypatch.setattr(Labeler, "__call__", counted)
    return seen


def shard_files(layout: Layout) -> dict[str, int]:
    folders = [layout.targets("rvqvae") / name for name in ("shards", "facts")]
    return {path.name: path.stat().st_ino for folder in folders for path in folder.iterdir()}


def own_corpus(layout: Layout, **changes: Any) -> None:
    path = layout.corpus
    path.unlink() if path.is_symlink() else shutil.rmtree(path)
    write_corpus(path, **changes)


def test_new_music_makes_only_its_own_shards(small: Config, layout: Layout, labeled: list[int]) -> None:
    own_corpus(layout)
    run(small, layout, NullTracker(), "rvqvae")
    before, track = shard_files(layout), TargetStore.open(layout.targets("rvqvae")).track(3).copy()
    own_corpus(layout, tracks=7)
    labeled.clear()
    record = run(small, layout, NullTracker(), "rvqvae")
    after = shard_files(layout)
    assert set(labeled) == {3} and {"00003.codes", "00003.npz"} == after.keys() - before.keys()
    assert {name: after[name] for name in before} == before
    assert np.array_equal(TargetStore.open(layout.targets("rvqvae")).track(3), track)
    shutil.rmtree(layout.targets("rvqvae"))
    assert run(small, layout, NullTracker(), "rvqvae") == record


def test_another_split_is_counted_anew_without_labelling(small: Config, layout: Layout, labeled: list[int]) -> None:
    own_corpus(layout)
    run(small, layout, NullTracker(), "rvqvae")
    before = shard_files(layout)
    own_corpus(layout, splits={3: "valid"})
    labeled.clear()
    record = run(small, layout, NullTracker(), "rvqvae")
    assert not labeled
    changed = {name for name, node in shard_files(layout).items() if node != before[name]}
    assert changed == {"00001.npz"}
    usage = pq.read_table(layout.targets("rvqvae") / "usage.parquet").to_pandas()
    codes = np.concatenate([TargetStore.open(layout.targets("rvqvae")).track(row)[:, 0] for row in (2, 3)])
    mine = usage[(usage.split == "valid") & (usage.codebook == 0)].sort_values("entry")["count"]
    assert mine.tolist() == np.bincount(codes, minlength=8).tolist()
    shutil.rmtree(layout.targets("rvqvae"))
    assert run(small, layout, NullTracker(), "rvqvae") == record


def test_another_teacher_makes_all_anew(small: Config, layout: Layout, labeled: list[int], tmp_path: Path) -> None:
    run(small, layout, NullTracker(), "rvqvae")
    teachers = layout.teacher("rvqvae").parent
    origin = teachers.resolve()
    teachers.unlink()
    shutil.copytree(origin, teachers)
    write_record(layout.teacher("rvqvae"), stage="teachers", kind="teacher", inputs={}, params={"seed": 2}, facts={})
    labeled.clear()
    run(small, layout, NullTracker(), "rvqvae")
    assert set(labeled) == {0, 1, 2}


@pytest.mark.parametrize("file", ["shards/00000.codes", "facts/00000.npz"])
def test_a_damaged_shard_is_made_anew(small: Config, layout: Layout, labeled: list[int], file: str) -> None:
    record = run(small, layout, NullTracker(), "rvqvae")
    path = layout.targets("rvqvae") / file
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    labeled.clear()
    assert run(small, layout, NullTracker(), "rvqvae") == record
    assert set(labeled) == {0}


def test_a_damaged_card_is_passed_over(small: Config, layout: Layout, labeled: list[int]) -> None:
    record = run(small, layout, NullTracker(), "rvqvae")
    card = layout.targets("rvqvae") / "shards.json"
    card.write_text(json.dumps({"shards": [{"name": "x"}]}))
    assert run(small, layout, NullTracker(), "rvqvae") == record


def test_an_interrupted_run_keeps_its_finished_shards(
    small: Config, layout: Layout, labeled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        for done in in_threads(*arguments):
            if done.batch.shard == 1:
                raise KeyboardInterrupt
            yield done

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mert_core.targets.label.in_threads", interrupted)
        run(small, layout, NullTracker(), "rvqvae")
    assert not layout.targets("rvqvae").exists()
    (kept,) = layout.resume.rglob("*.targets")
    node = kept.stat().st_ino
    labeled.clear()
    run(small, layout, NullTracker(), "rvqvae")
    assert set(labeled) == {1, 2}
    assert shard_files(layout)["00000.codes"] == node
