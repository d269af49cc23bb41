"""Real Ray actors: the same bytes as threads, and a run that is killed goes on from its finished shards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mert_core.cluster import ray_running
from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.targets import stage
from mert_core.targets.actors import with_actors
from mert_core.targets.plan import Unit
from mert_core.teachers import load_teacher
from mert_core.tracking.protocol import NullTracker

# Runs the stage with actors, and dies of SIGKILL when the first shard is finished.
KILLED = """
import os, signal, sys
from pathlib import Path
from mert_core.config import load_config
from mert_core.paths import Layout
from mert_core.targets import kept, stage
from mert_core.tracking.protocol import NullTracker

keep = kept.Kept.keep
def keep_and_die(self, plan, facts):
    keep(self, plan, facts)
    os.kill(os.getpid(), signal.SIGKILL)

kept.Kept.keep, stage.PAYS = keep_and_die, 0
stage.run(load_config(Path(sys.argv[1]), sys.argv[3:]), Layout.at(sys.argv[2]), NullTracker(), "rvqvae")
"""


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray of this machine for all tests here: starting one takes seconds."""
    with ray_running(3, 1, 100 * 2**20):
        import ray

        yield ray.get_runtime_context().gcs_address


def hashes(layout: Layout) -> dict[str, str]:
    folder = layout.targets("rvqvae")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_the_bytes_do_not_depend_on_who_labels(
    small: Config, layout: Layout, ray_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "PAYS", 0)
    found = []
    for actors in (0, 1, 2):
        config = small.model_copy(update={"targets": small.targets.model_copy(update={"actors": actors})})
        stage.run(config, layout, NullTracker(), "rvqvae")
        assert f"by {actors} Ray actors" in capsys.readouterr().err or not actors
        found.append(hashes(layout))
        shutil.rmtree(layout.targets("rvqvae"))
    assert found[0] == found[1] == found[2]


def test_a_killed_run_goes_on_from_its_finished_shards(
    repository: Path, small: Config, layout: Layout, ray_address: str
) -> None:
    from tests.targets.conftest import LENIENT

    command = [sys.executable, "-c", KILLED, str(repository / "params.yaml"), str(layout.root), "threads=1", *LENIENT]
    environment = os.environ | {"RAY_ADDRESS": ray_address, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not layout.targets("rvqvae").exists()
    (kept,) = layout.resume.rglob("*.targets")
    node = kept.stat().st_ino
    stage.run(small, layout, NullTracker(), "rvqvae")
    assert node in [path.stat().st_ino for path in layout.targets("rvqvae").rglob("*.codes")]
    resumed = hashes(layout)
    shutil.rmtree(layout.targets("rvqvae"))
    stage.run(small, layout, NullTracker(), "rvqvae")
    assert hashes(layout) == resumed


def test_an_actor_that_dies_is_replaced_and_one_that_refuses_ends_the_run(layout: Layout, ray_address: str) -> None:
    teacher = load_teacher(layout.teacher("rvqvae"))
    (layout.root / "shards").mkdir()

    def missing(_: int) -> Iterator[Unit]:
        import numpy as np

        yield Unit(0, np.array([0]), np.array([0]), np.array([3200]))

    with pytest.raises(MertError, match=r"cannot map the shard .*00000\.pcm"):
        list(with_actors(1)(teacher, layout.root / "shards", missing))
