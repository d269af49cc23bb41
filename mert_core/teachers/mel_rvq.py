"""MuQ's Mel-RVQ: labels by a residual vector quantiser of the log-mel spectrum, trained first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mert_core.config import Count, NonNegative, Positive, Section
from mert_core.data.target_kinds import Codes
from mert_core.errors import MertError
from mert_core.features.mel import MEL_BINS, LogMel
from mert_core.teachers.base import Report, Sources, keep_state, restore_state, whole_frames
from mert_core.teachers.framewise import FramewiseTeacher, usage
from mert_core.teachers.kmeans import k_means, nearest
from mert_core.teachers.spectra import MEL_CONTEXT

_START_ROUNDS = 10
# Vectors per entry that the start is found from.
_START_VECTORS = 20
# A running count below this share of a fair one is "hardly any".
_DEAD_SHARE = 0.1


class Quantized(NamedTuple):
    """What a training pass makes of vectors.

    Attributes:
        left: what no codebook took up, (vectors, dimensions).
        codes: (vectors, codebooks).
        commitment: mean squared distance of projections from their entries, summed over codebooks; teaches projections.
        codebook: the same number; teaches entries.
    """

    left: Tensor
    codes: Tensor
    commitment: Tensor
    codebook: Tensor


class LinearResidualQuantizer(nn.Module):
    """Per codebook: project down, take the nearest entry, project it back up, pass on the rest.

    Args:
        codebooks: number of codebooks.
        entries: number of entries of a codebook.
        dimension: width of the space in which entries lie.
        width: width of the vectors.
    """

    def __init__(self, codebooks: int, entries: int, dimension: int, width: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(codebooks, width, dimension))
        self.entries = nn.Parameter(torch.zeros(codebooks, entries, dimension))
        self.up = nn.Parameter(torch.zeros(codebooks, dimension, width))

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Begin with what can be had without training: per codebook the principal directions, then k-means.

        Args:
            vectors: (vectors, width), mean 0.
            generator: draws k-means' start.
        """
        left = vectors[: _START_VECTORS * self.entries.shape[1]]
        for down, entries, up in zip(self.down, self.entries, self.up, strict=True):
            # eigenvalues come in rising order
            directions = torch.linalg.eigh((left.t() @ left).double()).eigenvectors[:, -down.shape[1] :]
            down.copy_(directions)
            up.copy_(directions.t())
            low = left @ down
            entries.copy_(k_means(low, len(entries), _START_ROUNDS, generator)[0])
            left = left - entries[nearest(low, entries)] @ up

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantise with gradients: those of a projection's entry go straight through to the projection."""
        left, found = vectors, []
        commitment, codebook = vectors.new_zeros(()), vectors.new_zeros(())
        for down, entries, up in zip(self.down, self.entries, self.up, strict=True):
            low = left @ down
            codes = nearest(low.detach(), entries.detach())
            chosen = F.embedding(codes, entries)
            commitment = commitment + F.mse_loss(low, chosen.detach())
            codebook = codebook + F.mse_loss(chosen, low.detach())
            left = left - (low + (chosen - low).detach()) @ up
            found.append(codes)
        return Quantized(left, torch.stack(found, dim=1), commitment, codebook)

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Map (vectors, width) to int64 codes (vectors, codebooks), in the vectors' precision."""
        left, found = vectors, []
        parts = (part.to(vectors.dtype) for part in (self.down, self.entries, self.up))
        for down, entries, up in zip(*parts, strict=True):
            codes = nearest(left @ down, entries)
            left = left - entries[codes] @ up
            found.append(codes)
        return torch.stack(found, dim=1)

    @torch.no_grad()
    def revive(self, vectors: Tensor, counts: Tensor, fair: float, generator: torch.Generator) -> None:
        """Put entries that hardly any vector chose on vectors drawn from a batch, with a fair count.

        Args:
            vectors: (vectors, width).
            counts: (codebooks, entries), running number of vectors per batch that chose an entry.
            fair: an entry's fair part of a batch.
            generator: draws the vectors.
        """
        left = vectors
        books = zip(self.down, self.entries, self.up, counts, self.encode(vectors).unbind(1), strict=True)
        for down, entries, up, chosen, codes in books:
            low = left @ down
            left = left - entries[codes] @ up
            dead = chosen < _DEAD_SHARE * fair
            entries[dead] = low[torch.randint(len(vectors), (int(dead.sum()),), generator=generator)]
            chosen[dead] = fair

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (vectors, codebooks) to (vectors, width)."""
        books = zip(codes.unbind(1), self.entries, self.up, strict=True)
        return torch.stack([entries[book] @ up for book, entries, up in books]).sum(0)


_LOG_EVERY = 10
_SAVE_EVERY = 200
# How often entries that hardly any vector chose are put on vectors; not in the last part, where they settle.
_REVIVE_EVERY = 20
_REVIVING_SHARE = 0.8
_COUNT_DECAY = 0.98


def train(
    model: LinearResidualQuantizer,
    vectors: Tensor,
    settings: MelRvqSettings,
    seed: int,
    state_folder: Path | None,
    report: Report,
) -> None:
    """Train a quantiser in place.

    Adam on the mean squared error of the reconstruction, the codebook loss and the commitment loss, from principal
    directions and k-means; the learning rate falls linearly to 0.

    Args:
        model: freshly made.
        vectors: (vectors, width), mean 0 and deviation 1.
        settings: the section ``teachers.mel-rvq``.
        seed: decides all draws; a step's are a function of it and the step.
        state_folder: where to keep and look for the state of an unfinished run; None keeps none.
        report: called with figures by name and the step.

    Raises:
        MertError: the loss is not finite.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    fair = settings.batch_frames / settings.entries
    counts = torch.full((settings.codebooks, settings.entries), fair)
    parts = {"model": model, "optimizer": optimizer, "counts": counts}
    first = restore_state(state_folder, parts)
    if first == 0:
        model.start(vectors, torch.Generator().manual_seed(seed))
    bar = tqdm(range(first, settings.steps), desc="mel-rvq", unit="step", initial=first, total=settings.steps)
    for step in bar:
        generator = torch.Generator().manual_seed(seed + 1 + step)
        batch = vectors[torch.randint(len(vectors), (settings.batch_frames,), generator=generator)]
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - step / settings.steps)
        made = model(batch)
        error = made.left.square().mean()
        loss = error + made.codebook + settings.commitment * made.commitment
        if not torch.isfinite(loss):
            raise MertError(
                f"the Mel-RVQ's loss is {loss.item()} at step {step}; lower teachers.mel-rvq.learning_rate "
                f"(now {settings.learning_rate:g})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        chosen = torch.stack([torch.bincount(book, minlength=settings.entries) for book in made.codes.unbind(1)])
        counts.lerp_(chosen.float(), 1.0 - _COUNT_DECAY)
        if (step + 1) % _REVIVE_EVERY == 0 and step < _REVIVING_SHARE * settings.steps:
            model.revive(batch, counts, fair, generator)
        if step % _LOG_EVERY == 0 or step == settings.steps - 1:
            terms = {"error": error.item(), "commitment": made.commitment.item()}
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()})
            report({f"train/{name}": value for name, value in terms.items()}, step)
        if state_folder and (step + 1) % _SAVE_EVERY == 0 and step + 1 < settings.steps:
            keep_state(state_folder, step + 1, parts)


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
        self.quantiser = LinearResidualQuantizer(settings.codebooks, settings.entries, settings.dimension, MEL_BINS)

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
