"""Training of separation heads: stems × rates × seeds.

Heads of one seed go through the same excerpts in the same order, so that each batch is read once for all of them. What
a head becomes follows from its own stem, rate and seed: it does not depend on the others, nor on the threads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.separation.data import Excerpts
from mert_core.probing.separation.model import HeadShape, SeparationHead

_VALIDATION_BATCH = 16  # excerpts


@dataclass(frozen=True)
class HeadSpec:
    """One head of a task: its stem (an index), learning rate and seed."""

    stem: int
    rate: float
    seed: int


@dataclass(frozen=True)
class SeparationSettings:
    """How heads are trained.

    Attributes:
        hidden: width of Open-Unmix's layers.
        layers: number of its LSTM layers.
        dropout: probability between LSTM layers.
        batch_mixes: remixes per step.
        crop_frames: frames of each remix that one step reads, anywhere in it; 0: all.
        every_frames: step between the frames that have a mask and a loss; the others share most of their samples.
        max_epochs: upper limit of passes over the remixes.
        patience: epochs without a lower validation loss after which a head stops.
        plateau_patience: such epochs after which the rate falls, and the count begins anew.
        plateau_factor: factor by which the rate then falls.
    """

    hidden: int = 512
    layers: int = 3
    dropout: float = 0.4
    batch_mixes: int = 16
    crop_frames: int = 0
    every_frames: int = 1
    max_epochs: int = 100
    patience: int = 10
    plateau_patience: int = 4
    plateau_factor: float = 0.5

    def __post_init__(self) -> None:
        if self.hidden < 2 or self.hidden % 2 or self.layers < 1:
            raise MertError(
                f"separation.hidden is {self.hidden} and separation.layers {self.layers}; expected an even number of "
                "at least 2 (half for each direction) and at least 1"
            )


@dataclass(frozen=True)
class TrainedHeads:
    """Trained heads, each with the weights of its best epoch on validation.

    Attributes:
        specs: stem, rate and seed of each head.
        heads: in the order of ``specs``, in evaluation mode.
        losses: lowest validation loss of each head, the mean squared error of magnitudes (heads,); infinite for a head
            that diverged in its first epoch.
        epochs: number of epochs after which that was reached (heads,).
    """

    specs: tuple[HeadSpec, ...]
    heads: tuple[SeparationHead, ...]
    losses: NDArray[np.float64]
    epochs: NDArray[np.int64]


def train_heads(
    specs: Sequence[HeadSpec],
    train: Excerpts,
    valid: Excerpts,
    shape: HeadShape,
    settings: SeparationSettings,
    bar: tqdm | None = None,
) -> TrainedHeads:
    """Train heads, each until its validation loss has not fallen for ``settings.patience`` epochs.

    Args:
        specs: stems × rates × seeds.
        train: remixes, all of one length.
        valid: windows of whole tracks.
        shape: sizes of a head.
        settings: batches, epochs and patience.
        bar: progress bar of ``len(specs) * settings.max_epochs`` ticks, one per head and epoch.
    """
    runs = [_HeadTraining.begin(spec, shape, settings, train.device) for spec in specs]
    with single_threads(train.device) as pool:
        groups = _groups(runs, torch.get_num_threads() if train.device == "cpu" else 1)
        list(pool.map(lambda group: _train_group(group, train, valid, settings, bar), groups))
    return TrainedHeads(
        tuple(specs),
        tuple(run.best_head() for run in runs),
        np.array([run.best_loss for run in runs]),
        np.array([run.best_epoch for run in runs], dtype=np.int64),
    )


@dataclass
class _HeadTraining:
    """One head, its optimizer, and its best weights so far."""

    spec: HeadSpec
    head: SeparationHead
    optimizer: torch.optim.Adam
    scheduler: ReduceLROnPlateau
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = np.inf
    best_epoch: int = 0

    @classmethod
    def begin(cls, spec: HeadSpec, shape: HeadShape, settings: SeparationSettings, device: str) -> _HeadTraining:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            head = SeparationHead(shape).to(device)
        optimizer = torch.optim.Adam(head.parameters(), lr=spec.rate, fused=True)
        scheduler = ReduceLROnPlateau(
            optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience, threshold=0.0
        )
        return cls(spec, head, optimizer, scheduler, copy.deepcopy(head.state_dict()))

    def step(self, features: Tensor, dropout: Tensor | None, spectra: Tensor, every_frames: int) -> None:
        mask = self.head(features, dropout, every_frames)
        loss = functional.mse_loss(mask * spectra[0], spectra[1 + self.spec.stem])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self.scheduler.step(validation_loss)
        if validation_loss < self.best_loss:  # false for NaN
            self.best_loss, self.best_epoch = validation_loss, epoch
            self.best_weights = copy.deepcopy(self.head.state_dict())

    def best_head(self) -> SeparationHead:
        self.head.load_state_dict(self.best_weights)
        return self.head.eval().requires_grad_(False)


def _groups(runs: Sequence[_HeadTraining], workers: int) -> list[list[_HeadTraining]]:
    """Return heads that train side by side: those of one seed, and on a CPU some stems' for each worker."""
    stems = sorted({run.spec.stem for run in runs})
    parts = min(workers, len(stems))
    groups: dict[tuple[int, int], list[_HeadTraining]] = {}
    for run in runs:
        groups.setdefault((run.spec.seed, stems.index(run.spec.stem) % parts), []).append(run)
    return list(groups.values())


