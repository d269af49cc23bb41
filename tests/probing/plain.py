"""The same training, as anyone would write it for one probe: torch.nn, torch.optim, autograd."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mert_core.probing.probe_bank import (
    WEIGHTED,
    ProbeLoss,
    ProbeSettings,
    ProbeSpec,
    Shape,
    dropout_factors,
    first_weights,
)
from mert_core.probing.train import Score


class PlainProbe(nn.Module):
    def __init__(self, probe: ProbeSpec, states: int, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input = probe.input
        drawn, self.generator = first_weights(probe.seed, Shape(width, hidden, outputs, max(1, states - 1)))
        *layers, mixture = (nn.Parameter(each.clone()) for each in drawn)
        self.layers, self.mixture = nn.ParameterList(layers), mixture

    def forward(self, states: Tensor, dropout: Tensor | None = None) -> Tensor:
        if self.input == WEIGHTED:
            read = (states[-len(self.mixture) :] * torch.softmax(self.mixture, 0)[:, None, None]).sum(0)
        else:
            read = states[self.input]
        first = functional.linear(read, *self.layers[:2])
        if len(self.layers) == 2:
            return first
        return functional.linear(first.relu() * (1 if dropout is None else dropout), *self.layers[2:])


def train_plain(
    probe: ProbeSpec,
    train: tuple[Tensor, Tensor],
    valid: Tensor,
    objective: ProbeLoss,
    settings: ProbeSettings,
    score: Score,
    tracks: Tensor | None = None,
) -> tuple[PlainProbe, float, int, list[float]]:
    """Train on standardised states (states, rows, width) and targets; return the best, its score, epoch, all rates."""
    states, truth = train
    model = PlainProbe(probe, states.shape[0], states.shape[2], settings.hidden, objective.outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=probe.rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=settings.plateau_factor, patience=settings.plateau_patience, threshold=0
    )
    losses = {"single": nn.CrossEntropyLoss(), "multi": nn.BCEWithLogitsLoss(), "regression": nn.MSELoss()}
    best, best_epoch, kept, rates = -np.inf, 0, {}, []
    for epoch in range(1, settings.max_epochs + 1):
        for chosen in torch.randperm(len(truth), generator=model.generator).split(settings.batch_items):
            dropout = dropout_factors(len(chosen), settings, model.generator)
            loss = losses[objective.kind](model(states[:, chosen], dropout), truth[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            outputs = model(valid)
            if tracks is not None:
                outputs = torch.stack([outputs[tracks == track].mean(0) for track in range(int(tracks.max()) + 1)])
        now = float(score(outputs.numpy()[None])[0])
        if now > best:
            best, best_epoch = now, epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        scheduler.step(now)
        rates.append(optimizer.param_groups[0]["lr"])
        if epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(kept)
    return model, best, best_epoch, rates
