"""Choosing an input and a learning rate. Nothing here sees the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probe.bank import WEIGHTED, Probe, Recipe
from mert_core.probe.objectives import Objective
from mert_core.probe.trained import Trained
from mert_core.probe.training import Examples, Score, train_probes


@dataclass(frozen=True)
class Choice:
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

    choice: Choice
    trained: Trained


def input_name(number: int) -> int | str:
    """Return an input as files and tables have it: a hidden state's number, or ``weighted``."""
    return "weighted" if number == WEIGHTED else number


def every_probe(states: int, rates: Sequence[float], seeds: Sequence[int]) -> tuple[Probe, ...]:
    """Return a task's probes: each state and, where there are several, their weighted sum, at each rate and seed."""
    inputs = [*range(states), *([WEIGHTED] if states > 1 else [])]
    return tuple(Probe(number, rate, seed) for number in inputs for rate in rates for seed in seeds)


def choose(probes: Sequence[Probe], validation: NDArray[np.float64]) -> Choice:
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
    return Choice(number, rate, averages[number, rate], list(by_input.items()))


def select(
    train: Examples,
    valid: Examples,
    objective: Objective,
    recipe: Recipe,
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
