"""Pre-training heads: the codes of each codebook by cosine similarity, and the CQT by regression."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CQT_BINS = 336


class Heads(nn.Module):
    """Predict the acoustic and the musical teacher from encoder states.

    Args:
        width: width of the encoder.
        codebooks: codebooks of the acoustic teacher.
        entries: entries per codebook.
        final_dim: width of one codebook's prediction space (64 for 95M, 128 for 330M).
        temperature: divides the cosine similarities (0.1 as published).
        seed: seed of the initial weights.
    """

    def __init__(
        self, width: int, codebooks: int, entries: int, final_dim: int, temperature: float, seed: int = 0
    ) -> None:
        super().__init__()
        self.codebooks, self.entries, self.final_dim, self.temperature = codebooks, entries, final_dim, temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.final_proj = nn.Linear(width, codebooks * final_dim)
            # The published U(0, 1) starts all entries nearly parallel (cosine 0.75); about zero they start apart.
            self.codebook_embeddings = nn.Parameter(torch.rand(codebooks, entries, final_dim) * 2 - 1)
            self.cqt_proj = nn.Linear(width, CQT_BINS)

    def code_logits(self, states: Tensor) -> Tensor:
        """Map (positions, width) to (codebooks, positions, entries), in fp32.

        Both sides are normalised first, so that one batched GEMM gives all cosine similarities.
        """
        queries = self.final_proj(states).unflatten(-1, (self.codebooks, self.final_dim)).transpose(0, 1)
        queries = F.normalize(queries.float(), dim=-1)
        tables = F.normalize(self.codebook_embeddings.float(), dim=-1)
        with torch.autocast(states.device.type, enabled=False):
            return torch.bmm(queries, tables.transpose(1, 2)) / self.temperature

    def cqt(self, states: Tensor) -> Tensor:
        """Map (positions, width) to (positions, 336), linear magnitude."""
        return self.cqt_proj(states)
