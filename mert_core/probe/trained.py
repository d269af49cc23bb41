"""Trained probes and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.errors import MertError
from mert_core.probe.bank import WEIGHTED, Block, Probe, Shape
from mert_core.probe.features import Features, Moments, Standardised


@dataclass(frozen=True)
class Trained:
    """Trained probes, each with the weights of its best epoch on validation.

    Attributes:
        probes: what each is.
        validation: each one's best validation score (probes,); −∞ if its outputs were never finite.
        epochs: after how many epochs that was (probes,).
        shape: sizes.
        weights: of each probe, flat (probes, `Shape.parameters`); see `Shape.sections`.
        moments: of the features.
        scale: mean and deviation of the targets (outputs,), (outputs,) in training; None but for regression.
    """

    probes: tuple[Probe, ...]
    validation: NDArray[np.float64]
    epochs: NDArray[np.int64]
    shape: Shape
    weights: Tensor
    moments: Moments
    scale: tuple[Tensor, Tensor] | None = None

    def only(self, positions: Sequence[int]) -> Trained:
        """Return some of the probes, with memory of their own."""
        chosen = list(positions)
        return replace(
            self, probes=tuple(self.probes[i] for i in chosen), validation=self.validation[chosen],
            epochs=self.epochs[chosen], weights=self.weights[chosen],
        )  # fmt: skip

    def predict(self, features: Features, positions: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return outputs of probes (probes, rows, outputs), all by default: logits, or targets in their own units."""
        chosen = list(range(len(self.probes)) if positions is None else positions)
        source = Standardised(features, self.moments, str(self.weights.device), hold=False)
        found = np.empty((len(chosen), len(features), self.shape.outputs), dtype=np.float32)
        for weighted in (False, True):
            places = [i for i, position in enumerate(chosen) if (self.probes[position].input == WEIGHTED) == weighted]
            if places:
                block = self.block([chosen[i] for i in places], weighted)
                for start, states in source.slabs():
                    outputs = rescaled(block.outputs(states), self.scale)
                    found[places, start : start + states.shape[1]] = outputs.cpu().numpy()
        return found

    def mixture(self, position: int) -> NDArray[np.float32]:
        """Return what a probe that reads the weighted sum weighs states 1 to L with, (L,); the sum is 1.

        Raises:
            MertError: the probe reads one state.
        """
        if self.probes[position].input != WEIGHTED:
            raise MertError(f"{self.probes[position]} reads one hidden state; only input {WEIGHTED} has weights")
        return torch.softmax(self.weights[position, -self.shape.mixed :], dim=0).cpu().numpy()

    def block(self, positions: Sequence[int], weighted: bool) -> Block:
        """Return a model of some probes, all of which read the weighted sum or none; with weights of its own."""
        shape = self.shape if weighted else replace(self.shape, mixed=0)
        sizes = [torch.Size(section).numel() for section in shape.sections]
        parts = self.weights[list(positions)][:, : shape.parameters].split(sizes, dim=1)
        shaped = (part.reshape(len(positions), *to) for part, to in zip(parts, shape.sections, strict=True))
        inputs = None if weighted else [self.probes[i].input for i in positions]
        return Block(shape, inputs, [part.contiguous() for part in shaped])


def rescaled(outputs: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return outputs (…, outputs) in the targets' own units."""
    return outputs if scale is None else outputs * scale[1] + scale[0]


def mean_over_tracks(outputs: NDArray[np.float32], tracks: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Average outputs of rows (…, rows, outputs) per track (…, tracks, outputs).

    Raises:
        MertError: a track has no row.
    """
    rows = torch.from_numpy(tracks)
    sums = torch.zeros(*outputs.shape[:-2], count, outputs.shape[-1])
    sums.index_add_(-2, rows, torch.from_numpy(outputs))
    return (sums / rows_per_track(rows, count)[:, None]).numpy()


def rows_per_track(tracks: Tensor, count: int) -> Tensor:
    """Return how many rows each track has (tracks,).

    Raises:
        MertError: a track has none.
    """
    rows = torch.bincount(tracks, minlength=count)
    if len(rows) != count or not rows.all():
        raise MertError(f"{len(tracks)} rows are not of {count} tracks: some have no row, or a row names another")
    return rows
