"""Many workers learn what one learns, with every engine option, whether the model is replicated or shared out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from mert_core.errors import MertError
from mert_core.training.distributed import Engine
from mert_core.training.worker import Worker
from tests.training.music import objective_of, params
from tests.training.workers import curve, facts, finish, launch, start

EVERYTHING = {"sharding": "full", "activation_checkpointing": True, "compile": True}
SKIPPING = {"shape": {"layerdrop": 0.5}, "global_batch_size": 16, "local_batch_size": 8}
"""Layers that one micro-batch of an update uses and another does not, and some that none uses."""


@pytest.mark.parametrize(
    ("engine", "both"),
    [
        ({}, {}),
        ({"sharding": "full"}, {}),
        pytest.param({"activation_checkpointing": True, "compile": True}, {}, marks=pytest.mark.integration),
        pytest.param(EVERYTHING, SKIPPING, marks=pytest.mark.integration),
    ],
)
def test_two_workers_with_half_the_batch_follow_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, engine: dict[str, Any], both: dict[str, Any]
) -> None:
    one = tmp_path_factory.getbasetemp() / f"one-worker-{len(both)}"  # is the same for several options
    two = tmp_path / "two"
    run = {"global_batch_size": 8, "max_steps": 20, "log_every": 1, "validate_every": 20, **both}
    if not one.with_suffix(".json").exists():
        finish(start(one, **run))
    finish(start(two, **{**run, "world": 2, **engine, **({"local_batch_size": 4} if both else {})}))
    expected = curve(one)
    assert len(expected) == 20
    assert expected[-1] < 0.9 * expected[0]
    assert curve(two) == pytest.approx(expected, rel=1e-4)
    for name in ("model.safetensors", "heads.safetensors"):
        weights, wanted = load_file(two / name), load_file(one / name)
        assert weights.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_allclose(weights[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


def test_one_worker_cannot_share() -> None:
    with pytest.raises(MertError, match=r"pretrain\.sharding is full, but .* one worker"):
        Engine(params(sharding="full"), objective_of(params()), Worker())


SHARES = """
import sys
import numpy as np
import torch
from torch import distributed
from mert_core.training.distributed import Engine
from mert_core.training.trainer import build_optimizer, spectra_example, validate
from mert_core.training.worker import Worker
from tests.training.music import crop_source, objective_of, params
rank = int(sys.argv[1])
worker = Worker(rank, 2)
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
run = params(sharding="full")
objective = objective_of(run, 7).train()
total = sum(parameter.numel() for parameter in objective.parameters())
engine = Engine(run, objective, worker)
valid, whole = crop_source(run, "valid", 7, corrupt=False), objective_of(run, 7)
terms = validate(objective, valid, worker, batches=3, clips=4)
expected = validate(whole, valid, Worker(), batches=3, clips=4)
assert terms.keys() == expected.keys()
assert all(abs(terms[name] - value) < 1e-4 for name, value in expected.items()), (terms, expected)
example, expected = spectra_example(objective, valid, worker), spectra_example(whole, valid, Worker())
assert all(np.allclose(example[name], value, atol=1e-5) for name, value in expected.items())
optimizer = build_optimizer(run, objective)
source = crop_source(run, "train", 7)
batch = source.batch(0, 4, range(4))
engine.losses(batch, source.target_set(batch)).weighted.backward()
optimizer.step()
moments = [value for of in optimizer.state.values() for name, value in of.items() if name != "step"]
for held, times in ((objective.parameters(), 1), ((p.grad for p in objective.parameters()), 1), (moments, 2)):
    share = sum(value.to_local().numel() for value in held) / (times * total)
    assert 0.49 < share < 0.51, share
"""


def test_each_of_two_workers_holds_half_and_they_validate_together(tmp_path: Path) -> None:
    finish(launch(SHARES, 2, str(tmp_path / "meeting")))


@pytest.mark.parametrize("before", [True, False])
def test_a_run_may_change_whether_it_is_sharded(tmp_path: Path, before: bool) -> None:
    sharded, alone = {"sharding": "full", "world": 2}, {}
    first, second = (sharded, alone) if before else (alone, sharded)
    run = {"global_batch_size": 8, "log_every": 1, "validate_every": 100, "checkpoint_every": 2}
    finish(start(tmp_path / "a", tmp_path / "states", max_steps=5, **run, **first))
    assert finish(start(tmp_path / "b", tmp_path / "states", max_steps=10, **run, **second)) == list(range(5, 11))
    finish(start(tmp_path / "whole", max_steps=10, **run, **alone))
    assert curve(tmp_path / "b") == pytest.approx(curve(tmp_path / "whole"), rel=1e-4)


def test_a_sharded_run_is_rolled_back_like_another(tmp_path: Path) -> None:
    """The first update is far too large; from the first state again, at a lower rate, training goes well."""
    run = {"global_batch_size": 8, "learning_rate": 1e4, "log_every": 1, "health": {"rate_factor": 1e-7}}
    finish(start(tmp_path / "one", tmp_path / "1", **run))
    finish(start(tmp_path / "two", tmp_path / "2", world=2, sharding="full", **run))
    assert facts(tmp_path / "two")["interventions"] == facts(tmp_path / "one")["interventions"] == 1
    losses = curve(tmp_path / "two")
    assert losses == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
