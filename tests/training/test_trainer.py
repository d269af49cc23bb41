"""Training learns, stops when it must, and gives the same results with every engine option."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

import mert_core.model.config as model_config
from mert_core.model.frontend import ConvLayer
from mert_core.model.layers import EncoderLayer
from mert_core.model.mert import MertModel
from mert_core.training.batches import CropSource
from mert_core.training.distributed import Engine
from mert_core.training.loss import Losses, Objective
from mert_core.training.trainer import learning_rate
from mert_core.training.worker import Worker
from tests.training.music import crop_source, objective_of, params, train


def test_the_loss_falls_and_artifacts_are_whole(tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    facts = train(
        out,
        report=lambda *said: seen.append(said),
        max_steps=30,
        warmup_steps=10,
        schedule_steps=1000,
        validate_every=15,
    )
    curve = pq.read_table(out / "curve.parquet").to_pandas()
    valid = curve[(curve.split == "valid") & (curve.term == "tones")].value.to_numpy()
    assert valid[-1] < valid[0]
    assert [(step, terms["tones"]) for step, terms, _ in seen] == list(zip((15, 30), valid, strict=True))
    assert seen[0][2].config.hidden_size == 128
    assert facts["steps"] == 30 and facts["valid"]["tones"] == valid[-1]
    assert 0 < facts["unigram_cross_entropy"]["tones"] <= 2 * np.log(16)
    assert {"loss", "tones", "cqt", "feature_penalty", "accuracy", "accuracy_tones_1"} <= set(facts["valid"])
    assert MertModel.from_pretrained(out).config.feature_extractor_cqt
    example = np.load(out / "example.npz")
    assert example["true_cqt"].shape == example["predicted_cqt"].shape == (len(example["mask"]), 336)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(max_steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_schedule_rises_then_falls_to_zero() -> None:
    run = params(warmup_steps=10, schedule_steps=110, learning_rate=1.0)
    assert [learning_rate(run, step) for step in (1, 5, 10, 60, 110, 200)] == pytest.approx(
        [0.1, 0.5, 1.0, 0.5, 0.0, 0.0]
    )


def prepared(**changes: Any) -> tuple[Engine, Objective, CropSource]:
    run = params(**changes)
    objective = objective_of(run, seed=7).train()
    return Engine(run, objective, Worker()), objective, crop_source(run, seed=7)


def losses(engine: Engine, source: CropSource, first: int) -> Losses:
    batch = source.batch(first, 4, range(4))
    return engine.losses(batch, source.target_set(batch))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_recomputed_gradients_are_the_same_bit_for_bit(pre_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dropouts = {f"{part}_dropout": 0.2 for part in ("hidden", "attention", "activation", "feat_proj")}
    shape = replace(model_config.PRESETS["mert-tiny"], **dropouts, layerdrop=0.3, num_hidden_layers=6)
    monkeypatch.setitem(model_config.PRESETS, "mert-tiny", shape)
    calls: dict[bool, Counter[str]] = {}

    def gradients(recompute: bool) -> dict[str, Tensor | None]:
        engine, objective, source = prepared(
            activation_checkpointing=recompute, model={"preset": "mert-tiny", "do_stable_layer_norm": pre_norm}
        )
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
        values = []
        for step in range(1, 9):
            with engine.update(7, step):
                result = losses(engine, source, 4 * step)
                (result.weighted / 100).backward()
            optimizer.step()
            optimizer.zero_grad()
            values.append(result.weighted.item())
        return values

    expected = run()
    assert len({round(value, 3) for value in expected}) == 8
    counters.clear()
    assert run(compile=True) == pytest.approx(expected, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
