"""What need not be made again: shards of a run that did not end, those of music that has not changed, and statistics
of the music, which every teacher's run would measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mert_core.data.record import write_record
from mert_core.data.targets import TargetStore
from mert_core.paths import Layout
from mert_core.targets import track_stats
from mert_core.targets.label import Labeler, ShardTracks, in_threads
from mert_core.targets.shards import TrackStatsCache
from mert_core.targets.track_stats import measure_track
from tests.targets.conftest import SECONDS, Label, make_corpus, music_of


@pytest.fixture
def labeled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shard of every batch that is labeled from here on."""
    seen: list[int] = []
    whole = Labeler.__call__

    def counted(self: Labeler, batch: ShardTracks) -> Any:
        seen.append(batch.shard)
        return whole(self, batch)

    monkeypatch.setattr(Labeler, "__call__", counted)
    return seen


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples of every track whose fingerprint is made from here on."""
    seen: list[int] = []
    fingerprint = track_stats.fingerprint

    def counted(pcm: np.ndarray) -> np.ndarray:
        seen.append(len(pcm))
        return fingerprint(pcm)

    monkeypatch.setattr(track_stats, "fingerprint", counted)
    return seen


def shard_files(layout: Layout) -> dict[str, int]:
    folders = [layout.targets("rvqvae") / name for name in ("shards", "facts")]
    return {path.name: path.stat().st_ino for folder in folders for path in folder.iterdir()}


def own_corpus(layout: Layout, **changes: Any) -> None:
    path = layout.corpus
    path.unlink() if path.is_symlink() else shutil.rmtree(path)
    make_corpus(path, **changes)


def test_new_music_makes_only_its_own_shards(label: Label, layout: Layout, labeled: list[int]) -> None:
    own_corpus(layout)
    label()
    before, track = shard_files(layout), TargetStore.open(layout.targets("rvqvae")).track(3).copy()
    own_corpus(layout, tracks=7)
    labeled.clear()
    record = label()
    after = shard_files(layout)
    assert set(labeled) == {3} and {"00003.codes", "00003.npz"} == after.keys() - before.keys()
    assert {name: after[name] for name in before} == before
    assert np.array_equal(TargetStore.open(layout.targets("rvqvae")).track(3), track)
    shutil.rmtree(layout.targets("rvqvae"))
    assert label() == record


def test_another_split_is_counted_anew_without_labelling(label: Label, layout: Layout, labeled: list[int]) -> None:
    own_corpus(layout)
    label()
    before = shard_files(layout)
    own_corpus(layout, splits={3: "valid"})
    labeled.clear()
    record = label()
    assert not labeled
    assert {name for name, node in shard_files(layout).items() if node != before[name]} == {"00001.npz"}
    usage = pq.read_table(layout.targets("rvqvae") / "usage.parquet").to_pandas()
    codes = np.concatenate([TargetStore.open(layout.targets("rvqvae")).track(row)[:, 0] for row in (2, 3)])
    mine = usage[(usage.split == "valid") & (usage.codebook == 0)].sort_values("entry")["count"]
    assert mine.tolist() == np.bincount(codes, minlength=8).tolist()
    shutil.rmtree(layout.targets("rvqvae"))
    assert label() == record


def test_another_teacher_makes_all_anew(label: Label, layout: Layout, labeled: list[int]) -> None:
    label()
    teachers = layout.teacher("rvqvae").parent
    origin = teachers.resolve()
    teachers.unlink()
    shutil.copytree(origin, teachers)
    write_record(layout.teacher("rvqvae"), stage="teachers", kind="teacher", inputs={}, params={"seed": 2}, facts={})
    labeled.clear()
    label()
    assert set(labeled) == {0, 1, 2}


@pytest.mark.parametrize("file", ["shards/00000.codes", "facts/00000.npz"])
def test_a_damaged_shard_is_made_anew(label: Label, layout: Layout, labeled: list[int], file: str) -> None:
    record = label()
    path = layout.targets("rvqvae") / file
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    labeled.clear()
    assert label() == record
    assert set(labeled) == {0}


def test_a_damaged_card_is_passed_over(label: Label, layout: Layout) -> None:
    record = label()
    (layout.targets("rvqvae") / "shards.json").write_text(json.dumps({"shards": [{"name": "x"}]}))
    assert label() == record


def test_an_interrupted_run_keeps_its_finished_shards(
    label: Label, layout: Layout, labeled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        for done in in_threads(*arguments):
            if done.batch.shard == 1:
                raise KeyboardInterrupt
            yield done

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mert_core.targets.label.in_threads", interrupted)
        label()
    assert not layout.targets("rvqvae").exists()
    (kept,) = layout.resume.rglob("*.targets")
    node = kept.stat().st_ino
    labeled.clear()
    label()
    assert set(labeled) == {1, 2}
    assert shard_files(layout)["00000.codes"] == node


def test_music_is_measured_once(label: Label, layout: Layout, measured: list[int]) -> None:
    record = label()
    assert len(measured) == len(SECONDS)
    measured.clear()
    shutil.rmtree(layout.targets("rvqvae"))
    assert label() == record
    assert not measured
    shutil.rmtree(layout.targets("rvqvae"))
    shutil.rmtree(layout.caches)
    assert label() == record
    assert len(measured) == len(SECONDS)


def pcm_of(number: int) -> np.ndarray:
    return (music_of(number) * 32767).astype(np.int16)


def test_statistics_come_back_as_they_were_measured_by_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, music = TrackStatsCache(tmp_path), [pcm_of(0), pcm_of(1)]
    samples = np.array([len(pcm) for pcm in music])
    plan = ShardTracks(0, "a" * 64, np.arange(2), np.cumsum(samples) - samples, samples)
    assert cache.fill(plan).stats is None
    stats = np.array([measure_track(int(begin), pcm) for begin, pcm in zip(plan.offsets, music, strict=True)])
    cache.add(plan, stats)
    assert np.array_equal(cache.fill(plan).stats, stats)  # type: ignore[arg-type]

    changed = tmp_path / "changed.py"
    changed.write_bytes(Path(str(track_stats.__file__)).read_bytes() + b"\n")
    with monkeypatch.context() as patch:
        patch.setattr(track_stats, "__file__", str(changed))
        assert TrackStatsCache(tmp_path).fill(plan).stats is None

    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-9])
    assert cache.fill(plan).stats is None


def test_statistics_of_other_samples_do_not_hold(measured: list[int]) -> None:
    cached = measure_track(0, pcm_of(0))
    changed = pcm_of(0)
    changed[100] += 1
    measured.clear()
    assert measure_track(0, pcm_of(0), cached) is cached and not measured
    assert measure_track(0, changed, cached)["sha256"].tobytes() != cached["sha256"].tobytes() and measured
    assert measure_track(320, pcm_of(0), cached)["offset_samples"] == 320
