"""Probe heads, many at once: one hidden layer of ReLU and dropout, MARBLE's constrained track.

All layers and seeds of one learning rate are one model: weights (probes, in, out), products by `torch.baddbmm`. The
probes do not see each other: the loss is the sum of their losses, so each gets its own gradient and its own Adam step.
One bank per rate, not one for all, because then PyTorch's fused Adam serves (2 ms a step where a hand-written
per-probe rate took 8 to 12; 15 probes of width 192 on one core).

A probe's draws (first weights, order of the items, dropout) follow from its seed alone: layers and rates are compared
on equal luck, and a probe trained in a bank is the probe trained alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from mert_core.probe.metrics import Points, item_points


@dataclass(frozen=True)
class Probe:
    """What one probe is: the hidden state it reads, its learning rate and its seed."""

    layer: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How probes are trained; the fields are those of the section ``probe`` of ``params.yaml``."""

    hidden: int
    dropout: float
    batch_items: int
    max_epochs: int
    patience: int


@dataclass(frozen=True)
class Examples:
    """One split of one task: features float32 (layers, items, width), truth int64 (items,)."""

    features: Tensor
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Bank:
    """Trained probes of one rate, each with the weights of its best epoch on validation.

    Attributes:
        probes: what each is.
        weights: (probes, width, hidden), (probes, 1, hidden), (probes, hidden, classes), (probes, 1, classes).
        validation: each one's best validation score (probes,).
        epochs: after how many epochs that was (probes,).
    """

    probes: tuple[Probe, ...]
    weights: tuple[Tensor, ...]
    validation: NDArray[np.float64]
    epochs: NDArray[np.int64]


def first_weights(seed: int, width: int, hidden: int, classes: int) -> tuple[list[Tensor], torch.Generator]:
    """Draw one probe's first weights, uniform in ±1/√fan-in like `torch.nn.Linear`; return the generator, to go on."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [((width, hidden), width), ((1, hidden), width), ((hidden, classes), hidden), ((1, classes), hidden)]
    return [(torch.rand(shape, generator=generator) * 2 - 1) / fan_in**0.5 for shape, fan_in in shapes], generator


def batches(generator: torch.Generator, items: int, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of one seed: item indices (batch,) and the dropout's factors (batch, hidden)."""
    for chosen in torch.randperm(items, generator=generator).split(recipe.batch_items):
        kept = torch.rand(len(chosen), recipe.hidden, generator=generator) >= recipe.dropout
        yield chosen, kept / (1 - recipe.dropout)


def logits(weights: Sequence[Tensor], inputs: Tensor, dropout: Tensor | None = None) -> Tensor:
    """Return (probes, items, classes) from inputs (probes, items, width)."""
    hidden = torch.baddbmm(weights[1], inputs, weights[0]).relu()
    if dropout is not None:
        hidden = hidden * dropout
    return torch.baddbmm(weights[3], hidden, weights[2])


@torch.no_grad()
def predict(weights: Sequence[Tensor], features: Tensor, layers: list[int]) -> NDArray[np.int64]:
    """Return each probe's class per item (probes, items); probe i reads ``features[layers[i]]``."""
    return logits(weights, features[layers]).argmax(dim=-1).cpu().numpy()


def train_bank(
    probes: tuple[Probe, ...],
    train: Examples,
    valid: Examples,
    points: Points,
    recipe: Recipe,
    bar: tqdm | None = None,
) -> Bank:
    """Train probes of one rate, each until its validation score has not risen for ``recipe.patience`` epochs.

    Args:
        probes: of one rate.
        train: standardised features of the training split.
        valid: the same of the validation split, on which each probe's epoch is chosen by the task's own metric over
            the whole split.
        points: the task's metric (classes, classes).
        recipe: how.
        bar: progress bar, one tick per epoch.
    """
    (rate,) = {probe.rate for probe in probes}
    width, device = train.features.shape[-1], train.features.device
    seeds = sorted({probe.seed for probe in probes})
    drawn = {seed: first_weights(seed, width, recipe.hidden, len(points)) for seed in seeds}
    per_probe = [drawn[probe.seed][0] for probe in probes]
    weights = [nn.Parameter(torch.stack(parts).to(device)) for parts in zip(*per_probe, strict=True)]
    optimiser = torch.optim.Adam(weights, lr=rate, fused=True)
    truth = torch.from_numpy(train.truth).to(device)

    best = tuple(weight.detach().clone() for weight in weights)
    scores, epochs = np.full(len(probes), -np.inf), np.zeros(len(probes), dtype=np.int64)
    active = np.arange(len(probes))
    for epoch in range(1, recipe.max_epochs + 1):
        generators = {seed: drawn[seed][1] for seed in seeds}
        _train_epoch([probes[i] for i in active], generators, weights, optimiser, train.features, truth, recipe)
        predictions = predict(weights, valid.features, [probes[i].layer for i in active])
        now = item_points(points, valid.truth, predictions).mean(axis=-1)
        risen = now > scores[active]
        scores[active[risen]], epochs[active[risen]] = now[risen], epoch
        for kept, weight in zip(best, weights, strict=True):
            kept[active[risen]] = weight.detach()[torch.from_numpy(risen)]
        going = epoch - epochs[active] < recipe.patience
        if bar is not None:
            bar.update()
            bar.set_postfix_str(f"rate {rate:g}, {int(going.sum())} training")
        if not going.any():
            break
        if not going.all():
            _keep(weights, optimiser, torch.from_numpy(going))
            active = active[going]
            seeds = sorted({probes[i].seed for i in active})
    if bar is not None:
        bar.update(recipe.max_epochs - epoch)
    return Bank(probes, best, scores, epochs)


def _train_epoch(
    probes: list[Probe],
    generators: dict[int, torch.Generator],
    weights: list[nn.Parameter],
    optimiser: torch.optim.Adam,
    features: Tensor,
    truth: Tensor,
    recipe: Recipe,
) -> None:
    order = {seed: position for position, seed in enumerate(generators)}
    which_seed = torch.tensor([order[probe.seed] for probe in probes])
    layers = torch.tensor([probe.layer for probe in probes])[:, None].to(features.device)
    epochs = [batches(generator, features.shape[1], recipe) for generator in generators.values()]
    for draws in zip(*epochs, strict=True):
        items = torch.stack([chosen for chosen, _ in draws])[which_seed].to(features.device)
        dropout = torch.stack([kept for _, kept in draws]).to(features.device)[which_seed]
        outputs = logits(weights, features[layers, items], dropout)
        # The sum over probes of each one's mean over the batch: no probe's gradient depends on another.
        loss = functional.cross_entropy(outputs.flatten(0, 1), truth[items].flatten(), reduction="sum") / items.shape[1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _keep(weights: list[nn.Parameter], optimiser: torch.optim.Adam, going: Tensor) -> None:
    """Drop the probes that have stopped from the weights and from Adam's state, in place."""
    for position, old in enumerate(weights):
        state = optimiser.state.pop(old)
        new = nn.Parameter(old.detach()[going])
        optimiser.state[new] = {
            name: value[going] if value.shape == old.shape else value for name, value in state.items()
        }
        weights[position] = new
    optimiser.param_groups[0]["params"] = list(weights)
