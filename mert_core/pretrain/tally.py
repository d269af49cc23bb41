"""Sums of losses over micro-batches and workers, and the named terms they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mert_core.config import LossWeights
    from mert_core.pretrain.objective import Losses


SCALARS = ("musical", "mel", "chroma", "feature_penalty")
"""Terms that are means over masked frames; those of ``OPTIONAL`` are named only where they have weight."""
OPTIONAL = ("mel", "chroma")
_HEAD = 1 + len(SCALARS)


@torch.no_grad()
def tally(losses: Losses, masked_frames: int) -> Tensor:
    """Return one vector of sums over masked frames, float64, that adds up over micro-batches and workers.

    Its parts: frames, `SCALARS`; per codebook: cross-entropy, correct guesses, frames it was asked for.
    """
    frames = losses.musical.new_full((), masked_frames, dtype=torch.float64)
    scalars = torch.stack([getattr(losses, name).double() * frames for name in SCALARS])
    return torch.cat(
        [frames[None], scalars, losses.acoustic.double(), losses.correct.double(), losses.asked.double() * frames]
    )


def no_sums(codebooks: int, device: torch.device) -> Tensor:
    """Return the tally of no micro-batch at all."""
    return torch.zeros(_HEAD + 3 * codebooks, dtype=torch.float64, device=device)


def terms(total: Tensor, weights: LossWeights) -> dict[str, float]:
    """Return the unweighted terms by name, per masked frame, and ``loss``, their weighted sum.

    ``acoustic`` is summed over the codebooks asked for, as in the loss; ``accuracy`` is the mean over them.
    """
    frames, *scalars = total[:_HEAD].tolist()
    rest = total[_HEAD:].tolist()
    codebooks = len(rest) // 3
    values = {"acoustic": sum(rest[:codebooks]) / frames}
    values |= {
        name: scalar / frames
        for name, scalar in zip(SCALARS, scalars, strict=True)
        if name not in OPTIONAL or getattr(weights, name)
    }
    loss = sum(getattr(weights, name) * value for name, value in values.items())
    return {"loss": loss, **values, "accuracy": sum(rest[codebooks : 2 * codebooks]) / sum(rest[2 * codebooks :])}


def codebook_terms(total: Tensor) -> dict[str, float]:
    """Return cross-entropy (nats) and accuracy of each codebook that was asked for, by name."""
    rest = total[_HEAD:].tolist()
    codebooks = len(rest) // 3
    frames = rest[2 * codebooks :]
    asked = [k for k in range(codebooks) if frames[k]]
    entropies = {f"acoustic_{k}": rest[k] / frames[k] for k in asked}
    return entropies | {f"accuracy_{k}": rest[codebooks + k] / frames[k] for k in asked}