def _train_group(
    group: Sequence[_HeadTraining], train: Excerpts, valid: Excerpts, settings: SeparationSettings, bar: tqdm | None
) -> None:
    generator = torch.Generator().manual_seed(group[0].spec.seed)
    active = list(group)
    for epoch in range(1, settings.max_epochs + 1):
        _train_epoch(active, train, settings, generator)
        for run, loss in zip(active, _validation_losses(active, valid, settings.every_frames), strict=True):
            run.end_epoch(epoch, loss)
        going = [run for run in active if epoch - run.best_epoch < settings.patience]
        if bar is not None:
            bar.update(len(active) + (len(active) - len(going)) * (settings.max_epochs - epoch))
        active = going
        if not active:
            break


def _train_epoch(
    active: Sequence[_HeadTraining], train: Excerpts, settings: SeparationSettings, generator: torch.Generator
) -> None:
    frames = int(train.frames[0])
    crop = min(settings.crop_frames or frames, frames)
    # All draws come from the seed's generator in one order, whichever heads are still active.
    order = torch.randperm(len(train), generator=generator)
    starts = torch.randint(frames - crop + 1, (len(train),), generator=generator).numpy()
    for run in active:
        run.head.train()
    for batch in order.split(settings.batch_mixes):
        which = batch.numpy()
        features = train.features(which, starts[which], crop)
        spectra = train.spectra(which, starts[which], crop, settings.every_frames)
        dropout = None
        if settings.layers > 1:
            draws = torch.rand((settings.layers - 1, crop, len(which), settings.hidden), generator=generator)
            dropout = ((draws >= settings.dropout) / (1 - settings.dropout)).to(train.device)
        for run in active:
            run.step(features, dropout, spectra, settings.every_frames)


@torch.no_grad()
def _validation_losses(active: Sequence[_HeadTraining], valid: Excerpts, every_frames: int) -> NDArray[np.float64]:
    """Return each head's mean squared error over the split (heads,)."""
    for run in active:
        run.head.eval()
    total, count = np.zeros(len(active)), 0
    for which, frames in _batches_by_length(valid.frames, _VALIDATION_BATCH):
        starts = np.zeros(len(which), dtype=np.int64)
        features = valid.features(which, starts, frames)
        spectra = valid.spectra(which, starts, frames, every_frames)
        for number, run in enumerate(active):
            estimate = run.head(features, every_frames=every_frames).mul_(spectra[0])
            total[number] += float(estimate.sub_(spectra[1 + run.spec.stem]).square_().sum())
        count += spectra[0].numel()
    return total / count


def _batches_by_length(frames: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield indices of up to ``size`` excerpts of one length, and that length in frames."""
    for length in np.unique(frames):
        same = np.flatnonzero(frames == length)
        yield from ((same[start : start + size], int(length)) for start in range(0, len(same), size))
