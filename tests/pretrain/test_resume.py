"""A run that is killed again and again gives the same losses and the same weights as one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.pretrain.job import Job, work
from mert_core.pretrain.observe import SilentObserver
from mert_core.pretrain.place import Place
from mert_core.pretrain.state import StateStore
from tests.pretrain.music import Tones, params

ROOT = Path(__file__).parents[2]
# Dropout and layer drop are on, states fall between logged points, and an epoch (5 updates) ends on the way.
PROGRAM = textwrap.dedent(
    """
    import sys
    from dataclasses import replace
    from pathlib import Path
    import mert_core.model.config as config
    from mert_core.pretrain.job import Job, work
    from mert_core.pretrain.observe import SilentObserver
    from mert_core.pretrain.place import Place
    from tests.pretrain.music import Tones, params
    class Told(SilentObserver):
        def progress(self, step, loss, audio_hours_per_second):
            print(step, flush=True)
    config.PRESETS["mert-tiny"] = replace(config.PRESETS["mert-tiny"], hidden_dropout=0.1, layerdrop=0.2)
    out, states = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(exist_ok=True)
    changes = dict(max_steps=12, log_every=3, validate_every=5, checkpoint_every=2, batch_clips=8)
    work(Job(params(**changes), Tones(), 7, 1, out, states), Place(), Told())
    """
)


def start(out: Path, states: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(out), str(states)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], step: int, seconds: float) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def hashes(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


def test_killed_three_times_equals_uninterrupted(tmp_path: Path) -> None:
    """kill -9 right after an update, while a state may be being written, and before the first new state."""
    whole = start(tmp_path / "whole", tmp_path / "whole-states")
    assert len(whole.communicate()[0].split()) == 12
    assert whole.returncode == 0
    killed, states = tmp_path / "killed", tmp_path / "states"
    for step, seconds in ((3, 0.0), (6, 0.02), (7, 0.0)):
        kill_after(start(killed, states), step, seconds)
        assert not (killed / "model.safetensors").exists()
        assert StateStore(states, 2).newest()[0] is not None
    resumed = start(killed, states)
    steps = [int(line) for line in resumed.communicate()[0].split()]
    assert steps[0] > 4
    assert steps[-1] == 12
    assert hashes(tmp_path / "whole") == hashes(killed)
    terms = pq.read_table(killed / "curve.parquet").to_pandas()
    assert set(terms[terms.split == "train"].step) == {3, 6, 9, 12}


def test_every_state_knows_run_seed_sampler_and_policy(tmp_path: Path) -> None:
    states = StateStore(tmp_path, 2)
    states.begin("run-7")
    run = Job(params(max_steps=5), Tones(), 7, 1, None, tmp_path)
    work(run, Place(), SilentObserver())
    (tmp_path / "run.json").unlink()
    assert states.tracker_run_id() == "run-7"
    meta = states._meta(tmp_path / "step-00000004")["progress"]
    assert (meta["seed"], meta["step"], meta["position"]) == (7, 4, 16)
    assert meta["guard"]["rate_factor"] == 1.0
    assert len(meta["guard"]["norms"]["recent"]) == 4
    with pytest.raises(MertError, match="is of seed 7, this run's is 8"):
        work(Job(run.params, Tones(), 8, 1, None, tmp_path), Place(), SilentObserver())


def test_a_state_with_changed_figures_is_damaged(tmp_path: Path) -> None:
    work(Job(params(max_steps=3), Tones(), 7, 1, None, tmp_path), Place(), SilentObserver())
    meta = tmp_path / "step-00000002" / "meta.json"
    meta.write_text(meta.read_text().replace('"position": 8', '"position": 9'))
    step, damaged = StateStore(tmp_path, 2).newest()
    assert step == 0
    assert damaged == ["the resume state of step 2 is damaged (its checksum differs); using the one before it"]
