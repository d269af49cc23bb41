"""One micro-batch of pre-training, and the context that online teachers need of each crop."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class TeacherContext:
    """The part of each crop's track that decides a teacher's targets; see `Teacher.context_span`.

    Attributes:
        waveforms: (samples,) float32 for each crop, of different lengths at the ends of tracks.
        skip_frames: frames of each waveform before the crop.
    """

    waveforms: list[Tensor]
    skip_frames: list[int]


@dataclass(frozen=True)
class Batch:
    """One worker's micro-batch.

    Attributes:
        noisy: (batch, samples) float32, the crops with the mixture; input of the student.
        clean: (batch, samples) float32, the crops alone; what targets are computed from.
        mask: (batch, frames) bool, true where the student must predict.
        masked_frames: number of true values in ``mask``.
        codebook_ids: codebooks to predict, by teacher of codes; the same for all workers of a global batch.
        stored: targets that were read, by teacher, (batch, frames, width).
        contexts: context of the teachers whose targets are computed in the step from more than the crop, by name.
    """

    noisy: Tensor
    clean: Tensor
    mask: Tensor
    masked_frames: int
    codebook_ids: dict[str, tuple[int, ...]]
    stored: dict[str, Tensor]
    contexts: dict[str, TeacherContext] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        noisy, clean, mask = (x.to(device) for x in (self.noisy, self.clean, self.mask))
        stored = {name: targets.to(device) for name, targets in self.stored.items()}
        contexts = {
            name: TeacherContext([waveform.to(device) for waveform in one.waveforms], one.skip_frames)
            for name, one in self.contexts.items()
        }
        return Batch(noisy, clean, mask, self.masked_frames, self.codebook_ids, stored, contexts)

    def first(self, clips: int) -> Batch:
        """Return the first clips alone."""
        mask = self.mask[:clips]
        stored = {name: targets[:clips] for name, targets in self.stored.items()}
        contexts = {
            name: TeacherContext(one.waveforms[:clips], one.skip_frames[:clips]) for name, one in self.contexts.items()
        }
        return Batch(self.noisy[:clips], self.clean[:clips], mask, int(mask.sum()), self.codebook_ids, stored, contexts)
