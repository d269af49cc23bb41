"""One Ray worker trains to the same bytes as this process; a failing worker is an error and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.training.callbacks import SilentObserver
from mert_core.training.ray_train import work_on_ray
from mert_core.training.run import Job, RunInputs, work
from mert_core.training.worker import Worker
from tests.training.music import Tones, params

pytestmark = pytest.mark.integration


def job(out: Path, workers: int, **changes: object) -> Job:
    out.mkdir()
    return Job(
        params(workers=workers, max_steps=4, **changes),
        Tones().open,
        seed=7,
        threads=1,
        out_folder=out,
        resume_folder=out.parent / "states",
    )


def hashes(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


def losses(out: Path) -> list[float]:
    curve = pq.read_table(out / "curve.parquet").to_pandas()
    return curve[(curve.split == "train") & (curve.term == "loss")].value.tolist()


class Listener(SilentObserver):
    """Remembers which figures arrived."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.names |= set(values)


def nothing() -> RunInputs:
    raise MertError("the corpus is gone")


def full() -> RunInputs:
    raise OSError("no space left on device")


def test_one_worker_equals_none_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    facts = work(job(here / "out", 0), Worker(), SilentObserver())
    listener = Listener()
    cost = facts.pop("cost")
    there_facts = work_on_ray(job(there / "out", 1), listener)
    assert there_facts.pop("cost").keys() == cost.keys()
    assert there_facts == facts
    assert hashes(here / "out") == hashes(there / "out")
    assert {"train/loss", "valid/loss", "speed/audio_hours_per_second"} <= listener.names

    broken = Job(params(workers=1), nothing, 7, 1, tmp_path, None)
    with pytest.raises(MertError, match=r"training worker 0 failed: .*the corpus is gone"):
        work_on_ray(broken, SilentObserver())

    unlucky, listener = Job(params(workers=1, max_worker_failures=1), full, 7, 1, tmp_path, None), Listener()
    with pytest.raises(MertError, match=r"training worker 0 failed: .*no space left on device"):
        work_on_ray(unlucky, listener)
    assert ["1 of 1 allowed" in note for note in listener.notes] == [True]
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Mortal(Tones):
    """Music one of whose readers dies, once, as if the machine had taken it away."""

    flag: str = ""

    def open(self) -> RunInputs:
        inputs = super().open()
        music: Any = inputs.music
        calls, read = itertools.count(), music.crops

        def crops(*arguments: object) -> object:
            if next(calls) == 5:
                try:
                    os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass  # another worker was the one, or this is its successor
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return read(*arguments)

        music.crops = crops
        return inputs


def test_a_worker_that_dies_is_replaced_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    one.mkdir()
    changes = {"max_steps": 6, "checkpoint_every": 1, "validate_every": 6, "log_every": 1}
    fields = params(workers=2, **changes)
    run = Job(fields, Mortal(flag=str(tmp_path / "dead")).open, 7, 1, two, tmp_path / "states")
    listener = Listener()
    facts = work_on_ray(run, listener)
    assert (tmp_path / "dead").exists()
    assert facts["steps"] == 6
    assert any("a training worker died" in text for text in listener.notes)
    assert any("going on from step" in text for text in listener.notes)
    work(Job(params(**changes), Tones().open, 7, 1, one, None), Worker(), SilentObserver())
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_workers_see_the_same_music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharding: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    together = job(tmp_path / "out", 2, log_every=1, sharding=sharding)
    facts = work_on_ray(together, SilentObserver())
    whole = tmp_path / "whole"
    whole.mkdir()
    alone = work(job(whole / "out", 0, log_every=1), Worker(), SilentObserver())
    assert facts["audio_hours_seen"] == alone["audio_hours_seen"]
    assert losses(tmp_path / "out") == pytest.approx(losses(whole / "out"), rel=1e-4)
