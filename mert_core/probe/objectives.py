"""What a probe is trained to do: its loss, and the loss's gradient written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mert_core.errors import MertError

FEW_CLASSES = 24
"""Up to so many classes the softmax goes over the first dimension; measured on a processor with AVX512."""


@dataclass(frozen=True)
class Objective:
    """One loss.

    Attributes:
        kind: ``single``: cross-entropy over classes; ``multi``: binary cross-entropy per class, with logits;
            ``regression``: mean squared error on targets that are standardised with the training rows' moments.
        outputs: how many numbers a probe gives: classes or targets.
    """

    kind: Literal["single", "multi", "regression"]
    outputs: int

    def targets(self, truth: NDArray[Any]) -> Tensor:
        """Return truth as the loss wants it: int64 (rows,) if single, else float32 (rows, outputs).

        Raises:
            MertError: truth of another shape, or a class that is not one of the outputs.
        """
        if self.kind == "single":
            if truth.ndim != 1 or not np.issubdtype(truth.dtype, np.integer):
                raise MertError(
                    f"expected one class per row, found truth of shape {truth.shape} and type {truth.dtype}"
                )
            if len(truth) and not (truth.min() >= 0 and truth.max() < self.outputs):
                raise MertError(
                    f"rows to train on have classes {truth.min()} to {truth.max()}, expected 0 to {self.outputs - 1}; "
                    "leave out what has no class"
                )
            return torch.from_numpy(truth.astype(np.int64))
        if truth.shape != (len(truth), self.outputs):
            raise MertError(f"expected truth (rows, {self.outputs}), found {truth.shape}")
        return torch.from_numpy(truth.astype(np.float32))

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the sum over probes of each one's mean over the batch: no probe's gradient depends on another.

        Args:
            outputs: (probes, batch, outputs).
            truth: of the batch; see `targets`.
        """
        each = truth.expand(len(outputs), *truth.shape)
        if self.kind == "single":
            total = functional.cross_entropy(outputs.flatten(0, 1), each.flatten(), reduction="sum")
            return total / outputs.shape[1]
        of = functional.binary_cross_entropy_with_logits if self.kind == "multi" else functional.mse_loss
        return of(outputs, each, reduction="sum") / outputs[0].numel()

    def gradient(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the loss's gradient with respect to the outputs (probes, batch, outputs).

        Args:
            outputs: (probes, batch, outputs).
            truth: of the batch; see `targets`.
        """
        batch = outputs.shape[1]
        if self.kind == "single":
            found = _softmax(outputs)
            found.scatter_add_(
                2, truth[None, :, None].expand(len(outputs), batch, 1), found.new_full((len(outputs), batch, 1), -1.0)
            )
            return found.div_(batch)
        if self.kind == "multi":
            return torch.sigmoid(outputs).sub_(truth).div_(batch * self.outputs)
        return (outputs - truth).mul_(2 / (batch * self.outputs))


def _softmax(outputs: Tensor) -> Tensor:
    """Return the softmax over classes of (probes, batch, classes), rows first in memory as a block's outputs are.

    torch's own is written for many classes: with 10 it takes ten times as long as over the first dimension.
    """
    if outputs.shape[2] > FEW_CLASSES:
        return torch.softmax(outputs, dim=2)
    return torch.softmax(outputs.permute(2, 1, 0).contiguous(), dim=0).permute(2, 1, 0)
