"""What was found in the music once is not looked for again by the next teacher, and never believed of other music."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.targets import track_stats
from mert_core.targets.label import ShardPlan
from mert_core.targets.shards import KnownFacts
from mert_core.targets.stage import run
from mert_core.targets.track_stats import track_facts
from mert_core.tracking import NullTracker
from tests.targets.conftest import SECONDS, music_of


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples of every track whose sketch is made from here on."""
    seen: list[int] = []
    sketch = track_stats.sketch

    def counted(pcm: np.ndarray) -> np.ndarray:
        seen.append(len(pcm))
        return sketch(pcm)

    monkeypatch.setattr(track_stats, "sketch", counted)
    return seen


def pcm_of(number: int) -> np.ndarray:
    return (music_of(number) * 32767).astype(np.int16)


def plan_of(*tracks: np.ndarray, facts: np.ndarray | None = None) -> ShardPlan:
    samples = np.array([len(pcm) for pcm in tracks])
    return ShardPlan(0, "a" * 64, np.arange(len(tracks)), np.cumsum(samples) - samples, samples, facts)


def test_music_is_looked_at_once(small: Config, layout: Layout, looked_at: list[int]) -> None:
    record = run(small, layout, NullTracker(), "rvqvae")
    assert len(looked_at) == len(SECONDS)
    looked_at.clear()
    shutil.rmtree(layout.targets("rvqvae"))
    assert run(small, layout, NullTracker(), "rvqvae") == record
    assert not looked_at
    shutil.rmtree(layout.targets("rvqvae"))
    shutil.rmtree(layout.caches)
    assert run(small, layout, NullTracker(), "rvqvae") == record
    assert len(looked_at) == len(SECONDS)


def test_facts_come_back_as_they_were_found(tmp_path: Path) -> None:
    known, plan = KnownFacts(tmp_path), plan_of(pcm_of(0), pcm_of(1))
    assert known.on(plan).facts is None
    found = np.array([track_facts(int(begin), pcm_of(row)) for row, begin in enumerate(plan.offsets)])
    known.keep(plan, found)
    assert np.array_equal(known.on(plan).facts, found)  # type: ignore[arg-type]
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-9])
    assert known.on(plan).facts is None


def test_other_code_knows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(pcm_of(0))
    KnownFacts(tmp_path).keep(plan, np.array([track_facts(0, pcm_of(0))]))
    changed = tmp_path / "facts.py"
    changed.write_bytes(Path(str(track_stats.__file__)).read_bytes() + b"\n")
    monkeypatch.setattr(track_stats, "__file__", str(changed))
    assert KnownFacts(tmp_path).on(plan).facts is None


def test_facts_of_other_samples_do_not_hold(looked_at: list[int]) -> None:
    known = track_facts(0, pcm_of(0))
    changed = pcm_of(0)
    changed[100] += 1
    looked_at.clear()
    assert track_facts(0, pcm_of(0), known) is known and not looked_at
    assert track_facts(0, changed, known)["sha256"].tobytes() != known["sha256"].tobytes() and looked_at
    assert track_facts(320, pcm_of(0), known)["offset_samples"] == 320
