"""What a run predicts: its teachers with their weights, a batch of crops, and its targets, read or computed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.teachers.base import Teacher, online

if TYPE_CHECKING:
    from mert_core.config import LossTerm
    from mert_core.data.targets import TargetStore


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
        return replace(
            self,
            noisy=self.noisy.to(device),
            clean=self.clean.to(device),
            mask=self.mask.to(device),
            stored={name: targets.to(device) for name, targets in self.stored.items()},
            contexts={
                name: replace(context, waveforms=[waveform.to(device) for waveform in context.waveforms])
                for name, context in self.contexts.items()
            },
        )


@dataclass(frozen=True)
class TargetSpec:
    """One teacher of a run.

    Attributes:
        teacher: name of the teacher, and of its loss term.
        kind: codes or a spectrum, and how many per frame.
        targets: where they come from. ``stored``: read from a target store; ``online``: computed in the step from the
            teacher's context in the track, and equal to the stored ones; ``crop``: computed from the crop alone, with
            silence around it, as MERT does with the CQT.
        weight: factor of the loss term.
    """

    teacher: str
    kind: TargetKind
    targets: Literal["stored", "online", "crop"]
    weight: float


class TargetSet(nn.Module):
    """Gives the targets of a batch: those that the loader has read, and those that teachers compute in the step.

    It is no part of the objective: what teachers have learned is no parameter of the student's run.

    Args:
        terms: ``pretrain.teachers``; those without weight are left out.
        stored: target stores by name of the teacher, for ``stored`` targets.
        teachers: fitted teachers by name, for ``online`` and ``crop`` targets.
    """

    def __init__(
        self, terms: Iterable[LossTerm], stored: Mapping[str, TargetStore], teachers: Mapping[str, Teacher]
    ) -> None:
        super().__init__()
        self.stored: dict[str, TargetStore] = {}
        self.teachers = nn.ModuleDict()
        specs = []
        for term in terms:
            name = term.teacher
            if term.weight and term.targets == "stored":
                self.stored[name] = stored[name]
                specs.append(TargetSpec(name, stored[name].kind, "stored", term.weight))
            elif term.weight:
                self.teachers[name] = teachers[name]
                specs.append(TargetSpec(name, teachers[name].kind, term.targets, term.weight))
        self.specs = tuple(specs)

    def teacher(self, name: str) -> Teacher:
        """Return a teacher whose targets are computed in the step."""
        return cast("Teacher", self.teachers[name])

    @torch.no_grad()
    def forward(self, batch: Batch, only: Container[str] | None = None) -> dict[str, Tensor]:
        """Return the targets of the clean sound by teacher, (batch, frames, width): int64 codes, or float32.

        Args:
            batch: a micro-batch on the teachers' device.
            only: names of the teachers that are wanted; None: all.
        """
        frames = batch.mask.shape[1]
        targets: dict[str, Tensor] = {}
        from_crops: dict[str, Tensor] = {}
        with torch.autocast(batch.clean.device.type, enabled=False):
            for spec in (spec for spec in self.specs if only is None or spec.teacher in only):
                name = spec.teacher
                if spec.targets == "stored":
                    targets[name] = batch.stored[name]
                elif spec.targets == "online":
                    context = batch.contexts[name]
                    targets[name] = online(self.teacher(name), context.waveforms, context.skip_frames, frames)
                else:
                    teacher = self.teacher(name)
                    parent = from_crops.get(str(teacher.derived_from))
                    own = teacher(batch.clean)[:, :frames] if parent is None else teacher.derive(parent)
                    targets[name] = from_crops[name] = own
        return targets


def codes_of(specs: Iterable[TargetSpec]) -> dict[str, Codes]:
    """Return codebooks and entries of the teachers of codes, by name."""
    return {spec.teacher: spec.kind for spec in specs if isinstance(spec.kind, Codes)}


def spectra_of(specs: Iterable[TargetSpec]) -> dict[str, Spectrum]:
    """Return the bins of the teachers of spectra, by name."""
    return {spec.teacher: spec.kind for spec in specs if isinstance(spec.kind, Spectrum)}
