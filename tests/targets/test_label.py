"""Real Ray actors: the same bytes as threads, and a run that is killed goes on from its finished shards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from mert_core.cluster import ray_running
from mert_core.config import Config
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SHARDS_NAME
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.targets.label import Labeler, in_actors, plan_batches, plan_shards
from mert_core.teachers.spectra import ConstantQTeacher
from tests.targets.conftest import LENIENT, Label, hashes

# Runs the stage with actors, and dies of SIGKILL when the first shard is finished.
KILLED = """
import os, signal, sys
from pathlib import Path
from mert_core.config import load_config
from mert_core.paths import Layout
from mert_core.targets import label, shards, stage
from mert_core.tracking import NullTracker

add = shards.ShardCache.add
def add_and_die(self, plan, arrays):
    add(self, plan, arrays)
    os.kill(os.getpid(), signal.SIGKILL)

shards.ShardCache.add, label.ACTORS_PAY = add_and_die, 0
stage.run(load_config(Path(sys.argv[1]), sys.argv[3:]), Layout.at(sys.argv[2]), NullTracker(), "rvqvae")
"""


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray of this machine for all tests here: starting one takes seconds."""
    with ray_running(3, 1, 100 * 2**20):
        import ray

        yield ray.get_runtime_context().gcs_address


class Dying(ConstantQTeacher):
    """Kills its process the first time."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self._mark = mark

    def forward(self, waveform: Tensor) -> Tensor:
        """Label, if it has died before."""
        if not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(waveform)


def test_the_bytes_do_not_depend_on_who_labels_nor_on_a_kill(
    repository: Path,
    small: Config,
    label: Label,
    layout: Layout,
    ray_address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("mert_core.targets.label.ACTORS_PAY", 0)
    found = []
    for actors in (0, 2):
        label(targets=small.targets.model_copy(update={"actors": actors}))
        assert ("by 2 Ray actors" if actors else "by 1 threads") in caplog.text
        caplog.clear()
        found.append(hashes(layout))
        shutil.rmtree(layout.targets("rvqvae"))

    # a run with one actor, killed when its first shard is finished
    command = [sys.executable, "-c", KILLED, str(repository / "params.yaml"), str(layout.root), "threads=1", *LENIENT]
    environment = os.environ | {"RAY_ADDRESS": ray_address, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [*command, "targets.actors=1"], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not layout.targets("rvqvae").exists()
    (kept,) = layout.resume.rglob("*.targets")
    node = kept.stat().st_ino
    label(targets=small.targets.model_copy(update={"actors": 0}))
    assert "1 of 3 shards of rvqvae are there already" in caplog.text
    assert node in [path.stat().st_ino for path in layout.targets("rvqvae").rglob("*.codes")]
    found.append(hashes(layout))
    assert found[0] == found[1] == found[2]


def test_an_actor_that_dies_is_replaced_and_one_that_refuses_ends_the_run(
    layout: Layout, ray_address: str, tmp_path: Path
) -> None:
    shards = layout.corpus / SHARDS_NAME
    (plan, *_) = plan_shards(Corpus.open(layout.corpus))

    (batch,) = plan_batches([plan], padded=True, batch_samples=10**6)
    missing = replace(batch, shard=99)
    before = Labeler(ConstantQTeacher().freeze(), shards)(batch)
    with pytest.raises(MertError, match=r"cannot map the shard .*00099\.pcm"):
        for done in in_actors(1, Dying(tmp_path / "mark"), shards, lambda _: iter([batch, missing])):
            assert all(np.array_equal(one, other) for one, other in zip(done.targets, before.targets, strict=True))
    assert (tmp_path / "mark").exists()
