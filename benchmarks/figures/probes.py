"""A task's 252 probes as one bank against one by one; and kept embeddings against embedding again in every epoch."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.comparators import probes as comparator
from benchmarks.row import Row, Tell, time_of
from benchmarks.student import batch, student
from benchmarks.timing import Pairs, paired
from mert_core.model.mert import MertModel
from mert_core.probing.features import InMemory, moments
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import ProbeLoss, ProbeSettings, ProbeSpec
from mert_core.probing.selection import every_probe
from mert_core.probing.train import Examples, TrainedProbes, train_probes

STATES, WIDTH, CLASSES, ITEMS, HELD_OUT = 13, 768, 10, 600, 150
RATES, SEEDS = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2), (0, 1, 2)
EPOCHS, ONE_IN = 11, 19  # a patience of 10 lets no probe stop before
BANK_TARGET, KEPT_TARGET = 20.0, 10.0
CLIPS, CLIP_SECONDS, MEASURED_EPOCHS, PROBE_EPOCHS = 2, 5.0, 2, 30


class Task:
    """Synthetic states of a model, of which each says something about the class."""

    def __init__(self, states: int = STATES, width: int = WIDTH, items: int = ITEMS, held_out: int = HELD_OUT) -> None:
        generator = torch.Generator().manual_seed(0)
        truth = torch.randint(0, CLASSES, (items + held_out,), generator=generator)
        features = torch.randn(states, items + held_out, width, generator=generator)
        features += 0.5 * torch.randn(states, CLASSES, width, generator=generator)[:, truth]
        self.known, self.held_out = (
            Examples(InMemory(features[:, rows]), truth[rows].numpy())
            for rows in (slice(0, items), slice(items, items + held_out))
        )
        found = moments(self.known.features)
        self.plain_known = comparator.Split(found.standardize(features[:, :items].clone()), truth[:items])
        self.plain_held_out = comparator.Split(found.standardize(features[:, items:].clone()), truth[items:])

    def bank(self, probes: tuple[ProbeSpec, ...], recipe: ProbeSettings) -> TrainedProbes:
        """Train probes as one bank."""
        objective, score = ProbeLoss("single", CLASSES), partial(METRICS["accuracy"], self.held_out.truth)
        return train_probes(probes, self.known, self.held_out, objective, recipe, score)

    def loop(
        self, probes: tuple[ProbeSpec, ...], recipe: ProbeSettings, same_draws: bool = False
    ) -> list[tuple[nn.Module, float]]:
        """Train probes one by one."""
        return [
            comparator.train(probe, self.plain_known, self.plain_held_out, CLASSES, recipe, same_draws)
            for probe in probes
        ]


def check(task: Task, probes: tuple[ProbeSpec, ...], recipe: ProbeSettings, tolerance: float = 1e-4) -> float:
    """Return how far the bank's logits are from the loop's with the same draws, as a share of the largest logit.

    Raises:
        AssertionError: further than ``tolerance``, or another validation score.
    """
    trained = task.bank(probes, recipe)
    ours = trained.predict(task.held_out.features)
    furthest = 0.0
    for number, (model, score) in enumerate(task.loop(probes, recipe, same_draws=True)):
        theirs = comparator.answers(model, probes[number], task.plain_held_out)
        furthest = max(furthest, float(np.abs(ours[number] - theirs).max() / np.abs(theirs).max()))
        assert np.isclose(score, trained.validation[number]), f"{probes[number]}: {trained.validation[number]}, {score}"
    assert furthest <= tolerance, f"logits differ by {furthest:.1e}, expected at most {tolerance:.1e}"
    return furthest


def rows(rounds: int, tell: Tell) -> list[Row]:
    """Measure probes with a hidden layer, linear ones, and kept embeddings."""
    return [*_bank_rows(rounds, tell), _kept_row(rounds, tell)]


def _bank_rows(rounds: int, tell: Tell) -> list[Row]:
    task, probes, found = Task(), every_probe(STATES, RATES, SEEDS), []
    few = probes[::ONE_IN]
    for name, hidden in (("hidden layer of 512", 512), ("linear", 0)):
        recipe = ProbeSettings(hidden=hidden, max_epochs=EPOCHS)
        tell(f"{name}: logits agree to {check(task, few, recipe):.1e}")
        pairs = paired(partial(task.bank, probes, recipe), partial(task.loop, few, recipe), rounds, tell)
        each = Pairs([took / len(probes) for took in pairs.ours], [took / len(few) for took in pairs.theirs])
        figure = f"{len(probes)} probes ({name}) as one bank against one by one, per probe of {EPOCHS} epochs"
        found.append(Row.of_speed(figure, BANK_TARGET, each, time_of))
    return found


class _Embedder:
    """The 95M model, frozen, and clips for it."""

    def __init__(self) -> None:
        shape = student("mert-95m")
        self.model = MertModel(shape, seed=0).eval()
        self.waveforms = batch(shape, CLIPS, CLIP_SECONDS).clean
        self.truth = np.arange(CLIPS) % 2
        self.recipe = ProbeSettings(batch_items=CLIPS, max_epochs=PROBE_EPOCHS, patience=PROBE_EPOCHS)

    @torch.no_grad()
    def embed(self) -> Tensor:
        """Return the mean over time of every hidden state (states, clips, width)."""
        return torch.stack([state.mean(dim=1) for state in self.model(self.waveforms).hidden_states])

    def kept(self) -> None:
        """Embed once, in half precision; train a probe on each state for all epochs."""
        known = Examples(InMemory(self.embed().half()), self.truth)
        probes = tuple(ProbeSpec(number, 1e-3, 0) for number in range(known.features.states))
        score = partial(METRICS["accuracy"], self.truth)
        train_probes(probes, known, known, ProbeLoss("single", 2), self.recipe, score)

    def again(self) -> None:
        """Embed in every epoch; train a probe on one state for a few epochs."""
        probe = nn.Sequential(nn.Linear(WIDTH, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 2))
        optimizer = torch.optim.Adam(probe.parameters(), lr=1e-3)
        for _ in range(MEASURED_EPOCHS):
            loss = nn.functional.cross_entropy(probe(self.embed()[6]), torch.from_numpy(self.truth))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _kept_row(rounds: int, tell: Tell) -> Row:
    embedder = _Embedder()
    pairs = paired(embedder.kept, embedder.again, rounds, tell)
    whole = [took * PROBE_EPOCHS / MEASURED_EPOCHS for took in pairs.theirs]
    figure = (
        f"{PROBE_EPOCHS} epochs on kept embeddings of mert-95m (13 probes) against embedding in every epoch (1 probe, "
        f"{MEASURED_EPOCHS} epochs measured), {CLIPS} clips of {CLIP_SECONDS:g} s"
    )
    return Row.of_speed(figure, KEPT_TARGET, Pairs(pairs.ours, whole), time_of)
