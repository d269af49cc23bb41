"""What teachers share that label frames by normalised features: exact in pieces, statistics from drawn frames."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.data.sampler import RandomCrops
from mert_core.data.target_kinds import Codes
from mert_core.teachers.base import Needs, Sources, Teacher, whole_frames

_DRAWN_BATCH = 32
_LEAST_DEVIATION = 1e-4


class FramewiseTeacher(Teacher):
    """A teacher of codes whose labels follow from a frame's features, each normalised to mean 0 and deviation 1.

    Features, normalisation and the search for the nearest entry are in float64: see `mert_core.features.mfcc_chroma`.
    What is kept is float32. A subclass says what `features` are and how `label` labels them, and fits itself on what
    `drawn` returns.

    Attributes:
        piece_frames: frames labelled at a time, so that memory does not grow with the track, and caches are of use.
        drawn_frames: neighbouring frames that a fit draws at a time: few, so that the draw covers much different music.
    """

    needs: ClassVar[Needs] = "music"
    tolerance: ClassVar[float] = 0.0
    piece_frames: int = 512
    drawn_frames: int = 50

    def __init__(self, settings: Any, codes: Codes, dimensions: int) -> None:
        super().__init__(settings)
        self.kind = codes
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("deviation", torch.ones(dimensions))

    def features(self, waveform: Tensor) -> Tensor:
        """Map a stretch (batch, samples) as `context_span` asks for to (batch, frames, dimensions)."""
        raise NotImplementedError

    def label(self, vectors: Tensor) -> Tensor:
        """Map normalised features, float64 (vectors, dimensions), to int64 (vectors, codebooks)."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to int64 (batch, frames, codebooks)."""
        frames, labels = whole_frames(waveform), []
        with torch.autocast(waveform.device.type, enabled=False):
            for first in range(0, frames, self.piece_frames):
                count = min(self.piece_frames, frames - first)
                begin, end = self.context_span(first, count, frames)
                features = self.features(waveform[:, begin * HOP_SAMPLES : end * HOP_SAMPLES])
                features = features[:, first - begin :][:, :count].double()
                normalized = (features - self.mean.double()) / self.deviation.double()
                labels.append(self.label(normalized.flatten(0, 1)).view(len(waveform), count, -1))
        return torch.cat(labels, dim=1)

    @torch.no_grad()
    def drawn(self, sources: Sources, frames: int) -> Tensor:
        """Draw frames of the training split, take mean and deviation from them, and return them normalised.

        Short stretches are drawn, each as likely as any other, with all that their frames must hear.

        Args:
            sources: the music and the seed.
            frames: number of frames; where there are fewer, some are drawn again.

        Returns:
            float32 (frames, dimensions), in no order.

        Raises:
            MertError: no track is long enough.
        """
        assert sources.music is not None  # it is what these teachers need
        first, count = 1000 * self.drawn_frames, self.drawn_frames  # far from a track's ends
        begin, end = self.context_span(first, count, 2 * first)
        crops = RandomCrops(
            sources.music, "train", (end - begin) * HOP_SAMPLES, sources.seed, f"teachers.{self.instance}, one stretch"
        )
        found, batches = [], -(-frames // (count * _DRAWN_BATCH))
        for step in tqdm(range(batches), desc=f"{self.instance}: music", unit="batch"):
            features = self.features(crops.batch(step, _DRAWN_BATCH))
            found.append(features[:, first - begin :][:, :count].flatten(0, 1).float())
        vectors = torch.cat(found)
        order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(sources.seed))
        vectors = vectors[order[:frames]]
        self.mean.copy_(vectors.mean(0, dtype=torch.float64))
        vectors -= self.mean
        deviation = vectors.square().mean(0, dtype=torch.float64).sqrt()
        self.deviation.copy_(deviation.clamp(min=_LEAST_DEVIATION))
        return vectors.div_(self.deviation)


def usage(codes: Tensor, entries: int) -> dict[str, float]:
    """Return how well entries are used by codes (frames, codebooks), for the record of a fit.

    ``usage_least`` and ``usage_mean``: share of entries in use, least and mean over the codebooks;
    ``entropy_bits``: least over the codebooks.
    """
    shares, bits = [], []
    for book in codes.unbind(1):
        counts = torch.bincount(book, minlength=entries).double()
        probability = counts[counts > 0] / counts.sum()
        shares.append(len(probability) / entries)
        bits.append(float(-(probability * probability.log2()).sum()))
    figures = {"usage_least": min(shares), "usage_mean": sum(shares) / len(shares), "entropy_bits": min(bits)}
    return {name: round(value, 4) for name, value in figures.items()}
