"""HuBERT's second iteration: labels by k-means on a hidden state of a pre-trained student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, RECEPTIVE_SAMPLES
from mert_core.config import Name, Positive
from mert_core.errors import MertError
from mert_core.model.checkpoint import fingerprint
from mert_core.model.config import MertConfig
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.teachers.base import Sources, whole_frames
from mert_core.teachers.kmeans import Clusters, KMeansSettings, KMeansTeacher

# What a block's last frame sees beyond the block.
_BEYOND_SAMPLES = RECEPTIVE_SAMPLES - HOP_SAMPLES


class StudentKMeansSettings(KMeansSettings):
    """Which state of which student, and in blocks of what length it hears music.

    The defaults are those of HuBERT's second iteration: 500 clusters of the sixth of twelve layers.

    Attributes:
        run: run whose student it is.
        student: model folder in place of a run, absolute or relative to the checkout.
        layer: number of the hidden state; 0 is the first layer's input.
        block_seconds: length of a block, a whole number of frames.
    """

    run: Name | None = None
    student: Annotated[str, Field(min_length=1)] | None = None
    layer: Annotated[int, Field(ge=0)] = 6
    clusters: Clusters = 500
    block_seconds: Positive = 5.0

    @model_validator(mode="after")
    def _one_student_and_whole_frames(self) -> Self:
        if (self.run is None) == (self.student is None):
            raise ValueError(f"run is {self.run!r} and student {self.student!r}; give one of them")
        frames = self.block_seconds * FRAME_RATE
        if abs(frames - round(frames)) > 1e-6 or frames < 1:
            raise ValueError(f"block_seconds is {self.block_seconds:g}; it must be a whole number of frames, of 1/75 s")
        return self

    @property
    def block_frames(self) -> int:
        """Frames of a block."""
        return round(self.block_seconds * FRAME_RATE)


class StudentKMeansTeacher(KMeansTeacher):
    """Labels a frame with the nearest of k-means centroids of a hidden state of a student (HuBERT, section IV-B).

    A student hears as far as it is given music, so the music is given in blocks on a fixed grid of the track: a block's
    frames are the states that the student has of the block and of the 80 samples behind it, which its last frame needs;
    silence stands for what lies beyond the track. Blocks are encoded one by one, so that what is computed together
    does not matter. The student's arithmetic is float32, so another machine may label some frame in ten thousands
    differently, as with codecs.

    The student's configuration and weights are part of the teacher's own: no other folder is needed once it is fitted.
    """

    name = "student-kmeans"
    title = "k-means on a student's layer (HuBERT, second iteration)"
    needs = "student"
    Settings = StudentKMeansSettings

    def __init__(self, settings: StudentKMeansSettings) -> None:
        super().__init__(settings, 1)
        self.student_config: Tensor
        self.run, self.files = settings.run, () if settings.student is None else (settings.student,)
        self.piece_frames = self.drawn_frames = settings.block_frames

    def _take(self, student: MertModel) -> None:
        """Adopt a student, and give all that is to be learned its width."""
        # Its configuration as the bytes of a JSON text: a state dict holds tensors only.
        text = json.dumps(asdict(student.config), sort_keys=True).encode()
        self.register_buffer("student_config", torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.student = student.eval().requires_grad_(False)
        width = student.config.hidden_size
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("centroids", torch.zeros(self.settings.clusters, width))

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Take over the student, draw blocks of music and cluster its states.

        Raises:
            MertError: no student there, or it has no such layer.
        """
        folder = self.student_folder(Layout.at(sources.root))
        student = MertModel.from_pretrained(folder)
        layers = student.config.num_hidden_layers
        if self.settings.layer > layers:
            raise MertError(
                f"teachers.{self.instance}.layer is {self.settings.layer}, but the student in {folder} has the "
                f"states 0 to {layers}; choose one of them"
            )
        self._take(student)
        return {"student_sha256": fingerprint(folder), **super().fit(sources)}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load what was fitted; the student is built as its stored configuration says."""
        fields = json.loads(bytes(state_dict["student_config"].tolist()))
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        self._take(MertModel(MertConfig(**fields | lists)))
        return super().load_state_dict(state_dict, *args, **kwargs)

    def context_span(self, first: int, frames: int, track_frames: int) -> tuple[int, int]:
        """Return the blocks that hold the crop, and one frame more for the last one's 80 samples."""
        block = self.settings.block_frames
        begin, end = first // block * block, -(-(first + frames) // block) * block + 1
        return begin, min(track_frames, end)

    def features(self, waveform: Tensor) -> Tensor:
        """Map a stretch that begins with a block, (batch, samples), to (batch, frames, width)."""
        block, frames = self.settings.block_frames, whole_frames(waveform)
        parts = []
        for first in range(0, frames, block):
            count = min(block, frames - first)
            piece = waveform[:, first * HOP_SAMPLES :][:, : count * HOP_SAMPLES + _BEYOND_SAMPLES]
            piece = F.pad(piece, (0, count * HOP_SAMPLES + _BEYOND_SAMPLES - piece.shape[1]))
            # a row by itself, in memory of its own: the products' last digits depend on both
            states = [self.student(row[None].clone()).hidden_states[self.settings.layer] for row in piece]
            parts.append(torch.cat(states))
        return torch.cat(parts, dim=1)
