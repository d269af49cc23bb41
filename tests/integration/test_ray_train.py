"""One Ray worker trains to the same bytes as this process; a failing worker is an error and leaves nothing behind."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.pretrain.job import Job, work
from mert_core.pretrain.observe import SilentObserver
from mert_core.pretrain.place import Place
from mert_core.pretrain.ray_wiring import work_on_ray
from tests.pretrain.music import Tones, params

pytestmark = pytest.mark.integration


def job(out: Path, workers: int, **changes: object) -> Job:
    out.mkdir()
    return Job(
        params(workers=workers, max_steps=4, **changes),
        Tones(),
        seed=7,
        threads=1,
        out_folder=out,
        resume_folder=out.parent / "states",
    )


def hashes(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


class Listener(SilentObserver):
    """Remembers which figures arrived."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.names |= set(values)


@dataclass(frozen=True)
class Nothing:
    """Data that cannot be opened."""

    def open(self) -> tuple:
        raise MertError("the corpus is gone")


def test_one_worker_equals_none_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    facts = work(job(here / "out", 0), Place(), SilentObserver())
    listener = Listener()
    assert work_on_ray(job(there / "out", 1), tmp_path / "ray", listener) == facts
    assert hashes(here / "out") == hashes(there / "out")
    assert {"train/loss", "valid/loss", "speed/audio_hours_per_second"} <= listener.names

    broken = Job(params(workers=1), Nothing(), 7, 1, tmp_path, None)
    with pytest.raises(MertError, match=r"training worker 0 failed: .*the corpus is gone"):
        work_on_ray(broken, tmp_path / "ray", SilentObserver())
    assert not list((tmp_path / "ray").iterdir())
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_two_workers_see_the_same_music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    facts = work_on_ray(job(tmp_path / "out", 2, batch_clips=2), tmp_path / "ray", SilentObserver())
    whole = tmp_path / "whole"
    whole.mkdir()
    alone = work(job(whole / "out", 0, batch_clips=4), Place(), SilentObserver())
    assert facts["audio_hours_seen"] == alone["audio_hours_seen"]
    # masks are trimmed to each worker's own minimum, so the two runs are alike, not equal
    assert facts["valid"]["acoustic"] == pytest.approx(alone["valid"]["acoustic"], rel=0.2)
