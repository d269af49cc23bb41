"""The one interface of all teachers: waveforms in, targets on the student's frame grid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES
from mert_core.data.target_kinds import TargetKind
from mert_core.files import atomic_path

if TYPE_CHECKING:
    from mert_core.data.corpus import Corpus
    from mert_core.paths import Layout

Needs = Literal["nothing", "music", "weights", "student"]
"""What a teacher must be fitted on: nothing, the corpus, a file of published weights, or a pre-trained student."""
_STATE_NAME = "state.pt"
Report = Callable[[Mapping[str, float], int | None], None]


@dataclass(frozen=True)
class Sources:
    """What a teacher may be fitted on.

    Attributes:
        music: the corpus; None for teachers that need none.
        root: the working directory, where relative paths of settings begin.
        states: where to keep the state of an unfinished fit; None keeps none.
        seed: of all randomness; the same seed, settings and music give the same teacher.
        report: is told figures by name and step.
    """

    music: Corpus | None
    root: Path
    states: Path | None
    seed: int
    report: Report


class Teacher(nn.Module):
    """A frozen teacher. A subclass is one file and one entry of `mert_core.teachers.registry.TEACHERS`.

    It says what its settings are, what it must be fitted on and what it has heard when it labels a frame, and maps
    waveforms to targets. Everything that fitting finds is in its buffers, so that its state dict and settings are it.

    Attributes:
        name: name of its class in `mert_core.teachers.registry.TEACHERS`.
        instance: its own name, under which parameters, stores, losses and figures know it.
        title: what it is, for tables; with its source.
        kind: form of its targets: codes or a spectrum, and how many.
        needs: what it is fitted on.
        run: run on whose student it is fitted, if it is one that ``params.yaml`` names.
        files: files and folders outside the corpus that it is fitted on, as its settings name them.
        frame_rate: targets per second of audio; the store and the student's grid have 75.
        Settings: class of its settings (a section of ``teachers`` in ``params.yaml``), or None if it has none.
        context_frames: how many frames of audio before and after a frame decide its target; None: the whole track.
        derived_from: a teacher whose targets `derive` turns into its own, frame by frame; None: none.
        causal: whether what follows a frame, silence too, leaves its target as it is; then tracks of different lengths
            are labelled together, padded with silence.
        speed: seconds of audio that it labels per second on one core, roughly; says whether starting Ray pays.
        tolerance: relative L2 distance of targets that were computed from a stretch and from the whole track; 0 for
            codes.
    """

    name: ClassVar[str] = "teacher"
    title: ClassVar[str]
    kind: TargetKind
    needs: ClassVar[Needs] = "nothing"
    run: str | None = None
    files: tuple[str, ...] = ()
    frame_rate: ClassVar[int] = FRAME_RATE
    Settings: ClassVar[type[Any] | None] = None
    context_frames: int | None = None
    derived_from: ClassVar[str | None] = None
    causal: ClassVar[bool] = False
    speed: ClassVar[float] = 100.0
    tolerance: ClassVar[float] = 1e-5

    def __init__(self, settings: Any = None) -> None:
        super().__init__()
        self.settings = settings
        self.instance = self.name

    def student_folder(self, layout: Layout) -> Path:
        """Return where the student lies that it is fitted on; for teachers that need one."""
        return layout.root / self.files[0] if self.run is None else layout.model(self.run)

    def kept_settings(self) -> dict[str, Any]:
        """Return the settings that are kept with the teacher, as plain data: those that decide its targets."""
        return {} if self.settings is None else dict(self.settings.model_dump(mode="json"))

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Learn what is to be learned; deterministic from ``sources.seed`` on a CPU. Most need nothing.

        Returns:
            Facts of the fit, for the record.

        Raises:
            MertError: what the teacher needs is missing or unusable.
        """
        return {}

    def forward(self, waveform: Tensor) -> Tensor:
        """Label whole tracks, or stretches of them that begin on the frame grid.

        Args:
            waveform: (batch, samples) float32 at 24 kHz, −1 … 1; samples a multiple of 320.

        Returns:
            (batch, samples / 320, width): int64 codes, or float32.
        """
        raise NotImplementedError

    def context_span(self, first: int, frames: int, track_frames: int) -> tuple[int, int]:
        """Return the stretch of a track, in frames, that decides the targets of ``frames`` frames from ``first`` on.

        Within the stretch those targets are what they are in the whole track, so that targets can be computed in the
        training step (online) and equal the stored ones.
        """
        if self.context_frames is None:
            return 0, track_frames
        return max(0, first - self.context_frames), min(track_frames, first + frames + self.context_frames)

    def derive(self, targets: Tensor) -> Tensor:
        """Return its targets from those of the teacher it is derived from, so that these are computed once for both."""
        raise NotImplementedError

    def freeze(self) -> Self:
        """Return itself without gradients and in evaluation mode; call it when everything is loaded or fitted."""
        return self.eval().requires_grad_(False)


def online(teacher: Teacher, stretches: list[Tensor], skip: list[int], frames: int) -> Tensor:
    """Return the targets of crops from the stretches of their tracks that the teacher must hear.

    Args:
        teacher: frozen and fitted.
        stretches: waveforms (samples,), as `Teacher.context_span` says; equally long ones are computed together.
        skip: frames of each stretch before the crop.
        frames: length of the crop in frames.

    Returns:
        (batch, frames, width).
    """
    targets: list[Tensor] = [torch.empty(0)] * len(stretches)
    for length in sorted({len(stretch) for stretch in stretches}):
        alike = [index for index, stretch in enumerate(stretches) if len(stretch) == length]
        for index, row in zip(alike, teacher(torch.stack([stretches[index] for index in alike])), strict=True):
            targets[index] = row[skip[index] : skip[index] + frames]
    return torch.stack(targets)


def keep_state(folder: Path, step: int, parts: Mapping[str, Any]) -> None:
    """Write the state of an unfinished fit: the steps that are done, and tensors or whatever has a ``state_dict``."""
    values = {name: part if isinstance(part, Tensor) else part.state_dict() for name, part in parts.items()}
    with atomic_path(folder / _STATE_NAME) as path:
        torch.save({"step": step, **values}, path)


def restore_state(folder: Path | None, parts: Mapping[str, Any]) -> int:
    """Give the parts of a fit the state that `keep_state` wrote; return the steps that are done, 0 without a state."""
    if folder is None or not (folder / _STATE_NAME).exists():
        return 0
    state = torch.load(folder / _STATE_NAME, weights_only=True)
    for name, part in parts.items():
        (part.copy_ if isinstance(part, Tensor) else part.load_state_dict)(state[name])
    return int(state["step"])


def whole_frames(waveform: Tensor) -> int:
    """Return how many frames a batch of waveforms (batch, samples) has."""
    return waveform.shape[-1] // HOP_SAMPLES
