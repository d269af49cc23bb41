"""What a run predicts: its teachers with their weights, and the targets of a batch, read or computed in the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.teachers.base import Teacher, online

if TYPE_CHECKING:
    from mert_core.training.batch import Batch


@dataclass(frozen=True)
class TargetSpec:
    """One teacher of a run.

    Attributes:
        teacher: its name; also that of the loss term.
        kind: what its targets are.
        targets: stored: read; online: computed in the step from what the teacher must hear of the track, and equal to
            the stored ones; crop: computed from the crop alone, with silence around it, as MERT does with the CQT.
        weight: of its loss.
    """

    teacher: str
    kind: TargetKind
    targets: Literal["stored", "online", "crop"]
    weight: float


class TargetSet:
    """The lessons of a run, and the teachers of those whose targets are computed in the step.

    It is no module: what teachers have learned is no parameter of the student's run.

    Args:
        lessons: at least one.
        teachers: by name, for all lessons that are not stored.
    """

    def __init__(self, lessons: Sequence[TargetSpec], teachers: Mapping[str, Teacher]) -> None:
        self.lessons = tuple(lessons)
        self.teachers = {one.teacher: teachers[one.teacher] for one in lessons if one.targets != "stored"}

    @property
    def codes(self) -> dict[str, Codes]:
        """The teachers of codes."""
        return {one.teacher: one.kind for one in self.lessons if isinstance(one.kind, Codes)}

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """The teachers of spectra."""
        return {one.teacher: one.kind for one in self.lessons if isinstance(one.kind, Spectrum)}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each teacher's loss."""
        return {one.teacher: one.weight for one in self.lessons}

    @property
    def books(self) -> list[tuple[str, int]]:
        """All codebooks of all teachers, in the order in which losses and figures list them."""
        return [(name, book) for name, kind in self.codes.items() for book in range(kind.codebooks)]

    @torch.no_grad()
    def targets(self, batch: Batch, only: Mapping[str, TargetKind] | None = None) -> dict[str, Tensor]:
        """Return the targets by teacher, (batch, frames, width): int64 codes, or float32.

        Args:
            batch: the batch. All targets are of the clean sound.
            only: the teachers that are wanted; None: all.
        """
        frames = batch.mask.shape[1]
        found: dict[str, Tensor] = {}
        with torch.autocast(batch.clean.device.type, enabled=False):
            for one in self.lessons:
                if only is not None and one.teacher not in only:
                    continue
                if one.targets == "stored":
                    found[one.teacher] = batch.stored[one.teacher]
                    continue
                teacher = self._on(one.teacher, batch.clean.device)
                if one.targets == "online":
                    heard = batch.heard[one.teacher]
                    found[one.teacher] = online(teacher, heard.stretches, heard.skip, frames)
                elif self._derivable(one, found):
                    found[one.teacher] = teacher.derive(found[str(teacher.derived_from)])
                else:
                    found[one.teacher] = teacher(batch.clean)[:, :frames]
        return found

    def _derivable(self, lesson: TargetSpec, found: Mapping[str, Tensor]) -> bool:
        parent = self.teachers[lesson.teacher].derived_from
        return parent in found and any(one.teacher == parent and one.targets == "crop" for one in self.lessons)

    def _on(self, name: str, device: torch.device) -> Teacher:
        teacher = self.teachers[name]
        first = next(iter(teacher.buffers()), None)
        first = first if first is not None else next(iter(teacher.parameters()), None)
        return teacher if first is None or first.device == device else teacher.to(device)
