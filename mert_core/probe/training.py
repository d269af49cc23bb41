"""Training a task's probes together: one pass over the rows per epoch and seed, whatever the number of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.errors import MertError
from mert_core.probe.adam import Adam
from mert_core.probe.bank import WEIGHTED, Block, Probe, Recipe, Shape, blocks_of, dropout_factors, first_weights
from mert_core.probe.features import SLAB_BYTES, Features, Standardised, moments, rows_of
from mert_core.probe.objectives import Objective
from mert_core.probe.trained import Trained, rescaled, rows_per_track
from mert_core.workers import single_threads

if TYPE_CHECKING:
    from tqdm import tqdm

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From outputs of all validation tracks (probes, tracks, outputs) to the task's own metric (probes,)."""
CACHE_FLOATS = 400_000
"""Weights of the probes that one processor core trains at a time. With the gradient and Adam's two moments 6 MB: a
probe of width 768 by itself, or four of width 192."""


@dataclass(frozen=True)
class Examples:
    """One split of one task.

    Attributes:
        features: one row per chunk.
        truth: of each row: class (rows,), or tags or values (rows, outputs).
        tracks: which track each row is of (rows,); None: each its own.
        track_truth: of each track; a trainer needs none.
    """

    features: Features
    truth: NDArray[Any]
    tracks: NDArray[np.int64] | None = None
    track_truth: NDArray[Any] | None = None

    @classmethod
    def of_tracks(cls, features: Features, tracks: NDArray[np.int64], track_truth: NDArray[Any]) -> Examples:
        """Return examples whose rows have the truth of their track."""
        return cls(features, track_truth[tracks], tracks, track_truth)


@dataclass
class _Course:
    """How far some probes of one block are."""

    positions: NDArray[np.int64]
    block: Block
    adam: Adam
    waited: NDArray[np.int64]
    sums: Tensor | None = None


