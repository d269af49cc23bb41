"""Training separation networks together: stems × rates × seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.probing.probe_bank import ProbeAdam
from mert_core.probing.separation.data import Excerpts
from mert_core.probing.separation.model import LAST_WEIGHTS, HeadShape, SeparatorWeights

_EXCERPTS_AT_ONCE = 16  # of validation


@dataclass(frozen=True)
class Network:
    """What one network is: the stem it is for, its learning rate and its seed."""

    stem: int
    rate: float
    seed: int


@dataclass(frozen=True)
class SeparationSettings:
    """How separation is learned.

    Attributes:
        hidden: of Open-Unmix's layers.
        layers: of its LSTM.
        dropout: between those.
        batch_mixes: remixes per step.
        crop_frames: how much of each is used per step, anywhere in it; 0: all.
        every_frames: masks and their loss are of each n-th frame only; the others share most of their samples.
        max_epochs: at most so many passes.
        patience: a network stops after so many epochs without a lower validation loss.
        plateau_patience: after more than so many such epochs its rate falls, and the count begins anew.
        plateau_factor: what the rate is then multiplied by.
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
class TrainedNetworks:
    """TrainedProbes networks, each with the weights of its best epoch on validation.

    Attributes:
        networks: what each is.
        heads: their weights.
        losses: each one's lowest validation loss, mean squared error of magnitudes (networks,).
        epochs: after how many epochs that was (networks,).
    """

    networks: tuple[Network, ...]
    heads: SeparatorWeights
    losses: NDArray[np.float64]
    epochs: NDArray[np.int64]


def train_networks(
    networks: Sequence[Network],
    train: Excerpts,
    valid: Excerpts,
    shape: HeadShape,
    recipe: SeparationSettings,
    bar: tqdm | None = None,
) -> TrainedNetworks:
    """Train networks, each until its validation loss has not fallen for ``recipe.patience`` epochs.

    Args:
        networks: stems × rates × seeds.
        train: remixes, all of one length.
        valid: windows of whole tracks.
        shape: of a network.
        recipe: how.
        bar: progress bar of ``len(networks) * recipe.max_epochs`` ticks, one per network and epoch.
    """
    with single_threads(train.device) as pool:
        groups = list(_groups(networks, torch.get_num_threads() if train.device == "cpu" else 1))

        def trained(group: list[int]) -> _Group:
            found = _Group([networks[i] for i in group], train, valid, shape, recipe)
            found.train(bar)
            return found

        done = list(pool.map(trained, groups))
    places = np.argsort(np.concatenate(groups))
    return TrainedNetworks(
        tuple(networks),
        SeparatorWeights.joined([group.best for group in done]).only(places.tolist()),
        np.concatenate([group.losses for group in done])[places],
        np.concatenate([group.epochs for group in done])[places],
    )


def _groups(networks: Sequence[Network], workers: int) -> Iterator[list[int]]:
    """Yield positions of networks that train side by side, seed by seed: some stems' for each worker."""
    stems = sorted({network.stem for network in networks})
    parts = min(workers, len(stems))
    for part in range(parts):
        mine = set(stems[part::parts])
        chosen = [i for i, network in enumerate(networks) if network.stem in mine]
        yield sorted(chosen, key=lambda i: networks[i].seed)


