"""Dropout whose random numbers are cheap on a CPU: torch's own draw there takes longer than an attention's products."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def draws_cheaply(values: Tensor) -> bool:
    """Return whether dropout is to use ``keep_mask``: on a CPU, outside of compiled code."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def keep_mask(shape: torch.Size, probability: float) -> Tensor:
    """Return bool (shape), false with a probability that is rounded to 2⁻¹⁶, from torch's global generator.

    Each 64-bit draw serves four values.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= round(probability * 2**16) - 2**15).view(shape)


def dropout(values: Tensor, probability: float, training: bool) -> Tensor:
    """Set values to zero with a probability and scale up the others, in training; as ``F.dropout``."""
    if not training or probability == 0.0:
        return values
    if not draws_cheaply(values):
        return F.dropout(values, probability)
    return torch.where(keep_mask(values.shape, probability), values * (1 / (1 - probability)), 0.0)
