"""Choosing a task's probe on validation: hidden state and learning rate, by the score averaged over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.probing.probe_bank import WEIGHTED, ProbeLoss, ProbeSettings, ProbeSpec
from mert_core.probing.train import Examples, Score, TrainedProbes, train_probes


@dataclass(frozen=True)
class BestProbe:
    """The input and rate with the best validation score, averaged over seeds.

    Attributes:
        input: number of a hidden state, or `WEIGHTED`.
        rate: learning rate of the probe.
        validation: best validation score, averaged over seeds.
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
    trained: TrainedProbes


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
    scores: dict[tuple[int, float], list[float]] = {}
    for probe, score in zip(probes, validation, strict=True):
        scores.setdefault((probe.input, probe.rate), []).append(float(score))
    # `max` keeps the first of equals, so that the order of the averages decides a tie.
    last = 1 + max(number for number, _ in scores)
    averages = {
        pair: float(np.mean(scores[pair]))
        for pair in sorted(scores, key=lambda pair: (last if pair[0] == WEIGHTED else pair[0], pair[1]))
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
    loss: ProbeLoss,
    settings: ProbeSettings,
    score: Score,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    name: str,
    device: str = "cpu",
    rescore: Callable[[TrainedProbes], NDArray[np.float64]] | None = None,
) -> Selection:
    """Train a probe per input, rate and seed (`train_probes`); choose input and rate on ``valid``.

    ``rescore`` is given where ``score`` only stands in for a metric that is too slow for every epoch: it makes of the
    trained probes their validation scores (probes,), by which input and rate are chosen.

    Raises:
        MertError: see `train_probes` and `choose`.
    """
    probes = every_probe(train.features.states, rates, seeds)
    trained = train_probes(probes, train, valid, loss, settings, score, device, name)
    choice = choose(probes, trained.validation if rescore is None else rescore(trained))
    chosen = [i for i, probe in enumerate(probes) if (probe.input, probe.rate) == (choice.input, choice.rate)]
    return Selection(choice, trained.only(chosen))
