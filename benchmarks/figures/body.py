"""The encoder alone: forward and backward of ours and of HubertModel, under the same heads and losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.comparators.hubert import hubert
from benchmarks.figures.step import targets
from benchmarks.row import Row, Tell, time_of
from benchmarks.student import CODES, SPECTRUM, batch, heads, student
from benchmarks.timing import paired
from mert_core.features.cqt import CQT_BINS
from mert_core.model.config import MertConfig
from mert_core.model.mert import MertModel

CLIPS, SECONDS = 1, 5.0
TARGETS = {"fp32": 1.10, "bf16": 1.15}


def _pass(
    shape: MertConfig, precision: str, encoder: nn.Module, encode: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], None]:
    crops = batch(shape, CLIPS, SECONDS)
    learned = heads(shape)
    codes, cqt = crops.stored[CODES][crops.mask].T.flatten(), torch.rand(crops.masked_frames, CQT_BINS)
    encoder.train()

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            states = encode(crops.noisy, crops.mask)[crops.mask]
            logits, predicted = learned.codes[CODES](states), learned.spectra[SPECTRUM](states)
        (F.cross_entropy(logits.flatten(0, 1), codes) + F.mse_loss(predicted.float(), cqt)).backward()
        for module in (encoder, learned):
            module.zero_grad()

    return once


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure in fp32 and, where the processor has it, in bf16 autocast."""
    shape, found = student("mert-95m"), []
    mine, other = MertModel(shape), hubert(shape)

    def our_states(noisy: Tensor, mask: Tensor) -> Tensor:
        return mine(noisy, mask=mask).last_hidden_state

    def their_states(noisy: Tensor, mask: Tensor) -> Tensor:
        return other(noisy, mask_time_indices=mask).last_hidden_state

    for precision, target in targets(TARGETS).items():
        own = _pass(shape, precision, mine, our_states)
        reference = _pass(shape, precision, other, their_states)
        figure = f"95M body against HubertModel with the same heads, forward and backward, {precision}"
        found.append(Row.of_speed(figure, target, paired(own, reference, rounds, tell), time_of))
    return found