class _Trainer:
    def __init__(
        self, probes: Sequence[Probe], train: Examples, valid: Examples, objective: Objective, recipe: Recipe,
        score: Score, device: str,
    ) -> None:  # fmt: skip
        self.objective, self.recipe, self.score, self.device = objective, recipe, score, device
        found = moments(train.features)
        self.train = Standardised(train.features, found, device)
        self.valid = Standardised(valid.features, found, device)
        truth, self.scale = _targets(objective, train.truth, device)
        self.truth = truth.to(device)
        tracks = np.arange(len(valid.features)) if valid.tracks is None else valid.tracks
        self.tracks = torch.from_numpy(tracks).to(device)
        self.rows_per_track = rows_per_track(self.tracks, int(tracks.max(initial=-1)) + 1)

        mixed = max(1, train.features.states - 1) if any(probe.input == WEIGHTED for probe in probes) else 0
        shape = Shape(train.features.width, recipe.hidden, objective.outputs, mixed)
        drawn = {seed: first_weights(seed, shape) for seed in sorted({probe.seed for probe in probes})}
        self.generators = {seed: generator for seed, (_, generator) in drawn.items()}
        self.best = Trained(
            tuple(probes), np.full(len(probes), -np.inf), np.zeros(len(probes), dtype=np.int64), shape,
            torch.stack([torch.cat([part.flatten() for part in drawn[probe.seed][0]]) for probe in probes]).to(device),
            self.train.moments, self.scale,
        )  # fmt: skip
        blocks = blocks_of(probes, CACHE_FLOATS if device == "cpu" else None, shape)
        self.courses = [self._course(positions) for positions in sorted(blocks, key=len, reverse=True)]
        size = rows_of(SLAB_BYTES, train.features)
        self.rows_at_once = max(1, size // recipe.batch_items) * recipe.batch_items

    def _course(self, positions: list[int]) -> _Course:
        weighted = self.best.probes[positions[0]].input == WEIGHTED
        block = self.best.block(positions, weighted)
        block.dropout = self.recipe.dropout
        rates = np.array([self.best.probes[i].rate for i in positions])
        waited = np.zeros(len(positions), dtype=np.int64)
        return _Course(np.array(positions), block, Adam(block.weights, rates), waited)

    def epoch(self, number: int, pool: ThreadPoolExecutor) -> None:
        """Train all probes that have not stopped for one epoch, and judge them."""
        running = {self.best.probes[course.positions[0]].seed for course in self.courses}
        seeds = [seed for seed in self.generators if seed in running]
        for segment in zip(*(self._segments(seed) for seed in seeds), strict=True):
            prepared = dict(zip(seeds, pool.map(lambda draw: draw(), segment), strict=True))
            list(pool.map(partial(self._steps, prepared=prepared), self.courses))
        for course in self.courses:
            course.sums = None
        for start, states in self.valid.slabs():
            list(pool.map(partial(self._hear, start=start, states=states), self.courses))
        list(pool.map(partial(self._judge, number=number), self.courses))
        self.courses = [course for course in self.courses if len(course.positions)]

    def _segments(self, seed: int) -> Iterator[Callable[[], _Segment]]:
        """Yield what draws and reads one seed's next rows, of which memory holds as many as are drawn at once."""
        generator = self.generators[seed]
        order = torch.randperm(len(self.truth), generator=generator)
        for rows in order.split(self.rows_at_once):

            def draw(rows: Tensor = rows) -> _Segment:
                batches = rows.split(self.recipe.batch_items)
                factors = [dropout_factors(len(batch), self.recipe, generator) for batch in batches]
                return _Segment(
                    self.train.take(rows.numpy()), self.truth[rows.to(self.device)],
                    [None if part is None else part.to(self.device) for part in factors],
                )  # fmt: skip

            yield draw

    def _steps(self, course: _Course, prepared: dict[int, _Segment]) -> None:
        segment = prepared[self.best.probes[course.positions[0]].seed]
        gradient = [torch.empty_like(weight) for weight in course.block.weights]
        step, start = course.adam.steps(course.block.weights, gradient), 0
        for dropout, truth in zip(segment.dropout, segment.truth.split(self.recipe.batch_items), strict=True):
            states = segment.states[:, start : start + len(truth)]
            start += len(truth)
            course.block.gradient(states, dropout, partial(self.objective.gradient, truth=truth), gradient)
            step()

    def _hear(self, course: _Course, start: int, states: Tensor) -> None:
        """Add the outputs of some validation rows to those of their tracks."""
        outputs = course.block.outputs(states)
        if course.sums is None:
            course.sums = outputs.new_zeros(len(outputs), len(self.rows_per_track), outputs.shape[2])
        course.sums.index_add_(1, self.tracks[start : start + states.shape[1]], outputs)

    def _judge(self, course: _Course, number: int) -> None:
        """Score probes; keep the weights of those at their best, slow those on a plateau, drop those that are done."""
        assert course.sums is not None
        heard = rescaled(course.sums / self.rows_per_track[:, None], self.scale).cpu().numpy()
        finite = np.isfinite(heard).all(axis=(1, 2))
        now = np.full(len(heard), -np.inf)
        if finite.any():
            now[finite] = self.score(heard[finite])
        best = self.best
        risen = now > best.validation[course.positions]
        places = course.positions[risen]
        best.validation[places], best.epochs[places] = now[risen], number
        if risen.any():
            flat = course.block.flat(torch.from_numpy(risen).to(self.device))
            best.weights[torch.from_numpy(places), : flat.shape[1]] = flat
        course.waited = np.where(risen, 0, course.waited + 1)
        slower = course.waited > self.recipe.plateau_patience
        course.adam.rates = np.where(slower, course.adam.rates * self.recipe.plateau_factor, course.adam.rates)
        course.waited[slower] = 0
        going = number - best.epochs[course.positions] < self.recipe.patience
        if not going.all():
            course.positions, course.waited = course.positions[going], course.waited[going]
            kept = torch.from_numpy(going).to(self.device)
            course.block.keep(kept)
            course.adam.keep(kept)


@dataclass(frozen=True)
class _Segment:
    """Rows of one seed in the order drawn: states (states, rows, width), truth, each batch's dropout."""

    states: Tensor
    truth: Tensor
    dropout: list[Tensor | None]


def _targets(objective: Objective, truth: NDArray[Any], device: str) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    targets = objective.targets(truth)
    if objective.kind != "regression":
        return targets, None
    deviation, mean = torch.std_mean(targets, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return (targets - mean) / deviation, (mean.to(device), deviation.to(device))


def train_probes(
    probes: Sequence[Probe],
    train: Examples,
    valid: Examples,
    objective: Objective,
    recipe: Recipe,
    score: Score,
    bar: tqdm | None = None,
    device: str = "cpu",
) -> Trained:
    """Train probes, each until its validation score has not risen for ``recipe.patience`` epochs.

    Args:
        probes: inputs × rates × seeds of one task.
        train: what is learned from, row by row.
        valid: what each probe's epoch is chosen on, by ``score`` over the whole split. A track's output is the mean of
            its rows'.
        objective: the loss.
        recipe: how.
        score: the task's own metric of all tracks of ``valid``; may be asked by several threads at once.
        bar: progress bar of ``len(probes) * recipe.max_epochs`` ticks, one per probe and epoch.
        device: where to train. On a processor each core trains a few probes at a time, which its cache holds; what is
            found does not depend on the number of threads.

    Raises:
        MertError: a split without rows, features that do not fit each other, or truth that does not fit the objective.
    """
    _check(probes, train, valid)
    trainer = _Trainer(probes, train, valid, objective, recipe, score, device)
    with single_threads(device) as pool:
        for number in range(1, recipe.max_epochs + 1):
            before = sum(len(course.positions) for course in trainer.courses)
            trainer.epoch(number, pool)
            running = sum(len(course.positions) for course in trainer.courses)
            if bar is not None:
                bar.set_postfix_str(f"{running} of {len(probes)} training", refresh=False)
                bar.update(before + (before - running) * (recipe.max_epochs - number))
            if not running:
                break
    return trainer.best


def _check(probes: Sequence[Probe], train: Examples, valid: Examples) -> None:
    for name, split in (("training", train), ("validation", valid)):
        rows = len(split.features)
        if not rows:
            raise MertError(f"the {name} split has no row, expected at least one. Look at `mert doctor`.")
        if len(split.truth) != rows or (split.tracks is not None and len(split.tracks) != rows):
            raise MertError(f"the {name} split has features of {rows} rows but truth of {len(split.truth)}")
    sizes = [(split.features.states, split.features.width) for split in (train, valid)]
    if sizes[0] != sizes[1]:
        raise MertError(f"training features have {sizes[0]} states and numbers, validation features {sizes[1]}")
    wrong = sorted({probe.input for probe in probes if not WEIGHTED <= probe.input < sizes[0][0]})
    if wrong or not probes:
        raise MertError(f"probes of inputs {wrong or 'of nothing'}, expected {WEIGHTED} to {sizes[0][0] - 1}")