class _Group:
    """Networks that are trained as one batched model. Those of one seed see the same excerpts in the same order."""

    def __init__(
        self,
        networks: Sequence[Network],
        train: Excerpts,
        valid: Excerpts,
        shape: HeadShape,
        recipe: SeparationSettings,
    ) -> None:
        self.networks, self.train_set, self.valid_set, self.recipe = list(networks), train, valid, recipe
        counts = Counter(network.seed for network in networks)
        self.generators = {seed: torch.Generator().manual_seed(seed) for seed in counts}
        self.heads = SeparatorWeights.joined(
            [
                SeparatorWeights.drawn(shape, counts[seed], draws, train.device)
                for seed, draws in self.generators.items()
            ]
        )
        self.best = self.heads.only(range(len(networks)))
        self.losses, self.epochs = np.full(len(networks), np.inf), np.zeros(len(networks), dtype=np.int64)
        self.active = np.arange(len(networks))
        self.waited = np.zeros(len(networks), dtype=np.int64)
        rates = np.array([network.rate for network in networks])
        self.adam = ProbeAdam([*self.heads.weights.values()], rates)

    def train(self, bar: tqdm | None) -> None:
        """Train until all networks have stopped."""
        for epoch in range(1, self.recipe.max_epochs + 1):
            before = len(self.active)
            self._epoch()
            self._judge(self._validation_losses(), epoch)
            if bar is not None:
                bar.update(before + (before - len(self.active)) * (self.recipe.max_epochs - epoch))
            if not len(self.active):
                break

    def _epoch(self) -> None:
        frames = int(self.train_set.frames[0])
        crop = min(self.recipe.crop_frames or frames, frames)
        going = Counter(self.networks[network].seed for network in self.active)
        orders, starts = [], []
        for draws in (self.generators[seed] for seed in going):
            orders.append(torch.randperm(len(self.train_set), generator=draws).split(self.recipe.batch_mixes))
            starts.append(torch.randint(frames - crop + 1, (len(self.train_set),), generator=draws).numpy())
        for batch in zip(*orders, strict=True):
            features, spectra, dropout = [], [], []
            for seed, which, start in zip(going, (part.numpy() for part in batch), starts, strict=True):
                features.append(self.train_set.features(which, start[which], crop))
                spectra.append(self.train_set.spectra(which, start[which], crop, self.recipe.every_frames))
                dropout.append(self._dropout(len(which), crop, self.generators[seed]))
            self._step(features, spectra, list(going.values()), dropout)

    def _dropout(self, excerpts: int, frames: int, draws: torch.Generator) -> Tensor:
        """Draw one seed's factors between LSTM layers (layers - 1, batch, frames, hidden)."""
        shape = self.recipe.layers - 1, excerpts, frames, self.recipe.hidden
        kept = torch.rand(shape, generator=draws) >= self.recipe.dropout
        return (kept / (1 - self.recipe.dropout)).to(self.train_set.device)

    def _step(self, features: list[Tensor], spectra: list[Tensor], readers: list[int], dropout: list[Tensor]) -> None:
        """Take one step; each seed has features, spectra, networks that read them, and dropout."""
        gradients = {name: torch.zeros_like(weight) for name, weight in self.heads.weights.items()}
        for name, weight in self.heads.weights.items():
            weight.requires_grad_(name not in LAST_WEIGHTS)
            weight.grad = gradients[name]
        seed_of = np.repeat(np.arange(len(readers)), readers)
        between = torch.stack(dropout, dim=1)[:, torch.from_numpy(seed_of).to(self.train_set.device)]
        hidden = self._heard(self.heads.hidden(features, readers, list(between)), features[0].shape[1])
        # the last layers one by one: their gradient with respect to what they read is all that the rest needs
        asked = torch.empty_like(hidden)
        for place, network in enumerate(self.active):
            mixture, truth = (spectra[seed_of[place]][row] for row in (0, 1 + self.networks[network].stem))
            read, last = hidden[place].detach().requires_grad_(), self.heads.last(place)
            parts = [last.weight, last.scale, last.shift]
            for part in parts:
                part.requires_grad_()
            loss = functional.mse_loss(last.mask(read, training=True) * mixture, truth)
            asked[place], *found = torch.autograd.grad(loss, [read, *parts])
            for name, gradient in zip(LAST_WEIGHTS, found, strict=True):
                gradients[name][place] = gradient
        hidden.backward(asked)
        with torch.no_grad():
            weights = [weight.detach() for weight in self.heads.weights.values()]
            self.adam.optimizer(weights, [*gradients.values()], steps=1).step()

    def _heard(self, hidden: Tensor, excerpts: int) -> Tensor:
        """Return the rows (networks, rows, hidden) of the frames that have a loss."""
        by_excerpt = hidden.view(len(hidden), excerpts, -1, hidden.shape[-1])
        return by_excerpt[:, :, :: self.recipe.every_frames].flatten(1, 2)

    @torch.no_grad()
    def _validation_losses(self) -> NDArray[np.float64]:
        """Return each active network's mean squared error over the split."""
        total, count = np.zeros(len(self.active)), 0
        for which, frames in alike(self.valid_set.frames, _EXCERPTS_AT_ONCE):
            chosen = which, np.zeros(len(which), dtype=np.int64), frames
            spectra = self.valid_set.spectra(*chosen, self.recipe.every_frames)
            hidden = self.heads.hidden([self.valid_set.features(*chosen)], [len(self.active)])
            hidden = self._heard(hidden, len(which))
            for place, network in enumerate(self.active):
                heard = self.heads.last(place).mask(hidden[place]).mul_(spectra[0])
                total[place] += float(heard.sub_(spectra[1 + self.networks[network].stem]).square_().sum())
            count += spectra[0].numel()
        return total / count

    def _judge(self, losses: NDArray[np.float64], epoch: int) -> None:
        """Keep the weights of networks at their best, slow those on a plateau, drop those that are done."""
        fallen = losses < self.losses[self.active]
        places = np.flatnonzero(fallen).tolist()
        self.losses[self.active[fallen]], self.epochs[self.active[fallen]] = losses[fallen], epoch
        self.best.put(self.active[fallen].tolist(), self.heads.only(places))
        self.waited = np.where(fallen, 0, self.waited + 1)
        slower = self.waited > self.recipe.plateau_patience
        self.adam.rates = np.where(slower, self.adam.rates * self.recipe.plateau_factor, self.adam.rates)
        self.waited[slower] = 0
        going = epoch - self.epochs[self.active] < self.recipe.patience
        if not going.any():
            self.active = self.active[going]
        elif not going.all():
            self.heads = self.heads.only(np.flatnonzero(going).tolist())
            self.active, self.waited = self.active[going], self.waited[going]
            self.adam.keep(torch.from_numpy(going).to(self.train_set.device))


def alike(frames: NDArray[np.int64], at_once: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield excerpts of one length, so many at once, and their length."""
    for length in np.unique(frames):
        same = np.flatnonzero(frames == length)
        yield from ((same[start : start + at_once], int(length)) for start in range(0, len(same), at_once))
