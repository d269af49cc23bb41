"""A residual vector quantiser with linear projections into a small space for each codebook."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.teachers.clustering import k_means, nearest

_START_ROUNDS = 10
# Vectors per entry that the start is found from.
_START_VECTORS = 20


class Quantised(NamedTuple):
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


class LinearResidualQuantiser(nn.Module):
    """Per codebook: project down, take the nearest entry, project it back up, pass on the rest.

    Args:
        codebooks: how many.
        entries: of each.
        dimension: of the space in which entries lie.
        width: of the vectors.
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

    def forward(self, vectors: Tensor) -> Quantised:
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
        return Quantised(left, torch.stack(found, dim=1), commitment, codebook)

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
    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (vectors, codebooks) to (vectors, width)."""
        books = zip(codes.unbind(1), self.entries, self.up, strict=True)
        return torch.stack([entries[book] @ up for book, entries, up in books]).sum(0)
