"""Label teachers by k-means on features of the sound: MERT-v0's two label sets and HuBERT's first one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from tqdm import tqdm

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.config import Count, Section
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.features.mel import MEL_FFT_SAMPLES, LogMel
from mert_core.features.mfcc_chroma import CEPSTRUM_FFT_SAMPLES, CHROMA_FFT_SAMPLES, Cepstrum, FineChroma, slopes
from mert_core.teachers.base import Sources, whole_frames
from mert_core.teachers.framewise import FramewiseTeacher, usage

# Distances that are computed at a time: some megabytes, whatever the number of vectors.
_DISTANCES = 1 << 20
# Vectors per cluster among which k-means++ looks for its start.
_START_VECTORS = 50


def nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """Return the index of the nearest entry (Euclidean) for each row: (vectors, dim), (entries, dim) → (vectors,)."""
    lengths, transposed = entries.pow(2).sum(1), entries.t()
    pieces = vectors.split(max(1, _DISTANCES // len(entries)))
    # min tells where as well, several times faster than argmin
    return torch.cat([torch.addmm(lengths, piece, transposed, alpha=-2.0).min(dim=1).indices for piece in pieces])


def lloyd(
    vectors: Tensor, centroids: Tensor, rounds: Iterable[int], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return the centroids after rounds of "nearest centroid, then mean", and the sizes that led to the last ones.

    A cluster that runs empty is put on a vector drawn anew.

    Args:
        vectors: (vectors, dim).
        centroids: (clusters, dim) to begin with.
        rounds: iterable of one item per round; a progress bar may stand around a range.
        generator: draws the revivals; None is torch's own.

    Returns:
        (clusters, dim) and (clusters,).
    """
    count, clusters = len(vectors), len(centroids)
    sizes = vectors.new_zeros(clusters)
    for _ in rounds:
        members = nearest(vectors, centroids)
        sizes = torch.bincount(members, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, members, vectors)
        fresh = vectors[torch.randint(count, (clusters,), generator=generator).to(vectors.device)]
        centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], fresh)
    return centroids, sizes


