"""MuQ's Mel-RVQ: labels by a residual vector quantiser of the log-mel spectrum, trained first."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mert_core.audio.spectra import MEL_BINS, LogMel
from mert_core.config import Count, NonNegative, Positive, Section
from mert_core.teachers.base import Sources, whole_frames
from mert_core.teachers.framewise import FramewiseTeacher, usage
from mert_core.teachers.kinds import Codes
from mert_core.teachers.mel_rvq_training import train
from mert_core.teachers.residual import LinearResidualQuantiser
from mert_core.teachers.spectra import MEL_CONTEXT


class MelRvqSettings(Section):
    """Sizes as MuQ's and its length of training, about 4,000 steps; rate and loss weights are ours."""

    codebooks: Annotated[int, Field(ge=1, le=32)] = 8
    entries: Annotated[int, Field(ge=2, le=65536)] = 1024
    dimension: Annotated[int, Field(ge=1, le=MEL_BINS)] = 16
    fit_frames: Count = 400_000
    batch_frames: Count = 4096
    steps: Count = 4000
    learning_rate: Positive = 1e-3
    commitment: NonNegative = 0.25


class MelRvqTeacher(FramewiseTeacher):
    """Mel-RVQ of MuQ (arXiv 2501.01108).

    Log-mel of 128 bands at mean 0 and deviation 1; each codebook projects what the ones before it leave over into a
    space of few dimensions, takes the nearest entry and projects it back: all linear. The paper's mel has four frames
    to one of the student's; here they share one grid.
    """

    name = "mel-rvq"
    title = "residual quantiser of log-mel, trained here (MuQ)"
    speed = 300.0
    Settings = MelRvqSettings
    context_frames = MEL_CONTEXT

    def __init__(self, settings: MelRvqSettings) -> None:
        super().__init__(settings, Codes(settings.codebooks, settings.entries), MEL_BINS)
        self.log_mel = LogMel(MEL_BINS, torch.float64)
        self.quantiser = LinearResidualQuantiser(settings.codebooks, settings.entries, settings.dimension, MEL_BINS)

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Draw frames and train; an interrupted training goes on from its last state."""
        vectors = self.drawn(sources, self.settings.fit_frames)
        train(self.quantiser, vectors, self.settings, sources.seed, sources.states, sources.report)
        with torch.no_grad():
            codes = self.quantiser.encode(vectors)
            left = (vectors - self.quantiser.decode(codes)).square().mean() / vectors.square().mean()
        figures = {"unexplained_variance": round(float(left), 4), **usage(codes, self.settings.entries)}
        sources.report({f"fit/{name}": value for name, value in figures.items()}, self.settings.steps)
        return {"frames": float(len(vectors)), **figures}

    def features(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, 128)."""
        return self.log_mel(waveform)[:, : whole_frames(waveform)]

    def label(self, vectors: Tensor) -> Tensor:
        """Map normalised features (vectors, 128) to int64 (vectors, codebooks)."""
        return self.quantiser.encode(vectors)
