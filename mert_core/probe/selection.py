"""Choosing a layer and a learning rate. Nothing here sees the test split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mert_core.probe.heads import Bank, Examples, Probe, Recipe, predict, train_bank
from mert_core.probe.metrics import Points
from mert_core.workers import single_threads

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Selection:
    """The chosen layer and rate, with one trained probe per seed.

    Attributes:
        layer: the hidden state.
        rate: the learning rate.
        validation: its score, mean over the seeds.
        by_layer: every layer's score at its best rate.
        weights: of the chosen probes; see `Bank`.
        mean: of the chosen layer's features over the training items (width,).
        deviation: the same, standard deviation.
    """

    layer: int
    rate: float
    validation: float
    by_layer: list[tuple[int, float]]
    weights: tuple[Tensor, ...]
    mean: Tensor
    deviation: Tensor

    def predict(self, features: Features) -> NDArray[np.int64]:
        """Return each seed's class per item (seeds, items) from the chosen layer's features (items, width)."""
        device = self.mean.device
        inputs = (torch.from_numpy(np.ascontiguousarray(features)).to(device) - self.mean) / self.deviation
        return predict(self.weights, inputs[None], [0] * len(self.weights[0]))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the items of (layers, items, width), each (layers, 1, width).

    Features are standardised with those of the training split, for every encoder alike: a probe's learning rate then
    means the same for all, and no encoder, pre-trained or floor, loses because its states are large or small. A
    constant feature stays constant.
    """
    deviation, mean = torch.std_mean(features, dim=1, keepdim=True, correction=0)
    return mean, torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, torch.ones_like(deviation))


def choose(probes: list[Probe], validation: NDArray[np.float64]) -> tuple[int, float, dict[tuple[int, float], float]]:
    """Return the layer and rate with the best validation score, averaged over the seeds, and all those averages.

    On a tie the lower layer, then the lower rate.
    """
    found: dict[tuple[int, float], list[float]] = {}
    for probe, score in zip(probes, validation, strict=True):
        found.setdefault((probe.layer, probe.rate), []).append(float(score))
    averages = {pair: float(np.mean(scores)) for pair, scores in sorted(found.items())}
    layer, rate = max(averages, key=averages.__getitem__)
    return layer, rate, averages


def select(
    train: tuple[Features, NDArray[np.int64]],
    valid: tuple[Features, NDArray[np.int64]],
    points: Points,
    recipe: Recipe,
    *,
    rates: list[float],
    seeds: list[int],
    name: str,
    device: str = "cpu",
) -> Selection:
    """Train a probe per layer, rate and seed; choose layer and rate on validation.

    Args:
        train: features (layers, items, width) and class indices (items,) of the training split.
        valid: the same of the validation split.
        points: the task's metric (classes, classes).
        recipe: how a probe is trained.
        rates: learning rates.
        seeds: seeds; a layer's score at a rate is the mean over them.
        name: for the progress bar.
        device: where to train.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(train[0])).to(device)
    mean, deviation = moments(inputs)
    known = Examples((inputs - mean) / deviation, train[1])
    held_out = Examples((torch.from_numpy(np.ascontiguousarray(valid[0])).to(device) - mean) / deviation, valid[1])
    layers = range(len(inputs))

    with tqdm(total=len(rates) * recipe.max_epochs, desc=f"probes {name}", unit="epoch", leave=False) as bar:

        def train_rate(rate: float) -> Bank:
            probes = tuple(Probe(layer, rate, seed) for layer in layers for seed in seeds)
            return train_bank(probes, known, held_out, points, recipe, bar)

        with single_threads(device) as pool:
            banks = list(pool.map(train_rate, rates))
    trained = [probe for bank in banks for probe in bank.probes]
    layer, rate, averages = choose(trained, np.concatenate([bank.validation for bank in banks]))

    bank = banks[rates.index(rate)]
    chosen = [position for position, probe in enumerate(bank.probes) if probe.layer == layer]
    return Selection(
        layer=layer,
        rate=rate,
        validation=averages[layer, rate],
        by_layer=[(number, max(averages[number, rate] for rate in rates)) for number in layers],
        weights=tuple(weight[chosen] for weight in bank.weights),
        mean=mean[layer, 0],
        deviation=deviation[layer, 0],
    )
