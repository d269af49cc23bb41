"""A whole update of the 95M student: CQT of the clean crop, forward, all losses, backward, clipping, AdamW."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.comparators.hubert import ReferenceObjective, copy_weights
from benchmarks.comparators.nce import MaterializedHeads
from benchmarks.row import Row, Tell, time_of
from benchmarks.student import (
    CODEBOOKS,
    ENTRIES,
    TEMPERATURE,
    WEIGHTS,
    batch,
    objective,
    optimizer,
    student,
    target_set,
)
from benchmarks.timing import paired
from mert_core.model.config import MertConfig
from mert_core.training.worker import multiplies_bf16

CLIPS, SECONDS = 1, 5.0
TARGETS = {"fp32": 2.5, "bf16": 3.5}


def reference(shape: MertConfig) -> ReferenceObjective:
    """Return the comparator with fresh weights."""
    heads = MaterializedHeads(shape.hidden_size, CODEBOOKS, ENTRIES, shape.final_dim, TEMPERATURE)
    return ReferenceObjective(shape, heads, WEIGHTS)


def update(
    module: nn.Module, loss: Callable[[], Tensor], masked_frames: int, precision: str = "fp32"
) -> Callable[[], None]:
    """Return one training update of a module as a function."""
    made = optimizer(module.train())

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            total = loss()
        (total / masked_frames).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        made.step()
        made.zero_grad()

    return once


def ours(shape: MertConfig, precision: str, clips: int = CLIPS) -> Callable[[], None]:
    """Return our update."""
    module, targets, crops = objective(shape), target_set(), batch(shape, clips, SECONDS)
    return update(module, lambda: module(crops, targets(crops)).weighted, crops.masked_frames, precision)


def theirs(shape: MertConfig, precision: str, clips: int = CLIPS) -> Callable[[], None]:
    """Return the comparator's update."""
    module, crops = reference(shape), batch(shape, clips, SECONDS)
    return update(module, lambda: module(crops), crops.masked_frames, precision)


def check_equal(shape: MertConfig, seconds: float = SECONDS) -> float:
    """Return the relative difference of the two losses for the same weights, without dropout.

    Raises:
        AssertionError: it is above 1e-5, so that the two sides do not compute the same.
    """
    mine, other, crops = objective(shape).train(), reference(shape).train(), batch(shape, CLIPS, seconds)
    copy_weights(mine, other)
    with torch.no_grad():
        expected, found = other(crops), mine(crops, target_set()(crops)).weighted
    difference = ((found - expected) / expected).abs().item()
    if difference > 1e-5:
        raise AssertionError(f"the losses differ by {difference:.2g}; expected the same to 1e-5")
    return difference


def targets(of_precisions: dict[str, float]) -> dict[str, float]:
    """Return the targets of those precisions that this processor has instructions for."""
    native = multiplies_bf16(torch.device("cpu"))
    return {name: target for name, target in of_precisions.items() if native or name != "bf16"}


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure in fp32 and, where the processor has it, in bf16 autocast."""
    tell(f"losses of both sides differ by {check_equal(student('mert-95m', dropout=False)):.1e} (relative)")
    shape, found = student("mert-95m"), []
    for precision, target in targets(TARGETS).items():
        pairs = paired(ours(shape, precision), theirs(shape, precision), rounds, tell)
        figure = f"whole 95M update against HubertModel + materialized NCE + nnAudio, {precision}"
        found.append(Row.of_speed(figure, target, pairs, time_of))
    return found
