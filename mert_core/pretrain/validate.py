"""Validation on crops and masks that never change, and the reference line of a student that has learned nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.pretrain.batch import Batch
from mert_core.pretrain.data import CropSource
from mert_core.pretrain.objective import Objective
from mert_core.pretrain.place import Place
from mert_core.pretrain.tally import codebook_terms, no_sums, tally, terms
from mert_core.workers import in_order, single_threads

if TYPE_CHECKING:
    from mert_core.config import Pretrain

REFERENCE_CROPS = 512


@torch.no_grad()
def validate(
    params: Pretrain, objective: Objective, source: CropSource, place: Place, read_ahead: int = 1
) -> dict[str, float]:
    """Return all terms, with those of each codebook, over the fixed validation batches.

    The student hears the crops without noise mixture, so that runs with different mixtures compare; it must be built
    with ``corrupt=False``, and then a run that trains on one random codebook at a time is asked for all. Batches are
    dealt out to the workers, who all take equally many, as sharded layers need; surplus ones are not counted.
    """
    was_training = objective.training
    objective.eval()
    clips = params.batch_clips
    total = no_sums(objective.teaching, place.device)
    own = range(place.rank, params.validate_batches + place.rank, place.world)
    numbers = [min(number, params.validate_batches - 1) for number in own]

    def cut(number: int) -> Batch:
        return source.batch(number * clips, clips, range(clips))

    with single_threads(workers=read_ahead) as pool:
        for place_in, number, batch in zip(own, numbers, in_order(pool, cut, numbers, read_ahead), strict=True):
            losses = objective(batch.to(place.device))
            if number == place_in:
                total += tally(losses, batch.masked_frames)
    objective.train(was_training)
    place.sum(total)
    return terms(total, objective) | codebook_terms(total, objective.teaching)


def unigram_cross_entropy(train: CropSource, valid: CropSource, params: Pretrain) -> dict[str, list[float]]:
    """Return, per teacher and codebook, the nats that guessing each validation code by its frequency in training costs.

    A student below this line has learned something from the music around the mask. Frequencies come from the first
    512 training crops, with one added to each count; the codes are all those of the fixed validation crops.
    """
    first = np.arange(min(REFERENCE_CROPS, len(train)), dtype=np.int64)
    fixed = np.arange(params.validate_batches * params.batch_clips, dtype=np.int64)
    found = {}
    for name, kind in train.teaching.codes.items():
        seen, asked = train.codes(name, first), valid.codes(name, fixed)
        found[name] = [_cross_entropy(seen[..., k], asked[..., k], kind.entries) for k in range(kind.codebooks)]
    return found


def _cross_entropy(seen: NDArray[np.int64], asked: NDArray[np.int64], entries: int) -> float:
    counts = np.bincount(seen.ravel(), minlength=entries) + 1.0
    return float(-np.log(counts / counts.sum())[asked.ravel()].mean())


@torch.no_grad()
def spectra_example(objective: Objective, source: CropSource, place: Place) -> dict[str, NDArray[np.generic]]:
    """Return one validation crop's ``mask`` (frames,), ``true_NAME`` and ``predicted_NAME`` spectra (frames, bins).

    All workers must call this together.
    """
    was_training = objective.training
    objective.eval()
    batch = source.batch(0, 1, range(1)).to(place.device)
    truth = objective.teaching.targets(batch, objective.teaching.spectra)
    guess = objective.guessed_spectra(batch.noisy, batch.mask)
    example: dict[str, NDArray[np.generic]] = {"mask": batch.mask[0].cpu().numpy()}
    for name in objective.teaching.spectra:
        example[f"true_{name}"] = truth[name][0].float().cpu().numpy()
        example[f"predicted_{name}"] = guess[name][0].float().cpu().numpy()
    objective.train(was_training)
    return example
