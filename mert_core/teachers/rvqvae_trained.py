"""The acoustic teacher trained here: an RVQ-VAE with EnCodec's architecture, fitted on the corpus."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mert_core.config import Count, NonNegative, Positive, Section
from mert_core.teachers.acoustic import CodecTeacher
from mert_core.teachers.base import Sources
from mert_core.teachers.rvqvae import Architecture
from mert_core.teachers.training import train


class CodecWeights(Section):
    """Loss weights: waveform L1, multi-scale log-mel, the latents' log-mel readout, commitment."""

    waveform: NonNegative = 0.1
    mel: NonNegative = 1.0
    readout: NonNegative = 1.0
    commitment: NonNegative = 0.25


class RvqVaeSettings(Section):
    """Size and training; the sizes' defaults are EnCodec's at 6 kbps."""

    codebooks: Annotated[int, Field(ge=1, le=32)] = 8
    entries: Annotated[int, Field(ge=2, le=65536)] = 1024
    filters: Count = 32
    dimension: Count = 128
    crop_seconds: Positive = 1.0
    batch_clips: Count = 64
    steps: Count = 100_000
    learning_rate: Positive = 3e-4
    weights: CodecWeights = CodecWeights()


class RvqVaeTeacher(CodecTeacher):
    """RVQ-VAE trained on the corpus; losses: waveform L1, multi-scale mel, commitment, and a mel readout."""

    name = "rvqvae"
    title = "RVQ-VAE trained here (EnCodec's architecture)"
    speed = 60.0
    needs = "music"
    Settings = RvqVaeSettings

    def __init__(self, settings: RvqVaeSettings) -> None:
        shape = Architecture(settings.codebooks, settings.entries, settings.filters, settings.dimension)
        super().__init__(settings, shape, settings.codebooks)

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Train; an interrupted training goes on from its last state."""
        assert sources.music is not None  # it is what this teacher needs
        model, figures = train(self.settings, sources.music, sources.seed, sources.states, sources.report)
        self.adopt(model)
        return {name: round(value, 4) for name, value in figures.items()}
