"""What a run predicts: its teachers with their weights, and the targets of a batch, read or computed in the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mert_core.data.target_kinds import Codes, Spectrum, TargetKind
from mert_core.teachers.base import Teacher, online

if TYPE_CHECKING:
    from mert_core.config import LossTerm
    from mert_core.training.batch import Batch


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


class StoredTargets(Protocol):
    """One teacher's stored targets; `mert_core.data.targets.TargetStore` is one."""

    @property
    def kind(self) -> TargetKind:
        """Return what the targets are."""

    def read(self, rows: NDArray[np.int64], offset_frames: NDArray[np.int64], frames: int) -> NDArray[Any]:
        """Return (batch, frames, width): int64 codes, or float32."""


class TargetSet(nn.Module):
    """Gives the targets of a batch: those that the loader has read, and those that teachers compute in the step.

    It is no part of the objective: what teachers have learned is no parameter of the student's run.

    Args:
        specs: one entry per teacher, at least one.
        stored: target stores, by name of the teacher; those of ``stored`` targets are used.
        teachers: fitted teachers by name; those of ``online`` and ``crop`` targets are used.
    """

    def __init__(
        self,
        specs: Sequence[TargetSpec],
        stored: Mapping[str, StoredTargets] | None = None,
        teachers: Mapping[str, Teacher] | None = None,
    ) -> None:
        super().__init__()
        self.specs = tuple(specs)
        read = [spec.teacher for spec in specs if spec.targets == "stored"]
        computed = [spec.teacher for spec in specs if spec.targets != "stored"]
        self.stored = {name: stored[name] for name in read if stored is not None}
        self.teachers = nn.ModuleDict({name: teachers[name] for name in computed if teachers is not None})

    @classmethod
    def of(
        cls, terms: Iterable[LossTerm], stored: Mapping[str, StoredTargets], teachers: Mapping[str, Teacher]
    ) -> TargetSet:
        """Return the targets of ``pretrain.teachers``, less the teachers without weight."""
        specs = []
        for term in terms:
            if term.weight:
                source: StoredTargets | Teacher = (stored if term.targets == "stored" else teachers)[term.teacher]
                specs.append(TargetSpec(term.teacher, source.kind, term.targets, term.weight))
        return cls(specs, stored, teachers)

    @property
    def codes(self) -> dict[str, Codes]:
        """Codebooks and entries of the teachers of codes."""
        return codes_of(self.specs)

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """Bins of the teachers of spectra."""
        return spectra_of(self.specs)

    def teacher(self, name: str) -> Teacher:
        """Return a teacher whose targets are computed in the step."""
        return cast("Teacher", self.teachers[name])

    @torch.no_grad()
    def forward(self, batch: Batch, only: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the targets of the clean sound by teacher, (batch, frames, width): int64 codes, or float32.

        Args:
            batch: a micro-batch on the teachers' device.
            only: names of the teachers that are wanted; None: all.
        """
        frames = batch.mask.shape[1]
        wanted = {spec.teacher for spec in self.specs} if only is None else set(only)
        crops = {spec.teacher for spec in self.specs if spec.targets == "crop"}
        targets: dict[str, Tensor] = {}
        with torch.autocast(batch.clean.device.type, enabled=False):
            for spec in self.specs:
                name = spec.teacher
                if name not in wanted:
                    continue
                if spec.targets == "stored":
                    targets[name] = batch.stored[name]
                elif spec.targets == "online":
                    context = batch.contexts[name]
                    targets[name] = online(self.teacher(name), context.waveforms, context.skip_frames, frames)
                elif (parent := str(self.teacher(name).derived_from)) in crops & targets.keys():
                    targets[name] = self.teacher(name).derive(targets[parent])
                else:
                    targets[name] = self.teacher(name)(batch.clean)[:, :frames]
        return targets


def codes_of(specs: Iterable[TargetSpec]) -> dict[str, Codes]:
    """Return codebooks and entries of the teachers of codes, by name."""
    return {spec.teacher: spec.kind for spec in specs if isinstance(spec.kind, Codes)}


def spectra_of(specs: Iterable[TargetSpec]) -> dict[str, Spectrum]:
    """Return the bins of the teachers of spectra, by name."""
    return {spec.teacher: spec.kind for spec in specs if isinstance(spec.kind, Spectrum)}
