"""A run that is killed again and again gives the same losses and the same weights as one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mert_core.errors import MertError
from mert_core.training.callbacks import SilentObserver
from mert_core.training.checkpoint import StateStore
from tests.training.music import train
from tests.training.workers import finish, hashes, kill_after, start

# Dropout and layer drop are on, states fall between logged points, and an epoch (5 updates) ends on the way.
RUN = {
    "shape": {"hidden_dropout": 0.1, "layerdrop": 0.2},
    "global_batch_size": 8,
    "max_steps": 12,
    "log_every": 3,
    "validate_every": 5,
    "checkpoint_every": 2,
}


@pytest.mark.parametrize("engine", [{}, {"world": 2, "sharding": "full"}])
def test_killed_three_times_equals_uninterrupted(tmp_path: Path, engine: dict[str, Any]) -> None:
    """kill -9 right after an update, while a state may be being written, and before the first new state."""
    run = {**RUN, **engine}
    assert len(finish(start(tmp_path / "whole", tmp_path / "whole-states", **run))) == 12
    killed, states = tmp_path / "killed", tmp_path / "states"
    for step, seconds in ((3, 0.0), (6, 0.02), (7, 0.0)):
        kill_after(start(killed, states, **run), step, seconds)
        assert not (killed / "model.safetensors").exists()
        assert StateStore(states, 2).newest()[0] is not None
    steps = finish(start(killed, states, **run))
    assert steps[0] > 4
    assert steps[-1] == 12
    assert hashes(tmp_path / "whole") == hashes(killed)
    terms = pq.read_table(killed / "curve.parquet").to_pandas()
    assert set(terms[terms.split == "train"].step) == {3, 6, 9, 12}


def test_every_state_knows_run_seed_sampler_and_policy(tmp_path: Path) -> None:
    states = StateStore(tmp_path, 2)
    states.begin("run-7")
    train(None, tmp_path, max_steps=5)
    (tmp_path / "run.json").unlink()
    assert states.tracker_run_id() == "run-7"
    meta = states._meta(4)["progress"]
    assert (meta["seed"], meta["step"], meta["position"]) == (7, 4, 16)
    assert meta["health"]["rate_factor"] == 1.0
    assert len(meta["health"]["norms"]) == 4
    with pytest.raises(MertError, match="is of seed 7, this run's is 8"):
        train(None, tmp_path, seed=8, max_steps=5)


@pytest.mark.parametrize(("file", "old", "new"), [("state.pt", b"", b"torn"), ("meta.json", b": 16,", b": 17,")])
def test_a_damaged_state_is_passed_over(tmp_path: Path, file: str, old: bytes, new: bytes) -> None:
    states = tmp_path / "states"
    train(None, states)
    assert StateStore(states, 2).steps() == [2, 4]
    damaged = states / "step-00000004" / file
    damaged.write_bytes(damaged.read_bytes().replace(old, new, 1))
    notes: list[str] = []

    class Listener(SilentObserver):
        def note(self, text: str) -> None:
            notes.append(text)

    for name, resume in (("resumed", states), ("fresh", tmp_path / "other")):
        train(tmp_path / name, resume, Listener())
    assert notes[0] == "the resume state of step 4 is damaged (its checksum differs); using the one before it"
    assert notes[1] == "going on from step 2"
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "fresh")
