"""A hidden Markov model of a beat that goes round: which tempo, and how far into the beat.

State space and tempo changes are those of Krebs, Böck and Widmer (2015, "An efficient state-space model for joint
tempo and meter tracking"), the observations those of Böck, Krebs and Widmer (2014, "A multi-model approach to beat
tracking considering heterogeneous music styles"); the same parameters as in madmom's beat tracker, which MARBLE used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError

_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class TempoModel:
    """The model's parameters, and what follows from them.

    A state is (interval, position): a beat that takes ``interval`` frames, of which ``position`` have gone by. Position
    moves on by one per frame; the interval changes only from the end of one beat to the start of the next.

    Attributes:
        frame_rate: frames per second of the activations.
        lowest_bpm: slowest tempo, beats per minute.
        highest_bpm: fastest tempo.
        transition_lambda: a change to ``r`` times the interval has a probability in proportion to
            exp(-transition_lambda · |r - 1|).
        observation_lambda: the first 1/observation_lambda of a beat is where the activation should be high.
        threshold: what lies before the first and after the last activation of at least this has no beats.
    """

    frame_rate: float
    lowest_bpm: float = 55.0
    highest_bpm: float = 215.0
    transition_lambda: float = 100.0
    observation_lambda: float = 16.0
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.lowest_bpm <= self.highest_bpm or self.frame_rate <= 0:
            raise MertError(
                f"a tempo model needs 0 < lowest_bpm <= highest_bpm and a positive frame rate; it was given "
                f"{self.lowest_bpm:g}, {self.highest_bpm:g} and {self.frame_rate:g}"
            )
        if round(60 * self.frame_rate / self.highest_bpm) < 1 or self.observation_lambda <= 1:
            raise MertError(
                f"at {self.highest_bpm:g} beats per minute a beat takes less than one frame "
                f"of {self.frame_rate:g} per second, or observation_lambda ({self.observation_lambda:g}) is not above 1"
            )

    @cached_property
    def intervals(self) -> NDArray[np.int64]:
        """Frames per beat, rising by one (intervals,)."""
        shortest, longest = (round(60 * self.frame_rate / bpm) for bpm in (self.highest_bpm, self.lowest_bpm))
        return np.arange(shortest, longest + 1)

    @cached_property
    def beat_frames(self) -> NDArray[np.int64]:
        """How many frames at the start of a beat are where the activation should be high (intervals,)."""
        return np.ceil(self.intervals / self.observation_lambda).astype(np.int64)

    @cached_property
    def log_transition(self) -> NDArray[np.float64]:
        """Logarithm of the probability of each next interval (from, to); -inf where it is nothing."""
        ratio = self.intervals[None, :] / self.intervals[:, None]
        weight = np.exp(-self.transition_lambda * np.abs(ratio - 1))
        weight[weight <= _LEAST_PROBABILITY] = 0
        with np.errstate(divide="ignore"):
            return np.log(weight / weight.sum(axis=1, keepdims=True))

    @cached_property
    def log_start(self) -> float:
        """Logarithm of the probability of each state at the first frame: all are alike."""
        return -float(np.log(self.intervals.sum()))

    def log_observations(self, activation: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log-density of each frame in the first part of a beat and in the rest of it, each (frames,)."""
        likely = np.clip(activation, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.log(likely), np.log((1 - likely) / (self.observation_lambda - 1))
