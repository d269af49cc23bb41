"""Training a task's probes together: one pass over the rows per epoch and seed, whatever the number of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.probe_bank import (
    WEIGHTED,
    Adam,
    ProbeBank,
    ProbeLoss,
    ProbeSettings,
    ProbeSpec,
    Shape,
    blocks_of,
    dropout_factors,
    first_weights,
)

if TYPE_CHECKING:
    from tqdm import tqdm


SLAB_BYTES = 64 << 20
"""How much is taken at once where features do not stay in memory: enough for a disk to read well."""
RESIDENT_BYTES = 4 << 30
"""Features up to this size are held in memory, as float32."""


class Features(Protocol):
    """Rows of hidden states; a row is an item, a chunk or a frame."""

    @property
    def states(self) -> int:
        """How many hidden states a row has."""

    @property
    def width(self) -> int:
        """Numbers per state."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width), which the caller may overwrite."""


class InMemory:
    """Features that are a tensor (states, rows, width)."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def states(self) -> int:
        """How many hidden states a row has."""
        return self.tensor.shape[0]

    @property
    def width(self) -> int:
        """Numbers per state."""
        return self.tensor.shape[2]

    def __len__(self) -> int:
        return self.tensor.shape[1]

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        return self.tensor.index_select(1, torch.from_numpy(rows).to(self.tensor.device)).float()


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation over rows, each float32 (states, 1, width).

    Features are standardised with those of the training split, for every encoder alike: a probe's learning rate then
    means the same for all, and no encoder, pre-trained or floor, loses because its states are large or small. A
    constant feature has the deviation 1 and so stays constant.
    """

    mean: Tensor
    deviation: Tensor

    def standardise(self, states: Tensor) -> Tensor:
        """Return (states, rows, width), standardised in place."""
        return states.sub_(self.mean).div_(self.deviation)


def moments(features: Features) -> Moments:
    """Return the moments of all rows, read once, slab by slab.

    Raises:
        MertError: there is no row, or a number is not finite.
    """
    if not len(features):
        raise MertError("there is no row to train probes on. Look at why every clip was left out (`mert doctor`).")
    seen, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for slab in (features.take(rows) for rows in _slabs(features)):
        rows = slab.shape[1]
        average = slab.mean(dim=1, keepdim=True)
        spread = (slab - average).square_().sum(dim=1, keepdim=True).double()  # ten times as fast as `torch.var_mean`
        step = average.double() - mean
        squares = squares + spread + step.square() * (seen * rows / (seen + rows))
        mean = mean + step * (rows / (seen + rows))
        seen += rows
    if not (mean.isfinite().all() and squares.isfinite().all()):
        raise MertError(
            "some embeddings are not finite: the model has diverged. Look at its training curve and train it again."
        )
    deviation = (squares / seen).sqrt()
    varies = deviation > 1e-6 * (1 + mean.abs())
    return Moments(mean.float(), torch.where(varies, deviation, 1.0).float())


def _slabs(features: Features) -> Iterator[NDArray[np.int64]]:
    size = rows_of(SLAB_BYTES, features)
    yield from (np.arange(start, min(start + size, len(features))) for start in range(0, len(features), size))


def rows_of(size: int, features: Features) -> int:
    """Return how many rows fit into so many bytes, at least one."""
    return max(1, size // (features.states * features.width * 4))


class Standardised:
    """Features as probes see them: standardised, on the device they train on; in memory if they are small enough."""

    def __init__(self, features: Features, found: Moments, device: str = "cpu", hold: bool = True) -> None:
        self.features = features
        self.device = device
        self.moments = Moments(found.mean.to(device), found.deviation.to(device))
        self._held: Tensor | None = None
        if hold and len(features) <= rows_of(_room(device), features):
            shape = features.states, len(features), features.width
            self._held = torch.empty(shape, device=device)
            for rows in _slabs(features):
                self._held[:, rows[0] : rows[-1] + 1] = features.take(rows)
            self.moments.standardise(self._held)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return float32 (states, len(rows), width)."""
        if self._held is not None:
            return self._held.index_select(1, torch.from_numpy(rows).to(self.device))
        return self.moments.standardise(self.features.take(rows).to(self.device))

    def slabs(self) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows in order: the first one's number and (states, rows, width)."""
        for rows in _slabs(self.features):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            yield start, self._held[:, start:stop] if self._held is not None else self.take(rows)


def _room(device: str) -> int:
    return RESIDENT_BYTES if device == "cpu" else torch.cuda.mem_get_info(device)[0] // 2


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

    probes: tuple[ProbeSpec, ...]
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
            self,
            probes=tuple(self.probes[i] for i in chosen),
            validation=self.validation[chosen],
            epochs=self.epochs[chosen],
            weights=self.weights[chosen],
        )

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

    def block(self, positions: Sequence[int], weighted: bool) -> ProbeBank:
        """Return a model of some probes, all of which read the weighted sum or none; with weights of its own."""
        shape = self.shape if weighted else replace(self.shape, mixed=0)
        sizes = [torch.Size(section).numel() for section in shape.sections]
        parts = self.weights[list(positions)][:, : shape.parameters].split(sizes, dim=1)
        shaped = (part.reshape(len(positions), *to) for part, to in zip(parts, shape.sections, strict=True))
        inputs = None if weighted else [self.probes[i].input for i in positions]
        return ProbeBank(shape, inputs, [part.contiguous() for part in shaped])


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
    block: ProbeBank
    adam: Adam
    waited: NDArray[np.int64]
    sums: Tensor | None = None


