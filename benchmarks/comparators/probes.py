"""Probes one by one, as people write them: data loader, `nn.Sequential`, `torch.optim.Adam`, validation each epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sized
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from mert_core.probing.probe_bank import WEIGHTED, ProbeSettings, ProbeSpec, Shape, dropout_factors, first_weights


@dataclass(frozen=True)
class Split:
    """Standardized states (states, items, width) and classes (items,)."""

    states: Tensor
    truth: Tensor

    def loader(self, probe: ProbeSpec, batch_items: int, sampler: Sampler[int] | None, shuffle: bool) -> DataLoader:
        """Return batches of what a probe reads: its state, or states 1 to L as (batch, states, width)."""
        read = self.states[1:].transpose(0, 1) if probe.input == WEIGHTED else self.states[probe.input]
        return DataLoader(TensorDataset(read, self.truth), batch_items, shuffle=shuffle, sampler=sampler)


class WeightedSum(nn.Module):
    """The learned softmax-weighted sum of states (batch, states, width)."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))

    def forward(self, states: Tensor) -> Tensor:
        """Return (batch, width)."""
        return (states * torch.softmax(self.weights, 0)[:, None]).sum(1)


class SameOrder(Sampler[int]):
    """The order of items that our bank draws."""

    def __init__(self, items: Sized, generator: torch.Generator) -> None:
        self.items, self.generator = items, generator

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(len(self.items), generator=self.generator).tolist()

    def __len__(self) -> int:
        return len(self.items)


class SameDropout(nn.Module):
    """The dropout that our bank draws."""

    def __init__(self, settings: ProbeSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings, self.generator = settings, generator

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, hidden)."""
        factors = dropout_factors(len(hidden), self.settings, self.generator) if self.training else None
        return hidden if factors is None else hidden * factors


def train(
    probe: ProbeSpec, known: Split, held_out: Split, classes: int, settings: ProbeSettings, same_draws: bool
) -> tuple[nn.Module, float]:
    """Train one probe; return it as it was at its best epoch, and its accuracy there.

    Args:
        probe: input, rate and seed.
        known: the training split.
        held_out: the validation split.
        classes: of the task.
        settings: how a probe is trained.
        same_draws: first weights, order and dropout as our bank draws them, to compare results; else torch's own.
    """
    torch.manual_seed(probe.seed)
    width, generator = known.states.shape[2], torch.Generator()
    layers: list[nn.Module] = [WeightedSum(len(known.states) - 1)] if probe.input == WEIGHTED else []
    linear = [nn.Linear(width, settings.hidden or classes)]
    if settings.hidden:
        linear.append(nn.Linear(settings.hidden, classes))
    if same_draws:
        drawn, generator = first_weights(probe.seed, Shape(width, settings.hidden, classes))
        with torch.no_grad():
            for layer, weight, bias in zip(linear, drawn[::2], drawn[1::2], strict=False):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
    layers.append(linear[0])
    if settings.hidden:
        dropout = SameDropout(settings, generator) if same_draws else nn.Dropout(settings.dropout)
        layers += [nn.ReLU(), dropout, linear[1]]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=probe.rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=settings.plateau_factor, patience=settings.plateau_patience, threshold=0
    )
    sampler = SameOrder(known.truth, generator) if same_draws else None
    batches = known.loader(probe, settings.batch_items, sampler, shuffle=not same_draws)
    checks = held_out.loader(probe, settings.batch_items, None, shuffle=False)

    best, best_epoch, kept = -1.0, 0, model.state_dict()
    for epoch in range(settings.max_epochs):
        model.train()
        for inputs, truth in batches:
            loss = nn.functional.cross_entropy(model(inputs), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, truth in checks:
                right += int((model(inputs).argmax(dim=1) == truth).sum())
        score = right / len(held_out.truth)
        scheduler.step(score)
        if score > best:
            best, best_epoch, kept = score, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(kept)
    return model, best


@torch.no_grad()
def answers(model: nn.Module, probe: ProbeSpec, split: Split) -> NDArray[np.float32]:
    """Return a trained probe's logits (items, classes)."""
    model.eval()
    read = split.states[1:].transpose(0, 1) if probe.input == WEIGHTED else split.states[probe.input]
    return model(read).numpy()