def k_means(
    vectors: Tensor, clusters: int, iterations: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return centroids (clusters, dim) and their sizes (clusters,), starting from vectors drawn at random.

    Args:
        vectors: (vectors, dim); fewer than clusters are drawn more than once.
        clusters: number of centroids.
        iterations: number of rounds of `lloyd`.
        generator: source of all draws; None is torch's own.
    """
    count = len(vectors)
    if count >= clusters:
        picked = torch.randperm(count, generator=generator)[:clusters]
    else:
        picked = torch.randint(count, (clusters,), generator=generator)
    return lloyd(vectors, vectors[picked.to(vectors.device)].clone(), range(iterations), generator)


def spread_start(vectors: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return vectors far apart to start k-means from (k-means++, Arthur and Vassilvitskii 2007).

    Each is drawn with a probability in proportion to the squared distance from the nearest one before it, among the
    first fifty vectors per cluster.

    Args:
        vectors: (vectors, dim), in no order.
        clusters: number of vectors to return.
        generator: source of all draws.

    Returns:
        (clusters, dim).

    Raises:
        MertError: there are fewer different vectors than clusters.
    """
    vectors = vectors[: _START_VECTORS * clusters]
    picked = torch.randint(len(vectors), (1,), generator=generator)
    lengths, found, least = vectors.pow(2).sum(1), [picked], torch.full((len(vectors),), torch.inf)
    for number in range(1, clusters):
        last = vectors[picked[0]]
        # Rounding leaves a vector's distance from itself slightly above 0.
        apart = lengths + last.pow(2).sum() - 2.0 * (vectors @ last)
        least = torch.minimum(least, torch.where(apart > 1e-5 * lengths.mean(), apart, 0.0))
        if not float(least.sum()):
            raise MertError(f"{number} different frames among the {len(vectors)} drawn")
        picked = torch.multinomial(least, 1, generator=generator)
        found.append(picked)
    return vectors[torch.cat(found)]


MEL_BANDS = 229
PITCH_CLASSES = 264
COEFFICIENTS = 13
_SLOPE_CONTEXT = 2

Clusters = Annotated[int, Field(ge=2, le=65536)]


class KMeansSettings(Section):
    """How many clusters, and on how many frames and for how many rounds at most they are fitted."""

    clusters: Clusters
    fit_frames: Count = 200_000
    iterations: Count = 100

    @model_validator(mode="after")
    def _enough_frames(self) -> Self:
        if self.fit_frames < self.clusters:
            raise ValueError(f"fit_frames is {self.fit_frames}; it must be at least clusters = {self.clusters}")
        return self


class LogMelKMeansSettings(KMeansSettings):
    """MERT-v0's number of clusters."""

    clusters: Clusters = 300


class ChromaKMeansSettings(KMeansSettings):
    """MERT-v0's number of clusters."""

    clusters: Clusters = 200


class MfccKMeansSettings(KMeansSettings):
    """HuBERT's number of clusters; MERT's ablation on music had 300."""

    clusters: Clusters = 100


class KMeansTeacher(FramewiseTeacher):
    """Labels a frame with the nearest of k-means centroids of its features.

    HuBERT (arXiv 2106.07447, section IV-B) and MERT-v0 fit scikit-learn's mini-batch k-means (batches of 10,000
    frames, 20 starts by k-means++, the best kept) on features as they are. Here one draw of frames is clustered by
    full rounds of Lloyd's algorithm from one k-means++ start, and every feature is first normalised to mean 0 and
    deviation 1, so that slopes count as much as levels. Their grid is 50 Hz at 16 kHz; ours is the student's: 75 Hz at
    24 kHz.
    """

    def __init__(self, settings: KMeansSettings, dimensions: int) -> None:
        super().__init__(settings, Codes(1, settings.clusters), dimensions)
        self.centroids: Tensor
        self.register_buffer("centroids", torch.zeros(settings.clusters, dimensions))

    def fit(self, sources: Sources) -> dict[str, float | str]:
        """Draw frames and cluster them."""
        settings = self.settings
        vectors = self.drawn(sources, settings.fit_frames)
        generator = torch.Generator().manual_seed(sources.seed)
        try:
            start = spread_start(vectors, settings.clusters, generator)
        except MertError as error:
            raise MertError(
                f"teachers.{self.instance}.clusters is {settings.clusters}, but there are only {error}; lower it, "
                "or raise fit_frames"
            ) from error
        rounds = tqdm(range(settings.iterations), desc=f"{self.instance}: k-means", unit="round")
        centroids, _ = lloyd(vectors, start, rounds, generator)
        self.centroids.copy_(centroids)
        members = nearest(vectors, self.centroids)
        left = (vectors - self.centroids[members]).square().mean() / vectors.square().mean()
        figures = {"unexplained_variance": round(float(left), 4), **usage(members[:, None], settings.clusters)}
        sources.report({f"fit/{name}": value for name, value in figures.items()}, None)
        return {"frames": float(len(vectors)), **figures}

    def label(self, vectors: Tensor) -> Tensor:
        """Map normalised features (vectors, dimensions) to int64 (vectors, 1)."""
        return nearest(vectors, self.centroids.to(vectors.dtype))[:, None]


class SlopesKMeansTeacher(KMeansTeacher):
    """Labels by a spectrum and its slopes over time, or the slopes of those as well.

    Attributes:
        slope_orders: 1 for slopes, 2 for theirs as well.
    """

    slope_orders: ClassVar[int] = 1

    def __init__(self, settings: KMeansSettings, spectrum: nn.Module, bands: int, fft_samples: int) -> None:
        super().__init__(settings, (1 + self.slope_orders) * bands)
        self.spectrum = spectrum
        # half a window, and two frames for each slope
        self.context_frames = -(-(fft_samples // 2) // HOP_SAMPLES) + self.slope_orders * _SLOPE_CONTEXT

    def features(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, dimensions)."""
        parts = [self.spectrum(waveform)[:, : whole_frames(waveform)]]
        for _ in range(self.slope_orders):
            parts.append(slopes(parts[-1]))
        return torch.cat(parts, dim=-1)


class LogMelKMeansTeacher(SlopesKMeansTeacher):
    """MERT-v0's first label set: log-mel of 229 bands and its slopes, 300 clusters."""

    name = "logmel-kmeans"
    title = "k-means on log-mel 229 + Δ (MERT-v0)"
    speed = 300.0
    Settings = LogMelKMeansSettings

    def __init__(self, settings: LogMelKMeansSettings) -> None:
        super().__init__(settings, LogMel(MEL_BANDS, torch.float64), MEL_BANDS, MEL_FFT_SAMPLES)


class ChromaKMeansTeacher(SlopesKMeansTeacher):
    """MERT-v0's second label set: chroma of 264 pitch classes and its slopes, 200 clusters.

    The authors' chroma is ``librosa.feature.chroma_stft(n_chroma=264)``: 22 classes per semitone of a power spectrum,
    so is this one; but over windows of 171 ms in place of 32 ms, which tell no semitones apart below 1 kHz.
    """

    name = "chroma-kmeans"
    title = "k-means on chroma 264 + Δ (MERT-v0)"
    speed = 160.0
    Settings = ChromaKMeansSettings

    def __init__(self, settings: ChromaKMeansSettings) -> None:
        super().__init__(settings, FineChroma(PITCH_CLASSES), PITCH_CLASSES, CHROMA_FFT_SAMPLES)


class MfccKMeansTeacher(SlopesKMeansTeacher):
    """HuBERT's first label set: 13 cepstral coefficients, their slopes and the slopes of those."""

    name = "mfcc-kmeans"
    title = "k-means on MFCC 13 + Δ + ΔΔ (HuBERT, first iteration)"
    speed = 700.0
    Settings = MfccKMeansSettings
    slope_orders = 2

    def __init__(self, settings: MfccKMeansSettings) -> None:
        super().__init__(settings, Cepstrum(COEFFICIENTS), COEFFICIENTS, CEPSTRUM_FFT_SAMPLES)
