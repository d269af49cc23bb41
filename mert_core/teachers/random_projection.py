"""BEST-RQ: labels by a random projection and a random codebook, neither ever trained."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.config import Count, Section
from mert_core.data.target_kinds import Codes
from mert_core.features.mel import MEL_BINS, LogMel
from mert_core.teachers.base import Sources, whole_frames
from mert_core.teachers.framewise import FramewiseTeacher, usage
from mert_core.teachers.kmeans import nearest
from mert_core.teachers.spectra import MEL_CONTEXT


class RandomProjectionSettings(Section):
    """Sizes, as published, and on how many frames the bands' means and deviations are taken.

    ``stacked_frames``: neighbouring frames that are labelled together. BEST-RQ and MusicFM stack the four frames of mel
    that one frame of their student covers; here mel and student share one grid, hence 1.
    """

    codebooks: Annotated[int, Field(ge=1, le=64)] = 1
    entries: Annotated[int, Field(ge=2, le=65536)] = 8192
    dimension: Annotated[int, Field(ge=2)] = 16
    stacked_frames: Count = 1
    fit_frames: Count = 200_000


class RandomProjectionTeacher(FramewiseTeacher):
    """BEST-RQ (arXiv 2202.01855, section 3.1; on music MusicFM, arXiv 2311.03318).

    Log-mel of 128 bands, each normalised to mean 0 and deviation 1 over the corpus (without that, few entries are ever
    used: section 3.1), is projected by a matrix of Xavier's distribution; the label is the nearest entry of a codebook
    of normal vectors, projection and entries at length 1. Several codebooks have a projection each.
    """

    name = "best-rq"
    title = "random projection of log-mel (BEST-RQ, MusicFM)"
    speed = 400.0
    Settings = RandomProjectionSettings

    def __init__(self, settings: RandomProjectionSettings) -> None:
        super().__init__(settings, Codes(settings.codebooks, settings.entries), MEL_BINS * settings.stacked_frames)
        self.context_frames = MEL_CONTEXT + settings.stacked_frames // 2
        self.log_mel = LogMel(MEL_BINS, torch.float64)
        self.projections: Tensor
        self.codebooks: Tensor
        shape = settings.codebooks, MEL_BINS * settings.stacked_frames, settings.dimension
        self.register_buffer("projections", torch.zeros(shape))
        self.register_buffer("codebooks", torch.zeros(settings.codebooks, settings.entries, settings.dimension))

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Draw projections and codebooks from the seed, and take the bands' statistics from drawn frames."""
        generator = torch.Generator().manual_seed(sources.seed)
        for projection, codebook in zip(self.projections, self.codebooks, strict=True):
            nn.init.xavier_uniform_(projection, generator=generator)
            codebook.copy_(F.normalize(torch.randn(codebook.shape, generator=generator), dim=-1))
        vectors = self.drawn(sources, self.settings.fit_frames)
        figures = usage(self.label(vectors.double()), self.settings.entries)
        sources.report({f"fit/{name}": value for name, value in figures.items()}, None)
        return {"frames": float(len(vectors)), **figures}

    def features(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, 128 × stacked frames)."""
        mel = self.log_mel(waveform)[:, : whole_frames(waveform)]
        stacked = self.settings.stacked_frames
        # silence, which is 0, beyond the ends
        padded = F.pad(mel, (0, 0, (stacked - 1) // 2, stacked // 2))
        return padded.unfold(1, stacked, 1).flatten(2)

    def label(self, vectors: Tensor) -> Tensor:
        """Map normalised features (vectors, dimensions) to int64 (vectors, codebooks)."""
        # Among entries of one length the nearest has the greatest cosine, whatever the length of the vector.
        books = zip(self.projections.to(vectors.dtype), self.codebooks.to(vectors.dtype), strict=True)
        return torch.stack([nearest(vectors @ projection, codebook) for projection, codebook in books], dim=1)
