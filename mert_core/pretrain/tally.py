"""Sums of losses over micro-batches and workers, and the named terms they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mert_core.pretrain.teaching import Teaching

if TYPE_CHECKING:
    from mert_core.pretrain.objective import Losses, Objective


@torch.no_grad()
def tally(losses: Losses, masked_frames: int) -> Tensor:
    """Return one vector of sums over masked frames, float64, that adds up over micro-batches and workers.

    Its parts: frames, feature penalty; a squared error per teacher of a spectrum; per codebook: cross-entropy, correct
    guesses, frames it was asked for.
    """
    frames = losses.weighted.new_full((1,), masked_frames, dtype=torch.float64)
    scalars = torch.cat([losses.feature_penalty[None], losses.errors]).double() * frames
    return torch.cat(
        [frames, scalars, losses.entropies.double(), losses.correct.double(), losses.asked.double() * frames]
    )


def no_sums(teaching: Teaching, device: torch.device) -> Tensor:
    """Return the tally of no micro-batch at all."""
    length = 2 + len(teaching.spectra) + 3 * len(teaching.books)
    return torch.zeros(length, dtype=torch.float64, device=device)


def terms(total: Tensor, objective: Objective) -> dict[str, float]:
    """Return the unweighted terms by name, per masked frame, and ``loss``, their weighted sum.

    A term has its teacher's name. Cross-entropies are summed over the codebooks asked for, as in the loss;
    ``accuracy`` is the mean over all of them.
    """
    teaching = objective.teaching
    frames, penalty, errors, entropies, correct, asked = _parts(total, teaching)
    values = dict.fromkeys(teaching.weights, 0.0)
    for name, error in zip(teaching.spectra, errors, strict=True):
        values[name] = error / frames
    for (name, _), entropy in zip(teaching.books, entropies, strict=True):
        values[name] += entropy / frames
    loss = sum(weight * values[name] for name, weight in teaching.weights.items())
    loss += objective.weights.feature_penalty * penalty / frames
    values["feature_penalty"] = penalty / frames
    accuracy = {"accuracy": sum(correct) / sum(asked)} if teaching.books else {}
    return {"loss": loss, **values, **accuracy}


def codebook_terms(total: Tensor, teaching: Teaching) -> dict[str, float]:
    """Return cross-entropy (nats) and accuracy of each codebook that was asked for, by name."""
    _, _, _, entropies, correct, asked = _parts(total, teaching)
    found: dict[str, float] = {}
    for (name, book), entropy, hits, frames in zip(teaching.books, entropies, correct, asked, strict=True):
        if frames:
            found |= {f"{name}_{book}": entropy / frames, f"accuracy_{name}_{book}": hits / frames}
    return found


def _parts(
    total: Tensor, teaching: Teaching
) -> tuple[float, float, list[float], list[float], list[float], list[float]]:
    values, books = total.tolist(), len(teaching.books)
    first = 2 + len(teaching.spectra)
    per_book = [values[first + number * books : first + (number + 1) * books] for number in range(3)]
    return values[0], values[1], values[2:first], *per_book