class _Trainer:
    def __init__(
        self,
        probes: Sequence[ProbeSpec],
        train: Examples,
        valid: Examples,
        objective: ProbeLoss,
        recipe: ProbeSettings,
        score: Score,
        device: str,
    ) -> None:
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
            tuple(probes),
            np.full(len(probes), -np.inf),
            np.zeros(len(probes), dtype=np.int64),
            shape,
            torch.stack([torch.cat([part.flatten() for part in drawn[probe.seed][0]]) for probe in probes]).to(device),
            self.train.moments,
            self.scale,
        )
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
                    self.train.take(rows.numpy()),
                    self.truth[rows.to(self.device)],
                    [None if part is None else part.to(self.device) for part in factors],
                )

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


def _targets(objective: ProbeLoss, truth: NDArray[Any], device: str) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    targets = objective.targets(truth)
    if objective.kind != "regression":
        return targets, None
    deviation, mean = torch.std_mean(targets, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return (targets - mean) / deviation, (mean.to(device), deviation.to(device))


def train_probes(
    probes: Sequence[ProbeSpec],
    train: Examples,
    valid: Examples,
    objective: ProbeLoss,
    recipe: ProbeSettings,
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


def _check(probes: Sequence[ProbeSpec], train: Examples, valid: Examples) -> None:
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


@dataclass(frozen=True)
class BestProbe:
    """The input and rate with the best validation score, averaged over seeds.

    Attributes:
        input: a hidden state or `WEIGHTED`.
        rate: the learning rate.
        validation: its score.
        by_input: every input's score at its best rate, `WEIGHTED` last.
    """

    input: int
    rate: float
    validation: float
    by_input: list[tuple[int, float]]


@dataclass(frozen=True)
class Selection:
    """The choice, with the trained probes that were chosen, one per seed in the seeds' order."""

    choice: BestProbe
    trained: Trained


def input_name(number: int) -> int | str:
    """Return an input as files and tables have it: a hidden state's number, or ``weighted``."""
    return "weighted" if number == WEIGHTED else number


def every_probe(states: int, rates: Sequence[float], seeds: Sequence[int]) -> tuple[ProbeSpec, ...]:
    """Return a task's probes: each state and, where there are several, their weighted sum, at each rate and seed."""
    inputs = [*range(states), *([WEIGHTED] if states > 1 else [])]
    return tuple(ProbeSpec(number, rate, seed) for number in inputs for rate in rates for seed in seeds)


def choose(probes: Sequence[ProbeSpec], validation: NDArray[np.float64]) -> BestProbe:
    """Choose by the validation score averaged over the seeds.

    On a tie the lower state, then the lower rate; `WEIGHTED` comes last.

    Raises:
        MertError: no probe has a score.
    """
    found: dict[tuple[int, float], list[float]] = {}
    for probe, score in zip(probes, validation, strict=True):
        found.setdefault((probe.input, probe.rate), []).append(float(score))
    last = 1 + max(number for number, _ in found)
    averages = {
        pair: float(np.mean(found[pair]))
        for pair in sorted(found, key=lambda pair: (last if pair[0] == WEIGHTED else pair[0], pair[1]))
    }
    number, rate = max(averages, key=averages.__getitem__)
    if not np.isfinite(averages[number, rate]):
        raise MertError("no probe learned: all outputs are infinite or undefined at every rate. Try lower rates.")
    by_input: dict[int, float] = {}
    for (each, _), score in averages.items():
        by_input[each] = max(score, by_input.get(each, -np.inf))
    return BestProbe(number, rate, averages[number, rate], list(by_input.items()))


def select(
    train: Examples,
    valid: Examples,
    objective: ProbeLoss,
    recipe: ProbeSettings,
    score: Score,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    name: str,
    device: str = "cpu",
) -> Selection:
    """Train a probe per input, rate and seed; choose input and rate on validation.

    Args:
        train: what is learned from.
        valid: what is chosen on.
        objective: the loss.
        recipe: how a probe is trained.
        score: the task's own metric of all tracks of ``valid``.
        rates: learning rates.
        seeds: seeds; an input's score at a rate is the mean over them.
        name: for the progress bar.
        device: where to train.

    Raises:
        MertError: see `train_probes` and `choose`.
    """
    from tqdm import tqdm

    probes = every_probe(train.features.states, rates, seeds)
    with tqdm(total=len(probes) * recipe.max_epochs, desc=f"probes {name}", unit="epoch", leave=False) as bar:
        trained = train_probes(probes, train, valid, objective, recipe, score, bar, device)
    choice = choose(probes, trained.validation)
    chosen = [i for i, probe in enumerate(probes) if (probe.input, probe.rate) == (choice.input, choice.rate)]
    return Selection(choice, trained.only(chosen))
