"""The acoustic teacher's heads: eight codebooks, forward and backward, at the masked frames of one 5 s clip."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.comparators.nce import MaterializedHeads
from benchmarks.row import Row, Tell, time_of
from benchmarks.student import CODEBOOKS, ENTRIES, TEMPERATURE
from benchmarks.timing import paired
from mert_core.model.heads import CodeHead

FRAMES, WIDTH, FINAL_DIM = 218, 768, 64
TARGET = 150.0


def sides(frames: int = FRAMES) -> tuple[CodeHead, MaterializedHeads, torch.Tensor, torch.Tensor]:
    """Return both heads with the same weights, states (frames, width) and codes (frames, codebooks)."""
    ours = CodeHead(WIDTH, CODEBOOKS, ENTRIES, FINAL_DIM, TEMPERATURE)
    theirs = MaterializedHeads(WIDTH, CODEBOOKS, ENTRIES, FINAL_DIM, TEMPERATURE)
    theirs.take(ours)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(frames, WIDTH, generator=generator).requires_grad_()
    return ours, theirs, states, torch.randint(0, ENTRIES, (frames, CODEBOOKS), generator=generator)


def our_loss(head: CodeHead, states: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return our cross-entropies, summed over frames and codebooks."""
    return F.cross_entropy(head(states).flatten(0, 1), codes.T.flatten(), reduction="sum")


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure in fp32."""
    ours, theirs, states, codes = sides()
    pairs = paired(
        lambda: our_loss(ours, states, codes).backward(), lambda: theirs(states, codes).backward(), rounds, tell, 20
    )
    return [Row.of_speed(f"loss heads against materialized NCE, {FRAMES} frames, fp32", TARGET, pairs, time_of)]
