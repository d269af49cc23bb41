"""AdamW and its schedule: warm-up, then linear decay to zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from mert_core.config import Pretrain


def build_optimiser(params: Pretrain, model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over all trained parameters; the decay is decoupled and applies to every one, as in fairseq."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=params.learning_rate,
        betas=params.adam_betas,
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def learning_rate(params: Pretrain, step: int) -> float:
    """Return the learning rate of update ``step`` (the first is 1): linear up to the peak, linear down to 0."""
    if step < params.warmup_steps:
        return params.learning_rate * step / params.warmup_steps
    left = params.schedule_steps - step
    return params.learning_rate * max(0.0, left / (params.schedule_steps - params.warmup_steps))
