"""Training of separation heads: stems × rates × seeds.

Heads of one seed go through the same excerpts in the same order, so that each batch is read once for all of them. What
a head becomes follows from its own stem, rate and seed: it does not depend on the others, nor on the threads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from mert_core.parallel import single_threads
from mert_core.probing.separation.data import Excerpts
from mert_core.probing.separation.model import SeparationHead

if TYPE_CHECKING:
    from mert_core.config import ProbeConfig

DROPOUT = 0.4  # between LSTM layers, as Open-Unmix has it
_VALIDATION_BATCH = 16  # excerpts


@dataclass(frozen=True)
class HeadSpec:
    """One head of a task: its stem (an index), learning rate and seed."""

    stem: int
    rate: float
    seed: int


@dataclass
class HeadTraining:
    """One head, its optimizer, and its best weights so far.

    Attributes:
        spec: stem, rate and seed.
        head: the network; after training, in evaluation mode with the best weights.
        optimizer: Adam of this head alone.
        scheduler: lowers the rate on a plateau of the validation loss.
        best_weights: weights of the epoch with the lowest validation loss; the first ones if none was finite.
        best_loss: that loss, the mean squared error of magnitudes; infinite if none was finite.
        best_epoch: number of epochs after which it was reached.
    """

    spec: HeadSpec
    head: SeparationHead
    optimizer: torch.optim.Adam
    scheduler: ReduceLROnPlateau
    best_weights: dict[str, Tensor]
    best_loss: float = np.inf
    best_epoch: int = 0


def train_heads(
    specs: Sequence[HeadSpec], train: Excerpts, valid: Excerpts, settings: ProbeConfig, name: str = ""
) -> list[HeadTraining]:
    """Train heads, each until its validation loss has not fallen for ``settings.patience`` epochs.

    Args:
        specs: stems × rates × seeds.
        train: remixes, all of one length.
        valid: windows of whole tracks.
        settings: sizes, batches and epochs (``settings.separation``), and patience.
        name: label of the progress bar.

    Returns:
        The heads in the order of ``specs``, each with the weights of its best epoch on validation.
    """
    own, max_epochs = settings.separation, min(settings.separation.max_epochs, settings.max_epochs)
    features = train.standardized.features
    runs = []
    for spec in specs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            head = SeparationHead(features.states, features.width, own.hidden, own.layers, train.channels)
        head = head.to(train.device)
        optimizer = torch.optim.Adam(head.parameters(), lr=spec.rate, fused=True)
        scheduler = ReduceLROnPlateau(
            optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience, threshold=0.0
        )
        runs.append(HeadTraining(spec, head, optimizer, scheduler, copy.deepcopy(head.state_dict())))

    title = f"heads {name}".strip()
    with (
        single_threads(train.device) as pool,
        tqdm(total=len(specs) * max_epochs, desc=title, unit="epoch", leave=False) as bar,
    ):
        # Heads of one seed train side by side; on a CPU each worker has some of the stems.
        stems = sorted({spec.stem for spec in specs})
        parts = min(torch.get_num_threads() if train.device == "cpu" else 1, len(stems))
        groups: dict[tuple[int, int], list[HeadTraining]] = {}
        for run in runs:
            groups.setdefault((run.spec.seed, stems.index(run.spec.stem) % parts), []).append(run)
        list(pool.map(lambda group: _train_group(group, train, valid, settings, max_epochs, bar), groups.values()))
    for run in runs:
        run.head.load_state_dict(run.best_weights)
        run.head.eval().requires_grad_(False)
    return runs


def _train_group(
    group: Sequence[HeadTraining], train: Excerpts, valid: Excerpts, settings: ProbeConfig, max_epochs: int, bar: tqdm
) -> None:
    generator = torch.Generator().manual_seed(group[0].spec.seed)
    active = list(group)
    for epoch in range(1, max_epochs + 1):
        _train_epoch(active, train, settings, generator)
        for run, loss in zip(active, _validation_losses(active, valid, settings.separation.every_frames), strict=True):
            run.scheduler.step(loss)
            if loss < run.best_loss:  # false for NaN
                run.best_loss, run.best_epoch = float(loss), epoch
                run.best_weights = copy.deepcopy(run.head.state_dict())
        going = [run for run in active if epoch - run.best_epoch < settings.patience]
        bar.update(len(active) + (len(active) - len(going)) * (max_epochs - epoch))
        active = going
        if not active:
            break


def _train_epoch(
    active: Sequence[HeadTraining], train: Excerpts, settings: ProbeConfig, generator: torch.Generator
) -> None:
    own, frames = settings.separation, int(train.frames[0])
    crop = min(own.crop_frames or frames, frames)
    # All draws come from the seed's generator in one order, whichever heads are still active.
    order = torch.randperm(len(train), generator=generator)
    starts = torch.randint(frames - crop + 1, (len(train),), generator=generator).numpy()
    for run in active:
        run.head.train()
    for batch in order.split(own.batch_mixes):
        which = batch.numpy()
        features = train.features(which, starts[which], crop)
        spectra = train.spectra(which, starts[which], crop, own.every_frames)
        dropout = None
        if own.layers > 1:
            draws = torch.rand((own.layers - 1, crop, len(which), own.hidden), generator=generator)
            dropout = ((draws >= DROPOUT) / (1 - DROPOUT)).to(train.device)
        for run in active:
            mask = run.head(features, dropout, own.every_frames)
            loss = functional.mse_loss(mask * spectra[0], spectra[1 + run.spec.stem])
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()


@torch.no_grad()
def _validation_losses(active: Sequence[HeadTraining], valid: Excerpts, every_frames: int) -> NDArray[np.float64]:
    """Return each head's mean squared error over the split (heads,)."""
    for run in active:
        run.head.eval()
    total, count = np.zeros(len(active)), 0
    for length in np.unique(valid.frames):  # a batch has excerpts of one length
        same = np.flatnonzero(valid.frames == length)
        for start in range(0, len(same), _VALIDATION_BATCH):
            which = same[start : start + _VALIDATION_BATCH]
            begins = np.zeros(len(which), dtype=np.int64)
            features = valid.features(which, begins, int(length))
            spectra = valid.spectra(which, begins, int(length), every_frames)
            for number, run in enumerate(active):
                estimate = run.head(features, every_frames=every_frames).mul_(spectra[0])
                total[number] += float(estimate.sub_(spectra[1 + run.spec.stem]).square_().sum())
            count += spectra[0].numel()
    return total / count
