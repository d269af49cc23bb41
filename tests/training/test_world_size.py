"""Two processes with four clips each learn what one process learns from eight, with every engine option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.training.test_batches import source
from tests.training.workers import curve, finish, start

EVERYTHING = {"sharding": "full", "activation_checkpointing": True, "compile": True}
SKIPPING = {"shape": {"layerdrop": 0.5}, "accumulate": 2}
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
    run = {"max_steps": 20, "log_every": 1, "validate_every": 20, **both}
    if not one.with_suffix(".json").exists():
        finish(start(one, batch_clips=8, **run))
    finish(start(two, batch_clips=4, world=2, **engine, **run))
    expected = curve(one)
    assert len(expected) == 20
    assert expected[-1] < 0.9 * expected[0]
    assert curve(two) == pytest.approx(expected, rel=1e-4)
    for name in ("model.safetensors", "heads.safetensors"):
        found, wanted = load_file(two / name), load_file(one / name)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_masks_do_not_depend_on_how_a_batch_is_shared_out(shares: int) -> None:
    crops = source(mask_trim_clips=4)
    whole = crops.batch(16, 8, range(8))
    size = 8 // shares
    parts = [crops.batch(16, 8, range(n * size, (n + 1) * size)) for n in range(shares)]
    assert np.array_equal(whole.mask.numpy(), np.concatenate([part.mask.numpy() for part in parts]))
    assert len(set(whole.mask[:4].sum(1).tolist())) == 1
