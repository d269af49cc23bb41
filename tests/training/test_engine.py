"""Recomputing changes no gradient; compiling and sharding change no name, no format and no result."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mert_core.model.config as model_config
from mert_core.errors import MertError
from mert_core.model.frontend import ConvLayer
from mert_core.model.layers import EncoderLayer
from mert_core.training.batches import CropSource
from mert_core.training.loss import Losses, Objective
from mert_core.training.trainer import Engine
from mert_core.training.worker import Worker
from tests.training.music import crop_source, objective_of, params
from tests.training.workers import curve, facts, finish, launch, start


def prepared(**changes: Any) -> tuple[Engine, Objective, CropSource]:
    run = params(**changes)
    objective = objective_of(run, seed=7).train()
    return Engine(run, objective, Worker()), objective, crop_source(run, seed=7)


def losses(engine: Engine, source: CropSource, first: int) -> Losses:
    batch = source.batch(first, 4, range(4))
    return engine.losses(batch, source.target_set(batch))


@pytest.mark.parametrize("layer_norm", ["pre", "post"])
def test_recomputed_gradients_are_the_same_bit_for_bit(layer_norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dropouts = {f"{part}_dropout": 0.2 for part in ("hidden", "attention", "activation", "feat_proj")}
    shape = replace(model_config.PRESETS["mert-tiny"], **dropouts, layerdrop=0.3, num_hidden_layers=6)
    monkeypatch.setitem(model_config.PRESETS, "mert-tiny", shape)
    calls: dict[bool, Counter[str]] = {}

    def gradients(recompute: bool) -> dict[str, Tensor | None]:
        engine, objective, source = prepared(activation_checkpointing=recompute, layer_norm=layer_norm)
        calls[recompute] = Counter()
        for name, module in objective.named_modules():
            if isinstance(module, EncoderLayer | ConvLayer):
                module.register_forward_pre_hook(lambda *_, name=name: calls[recompute].update([name]))
        with engine.update(7, 1):
            for first in (0, 4):
                losses(engine, source, first).weighted.backward()
        return {name: parameter.grad for name, parameter in objective.named_parameters()}

    kept, recomputed = gradients(False), gradients(True)
    skipped = {name for name, gradient in kept.items() if gradient is None}
    assert skipped == {name for name, gradient in recomputed.items() if gradient is None}
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept.keys() - skipped)
    assert sum(calls[False].values()) < 2 * (6 + 7)  # some layers were dropped
    assert calls[True] == Counter({name: 2 * number for name, number in calls[False].items()})


def test_options_leave_names_and_validation_alone() -> None:
    plain, changed = prepared()[1], prepared(compile=True, activation_checkpointing=True)[1]
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in changed.named_parameters()]
    assert plain.state_dict().keys() == changed.state_dict().keys()


@pytest.mark.integration
def test_a_compiled_run_follows_and_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph serves all layers of all steps: neither layer drop nor the number of masked frames makes another."""
    from torch._dynamo.utils import counters

    shape = replace(model_config.PRESETS["mert-tiny"], layerdrop=0.3)
    monkeypatch.setitem(model_config.PRESETS, "mert-tiny", shape)

    def run(**changes: Any) -> list[float]:
        engine, objective, source = prepared(**changes)
        optimizer = torch.optim.SGD(objective.parameters(), lr=1e-4)
        found = []
        for step in range(1, 9):
            with engine.update(7, step):
                result = losses(engine, source, 4 * step)
                (result.weighted / 100).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(result.weighted.item())
        return found

    expected = run()
    assert len({round(value, 3) for value in expected}) == 8
    counters.clear()
    assert run(compile=True) == pytest.approx(expected, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_one_worker_cannot_share() -> None:
    with pytest.raises(MertError, match=r"pretrain\.sharding is full, but .* one worker"):
        prepared(sharding="full")


SHARES = """
import sys
import numpy as np
import torch
from torch import distributed
from mert_core.training.trainer import Engine, build_optimizer, spectra_example, validate
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
found = validate(objective, valid, worker, batches=3, clips=4)
expected = validate(whole, valid, Worker(), batches=3, clips=4)
assert found.keys() == expected.keys()
assert all(abs(found[name] - value) < 1e-4 for name, value in expected.items()), (found, expected)
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
    sharded, alone = {"sharding": "full", "world": 2, "batch_clips": 4}, {"batch_clips": 8}
    first, second = (sharded, alone) if before else (alone, sharded)
    run = {"log_every": 1, "validate_every": 100, "checkpoint_every": 2}
    finish(start(tmp_path / "a", tmp_path / "states", max_steps=5, **run, **first))
    assert finish(start(tmp_path / "b", tmp_path / "states", max_steps=10, **run, **second)) == list(range(5, 11))
    finish(start(tmp_path / "whole", max_steps=10, **run, **alone))
    assert curve(tmp_path / "b") == pytest.approx(curve(tmp_path / "whole"), rel=1e-4)


def test_a_sharded_run_is_rolled_back_like_another(tmp_path: Path) -> None:
    """The first update is far too large; from the first state again, at a lower rate, training goes well."""
    run = {"learning_rate": 1e4, "log_every": 1, "health": {"rate_factor": 1e-7}}
    finish(start(tmp_path / "one", tmp_path / "1", batch_clips=8, **run))
    finish(start(tmp_path / "two", tmp_path / "2", batch_clips=4, world=2, sharding="full", **run))
    assert facts(tmp_path / "two")["interventions"] == facts(tmp_path / "one")["interventions"] == 1
    found = curve(tmp_path / "two")
    assert found == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    assert np.isfinite(found).all() and found[-1] < found[0]
