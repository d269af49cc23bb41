"""One micro-batch of pre-training, and what online teachers need of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher must hear to label crops in the training step.

    Attributes:
        stretches: of each crop's track, (samples,) float32.
        skip: frames of each stretch before the crop.
    """

    stretches: list[Tensor]
    skip: list[int]


@dataclass(frozen=True)
class Batch:
    """One worker's micro-batch.

    Attributes:
        noisy: (batch, samples) float32, with the mixture; what the student hears.
        clean: (batch, samples) float32; what the targets are computed from.
        mask: (batch, frames) bool.
        masked_frames: number of true values in ``mask``.
        asked: by teacher of codes, the codebooks to predict, the same for all workers of a global batch.
        stored: targets that were read, by teacher, (batch, frames, width).
        heard: what the teachers hear whose targets are computed in the step from more than the crop.
    """

    noisy: Tensor
    clean: Tensor
    mask: Tensor
    masked_frames: int
    asked: dict[str, tuple[int, ...]]
    stored: dict[str, Tensor]
    heard: dict[str, TeacherContext] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        noisy, clean, mask = (x.to(device) for x in (self.noisy, self.clean, self.mask))
        stored = {name: targets.to(device) for name, targets in self.stored.items()}
        heard = {
            name: TeacherContext([stretch.to(device) for stretch in one.stretches], one.skip)
            for name, one in self.heard.items()
        }
        return Batch(noisy, clean, mask, self.masked_frames, self.asked, stored, heard)

    def first(self, clips: int) -> Batch:
        """Return the first clips alone."""
        mask = self.mask[:clips]
        stored = {name: targets[:clips] for name, targets in self.stored.items()}
        heard = {name: TeacherContext(one.stretches[:clips], one.skip[:clips]) for name, one in self.heard.items()}
        return Batch(self.noisy[:clips], self.clean[:clips], mask, int(mask.sum()), self.asked, stored, heard)
