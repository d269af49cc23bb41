"""What was measured once is not measured again for the next teacher, and never believed of other music."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.targets import track_stats
from mert_core.targets.label import ShardTracks
from mert_core.targets.shards import TrackStatsCache
from mert_core.targets.stage import run
from mert_core.targets.track_stats import measure_track
from mert_core.tracking import NullTracker
from tests.targets.conftest import SECONDS, music_of


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


def pcm_of(number: int) -> np.ndarray:
    return (music_of(number) * 32767).astype(np.int16)


def plan_of(*tracks: np.ndarray, stats: np.ndarray | None = None) -> ShardTracks:
    samples = np.array([len(pcm) for pcm in tracks])
    return ShardTracks(0, "a" * 64, np.arange(len(tracks)), np.cumsum(samples) - samples, samples, stats)


def test_music_is_measured_once(small: Config, layout: Layout, measured: list[int]) -> None:
    record = run(small, layout, NullTracker(), "rvqvae")
    assert len(measured) == len(SECONDS)
    measured.clear()
    shutil.rmtree(layout.targets("rvqvae"))
    assert run(small, layout, NullTracker(), "rvqvae") == record
    assert not measured
    shutil.rmtree(layout.targets("rvqvae"))
    shutil.rmtree(layout.caches)
    assert run(small, layout, NullTracker(), "rvqvae") == record
    assert len(measured) == len(SECONDS)


def test_statistics_come_back_as_they_were_measured(tmp_path: Path) -> None:
    cache, plan = TrackStatsCache(tmp_path), plan_of(pcm_of(0), pcm_of(1))
    assert cache.fill(plan).stats is None
    stats = np.array([measure_track(int(begin), pcm_of(row)) for row, begin in enumerate(plan.offsets)])
    cache.add(plan, stats)
    assert np.array_equal(cache.fill(plan).stats, stats)  # type: ignore[arg-type]
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-9])
    assert cache.fill(plan).stats is None


def test_other_code_knows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(pcm_of(0))
    TrackStatsCache(tmp_path).add(plan, np.array([measure_track(0, pcm_of(0))]))
    changed = tmp_path / "facts.py"
    changed.write_bytes(Path(str(track_stats.__file__)).read_bytes() + b"\n")
    monkeypatch.setattr(track_stats, "__file__", str(changed))
    assert TrackStatsCache(tmp_path).fill(plan).stats is None


def test_statistics_of_other_samples_do_not_hold(measured: list[int]) -> None:
    cached = measure_track(0, pcm_of(0))
    changed = pcm_of(0)
    changed[100] += 1
    measured.clear()
    assert measure_track(0, pcm_of(0), cached) is cached and not measured
    assert measure_track(0, changed, cached)["sha256"].tobytes() != cached["sha256"].tobytes() and measured
    assert measure_track(320, pcm_of(0), cached)["offset_samples"] == 320
