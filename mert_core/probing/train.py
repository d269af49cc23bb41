"""Training all probes of a task together: one pass over the rows per epoch and seed, whatever the number of probes.

Probes are put into blocks of one seed (`mert_core.probing.probe_bank.blocks_of`). In every epoch the trainer

1. draws each seed's order of the rows and its dropout, and reads the rows (`_Trainer._segment`),
2. lets every block take its steps over them, batch by batch (`_Trainer._train_block`),
3. scores the validation split with the task's own metric, keeps the weights of probes at their best, lowers rates on a
   plateau and drops the probes that are done (`_Trainer._score_block`).

On a processor each core trains one block at a time, which its cache holds; on a GPU a seed is one block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.features import SLAB_BYTES, Features, Moments, Standardized, moments, rows_in, rows_per_track
from mert_core.probing.probe_bank import (
    WEIGHTED,
    ProbeAdam,
    ProbeBank,
    ProbeLoss,
    ProbeSettings,
    ProbeSpec,
    Shape,
    blocks_of,
    dropout_factors,
    first_weights,
)

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From outputs of all validation tracks (probes, tracks, outputs) to the task's own metric (probes,)."""
CACHE_FLOATS = 400_000
"""Weights of the probes that one processor core trains at a time. With the gradient and Adam's two moments 6 MB: a
probe of width 768 by itself, or four of width 192."""


@dataclass(frozen=True)
class Examples:
    """One split of one task.

    Attributes:
        features: one row per window or frame.
        truth: of each row: class (rows,), or tags or values (rows, outputs).
        tracks: index of the track that each row is of (rows,); None: each row is a track.
        track_truth: of each track; training needs none.
    """

    features: Features
    truth: NDArray[Any]
    tracks: NDArray[np.int64] | None = None
    track_truth: NDArray[Any] | None = None

    @classmethod
    def of_tracks(cls, features: Features, tracks: NDArray[np.int64], track_truth: NDArray[Any]) -> Examples:
        """Return examples whose rows have the truth of their track."""
        return cls(features, track_truth[tracks], tracks, track_truth)


@dataclass(frozen=True)
class TrainedProbes:
    """Probes, each with the weights of its best epoch on validation.

    Attributes:
        probes: what each is.
        validation: each one's best validation score (probes,); −∞ if its outputs were never finite.
        epochs: number of the epoch that reached it (probes,).
        shape: sizes of a probe.
        weights: of each probe, flat (probes, `Shape.parameters`); see `Shape.sections`.
        moments: of the training features.
        scale: mean and deviation of the training targets, each (outputs,); None but for regression.
    """

    probes: tuple[ProbeSpec, ...]
    validation: NDArray[np.float64]
    epochs: NDArray[np.int64]
    shape: Shape
    weights: Tensor
    moments: Moments
    scale: tuple[Tensor, Tensor] | None = None

    def only(self, indices: list[int]) -> TrainedProbes:
        """Return some of the probes, with memory of their own."""
        return replace(
            self,
            probes=tuple(self.probes[i] for i in indices),
            validation=self.validation[indices],
            epochs=self.epochs[indices],
            weights=self.weights[indices],
        )

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Return outputs of all probes (probes, rows, outputs): logits, or targets in their own units."""
        source = Standardized(features, self.moments, str(self.weights.device), hold=False)
        outputs = np.empty((len(self.probes), len(features), self.shape.outputs), dtype=np.float32)
        for weighted in (False, True):
            indices = [i for i, probe in enumerate(self.probes) if (probe.input == WEIGHTED) == weighted]
            if indices:
                bank = self.bank(indices, weighted)
                for start, states in source.slabs():
                    predicted = self.rescaled(bank.outputs(states))
                    outputs[indices, start : start + states.shape[1]] = predicted.cpu().numpy()
        return outputs

    def rescaled(self, outputs: Tensor) -> Tensor:
        """Return outputs (…, outputs) in the targets' own units."""
        return outputs if self.scale is None else outputs * self.scale[1] + self.scale[0]

    def bank(self, indices: list[int], weighted: bool) -> ProbeBank:
        """Return some probes, all of which read the weighted sum or none, as a model with weights of its own."""
        shape = self.shape if weighted else replace(self.shape, mixed=0)
        sizes = [torch.Size(section).numel() for section in shape.sections]
        flat = self.weights[indices][:, : shape.parameters].split(sizes, dim=1)
        weights = [part.reshape(len(indices), *to).contiguous() for part, to in zip(flat, shape.sections, strict=True)]
        return ProbeBank(shape, None if weighted else [self.probes[i].input for i in indices], weights)


@dataclass
class _TrainingBlock:
    """The probes of one block that are still training.

    Attributes:
        seed: seed of all of them.
        indices: which of all the probes they are (probes,).
        bank: their weights.
        adam: their optimizer.
        waited: epochs without a better score since the rate fell last (probes,).
        sums: outputs of the validation rows, added up per track (probes, tracks, outputs).
    """

    seed: int
    indices: NDArray[np.int64]
    bank: ProbeBank
    adam: ProbeAdam
    waited: NDArray[np.int64]
    sums: Tensor | None = None


@dataclass(frozen=True)
class _Segment:
    """Rows of one seed in the order drawn: states (states, rows, width), truth, each batch's dropout factors."""

    states: Tensor
    truth: Tensor
    dropout: list[Tensor | None]


class _Trainer:
    def __init__(
        self,
        probes: Sequence[ProbeSpec],
        train: Examples,
        valid: Examples,
        loss: ProbeLoss,
        settings: ProbeSettings,
        score: Score,
        device: str,
    ) -> None:
        self.loss, self.settings, self.score, self.device = loss, settings, score, device
        scale = moments(train.features)
        self.train = Standardized(train.features, scale, device)
        self.valid = Standardized(valid.features, scale, device)
        targets, target_scale = loss.targets(train.truth), None
        if loss.kind == "regression":
            deviation, mean = torch.std_mean(targets, dim=0, correction=0)
            deviation = torch.where(deviation > 0, deviation, 1.0)
            targets = (targets - mean) / deviation
            target_scale = mean.to(device), deviation.to(device)
        self.truth = targets.to(device)
        tracks = np.arange(len(valid.features)) if valid.tracks is None else valid.tracks
        self.tracks = torch.from_numpy(tracks).to(device)
        self.rows_per_track = rows_per_track(self.tracks, int(tracks.max(initial=-1)) + 1)
        self.segment_rows = max(1, rows_in(SLAB_BYTES, train.features) // settings.batch_items) * settings.batch_items

        # One generator per seed draws the first weights and goes on with the order of the rows and the dropout.
        mixed = max(1, train.features.states - 1) if any(probe.input == WEIGHTED for probe in probes) else 0
        shape = Shape(train.features.width, settings.hidden, loss.outputs, mixed)
        drawn = {seed: first_weights(seed, shape) for seed in sorted({probe.seed for probe in probes})}
        self.generators = {seed: generator for seed, (_, generator) in drawn.items()}
        self.best = TrainedProbes(
            tuple(probes),
            np.full(len(probes), -np.inf),
            np.zeros(len(probes), dtype=np.int64),
            shape,
            torch.stack([torch.cat([part.flatten() for part in drawn[probe.seed][0]]) for probe in probes]).to(device),
            self.train.moments,
            target_scale,
        )

        self.blocks: list[_TrainingBlock] = []
        blocks = blocks_of(probes, CACHE_FLOATS if device == "cpu" else None, shape)
        for indices in sorted(blocks, key=len, reverse=True):
            bank = self.best.bank(indices, weighted=probes[indices[0]].input == WEIGHTED)
            bank.dropout = settings.dropout
            adam = ProbeAdam(bank.weights, np.array([probes[i].rate for i in indices]))
            waited = np.zeros(len(indices), dtype=np.int64)
            self.blocks.append(_TrainingBlock(probes[indices[0]].seed, np.array(indices), bank, adam, waited))

    def epoch(self, number: int, pool: ThreadPoolExecutor) -> None:
        """Train all probes that have not stopped for one epoch, and score them."""
        orders = {
            seed: torch.randperm(len(self.truth), generator=self.generators[seed]).split(self.segment_rows)
            for seed in {block.seed for block in self.blocks}
        }
        for parts in zip(*orders.values(), strict=True):  # memory holds one segment of each seed at a time
            segments = dict(zip(orders, pool.map(self._segment, orders, parts), strict=True))
            list(pool.map(partial(self._train_block, segments=segments), self.blocks))
        for block in self.blocks:
            block.sums = None
        for start, states in self.valid.slabs():
            list(pool.map(partial(self._add_outputs, start=start, states=states), self.blocks))
        list(pool.map(partial(self._score_block, number=number), self.blocks))
        self.blocks = [block for block in self.blocks if len(block.indices)]

    def _segment(self, seed: int, rows: Tensor) -> _Segment:
        """Draw the dropout of a seed's next rows, and read them."""
        batches = rows.split(self.settings.batch_items)
        factors = [dropout_factors(len(batch), self.settings, self.generators[seed]) for batch in batches]
        return _Segment(
            self.train.take(rows.numpy()),
            self.truth[rows.to(self.device)],
            [None if part is None else part.to(self.device) for part in factors],
        )

    def _train_block(self, block: _TrainingBlock, segments: dict[int, _Segment]) -> None:
        """Take one step per batch of the segment of the block's seed."""
        segment = segments[block.seed]
        gradient = [torch.empty_like(weight) for weight in block.bank.weights]
        optimizer = block.adam.optimizer(block.bank.weights, gradient, steps=len(segment.dropout))
        start = 0
        for dropout, truth in zip(segment.dropout, segment.truth.split(self.settings.batch_items), strict=True):
            states = segment.states[:, start : start + len(truth)]
            start += len(truth)
            block.bank.gradient(states, dropout, partial(self.loss.gradient, truth=truth), gradient)
            optimizer.step()

    def _add_outputs(self, block: _TrainingBlock, start: int, states: Tensor) -> None:
        """Add the outputs of some validation rows to those of their tracks."""
        outputs = block.bank.outputs(states)
        if block.sums is None:
            block.sums = outputs.new_zeros(len(outputs), len(self.rows_per_track), outputs.shape[2])
        block.sums.index_add_(1, self.tracks[start : start + states.shape[1]], outputs)

    def _score_block(self, block: _TrainingBlock, number: int) -> None:
        """Score probes; keep the weights of those at their best, slow those on a plateau, drop those that are done."""
        assert block.sums is not None
        outputs = self.best.rescaled(block.sums / self.rows_per_track[:, None]).cpu().numpy()
        finite = np.isfinite(outputs).all(axis=(1, 2))
        scores = np.full(len(outputs), -np.inf)
        if finite.any():
            scores[finite] = self.score(outputs[finite])

        best = self.best
        better = scores > best.validation[block.indices]
        indices = block.indices[better]
        best.validation[indices], best.epochs[indices] = scores[better], number
        if better.any():
            chosen = torch.from_numpy(better).to(self.device)
            flat = torch.cat([weight[chosen].flatten(1) for weight in block.bank.weights], dim=1)
            best.weights[torch.from_numpy(indices), : flat.shape[1]] = flat

        block.waited = np.where(better, 0, block.waited + 1)
        slower = block.waited > self.settings.plateau_patience
        block.adam.rates = np.where(slower, block.adam.rates * self.settings.plateau_factor, block.adam.rates)
        block.waited[slower] = 0

        going = number - best.epochs[block.indices] < self.settings.patience
        if not going.all():
            block.indices, block.waited = block.indices[going], block.waited[going]
            kept = torch.from_numpy(going).to(self.device)
            block.bank.keep(kept)
            block.adam.keep(kept)


def train_probes(
    probes: Sequence[ProbeSpec],
    train: Examples,
    valid: Examples,
    loss: ProbeLoss,
    settings: ProbeSettings,
    score: Score,
    device: str = "cpu",
    name: str = "",
) -> TrainedProbes:
    """Train probes, each until its validation score has not risen for ``settings.patience`` epochs.

    Args:
        probes: inputs × rates × seeds of one task.
        train: rows to learn from.
        valid: split on which each probe's epoch is chosen, by ``score`` over all of it. A track's output is the mean of
            its rows'.
        loss: loss of the task's kind of answer.
        settings: sizes, steps and patience, the same for all probes.
        score: the task's own metric of all tracks of ``valid``; several threads may call it at once.
        device: where to train. On a processor each core trains a few probes at a time, which its cache holds; the
            result does not depend on the number of threads.
        name: the task's, for the progress bar; without it none is shown.

    Raises:
        MertError: a split without rows, features that do not fit each other, or truth that does not fit the loss.
    """
    for split_name, split in (("training", train), ("validation", valid)):
        rows = len(split.features)
        if not rows:
            raise MertError(f"the {split_name} split has no row, expected at least one. Look at `mert doctor`.")
        if len(split.truth) != rows or (split.tracks is not None and len(split.tracks) != rows):
            raise MertError(f"the {split_name} split has features of {rows} rows but truth of {len(split.truth)}")
    sizes = [(split.features.states, split.features.width) for split in (train, valid)]
    if sizes[0] != sizes[1]:
        raise MertError(f"training features have {sizes[0]} states and numbers, validation features {sizes[1]}")
    wrong = sorted({probe.input for probe in probes if not WEIGHTED <= probe.input < sizes[0][0]})
    if wrong or not probes:
        raise MertError(f"probes of inputs {wrong or 'of nothing'}, expected {WEIGHTED} to {sizes[0][0] - 1}")

    trainer = _Trainer(probes, train, valid, loss, settings, score, device)
    epochs = len(probes) * settings.max_epochs  # one tick per probe and epoch
    with (
        single_threads(device) as pool,
        tqdm(total=epochs, desc=f"probes {name}", unit="epoch", leave=False, disable=not name) as bar,
    ):
        for number in range(1, settings.max_epochs + 1):
            before = sum(len(block.indices) for block in trainer.blocks)
            trainer.epoch(number, pool)
            running = sum(len(block.indices) for block in trainer.blocks)
            bar.set_postfix_str(f"{running} of {len(probes)} training", refresh=False)
            bar.update(before + (before - running) * (settings.max_epochs - number))
            if not running:
                break
    return trainer.best
