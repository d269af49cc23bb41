"""The likeliest beats given an activation per frame: Viterbi over whole beats.

Inside a beat nothing is decided, so the search goes from beat to beat: the best way to leave interval τ at frame t
is the best way to have entered it at t - τ, and the densities of τ frames, which are differences of running sums. And
since no beat is shorter than the shortest interval, that many frames are computed in one step. Memory is one number per
frame and interval; where a beat came from is looked up only on the way back.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

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


def decode(activation: ArrayLike, model: TempoModel) -> NDArray[np.float64]:
    """Return the beats in seconds, rising.

    Each beat is put at the greatest activation of the first frames of its interval, where the model expects it.

    Args:
        activation: probability of a beat per frame (frames,).
        model: tempo model for the activations' frame rate.

    Raises:
        MertError: the activations are not finite numbers from 0 to 1, (frames,).
    """
    likely = np.asarray(activation, dtype=np.float64)
    if likely.ndim != 1 or not ((likely >= 0) & (likely <= 1)).all():
        raise MertError(
            f"beats are decoded from probabilities (frames,) between 0 and 1; got shape {likely.shape}"
            + (f" with values from {likely.min():g} to {likely.max():g}" if likely.size else "")
        )
    loud = np.flatnonzero(likely >= model.threshold)
    if not len(loud):
        return np.zeros(0)
    first = int(loud[0])
    likely = likely[first : loud[-1] + 1]
    frames = []
    for start, interval in best_beats(likely, model)[0]:
        begin, end = max(start, 0), start + int(model.beat_frames[interval - model.intervals[0]])
        if begin < min(end, len(likely)):
            frames.append(first + begin + int(likely[begin:end].argmax()))
    return np.array(frames) / model.frame_rate


def best_beats(activation: NDArray[np.float64], model: TempoModel) -> tuple[list[tuple[int, int]], float]:
    """Return the likeliest sequence of beats that covers all frames, and the logarithm of its probability.

    Args:
        activation: probability of a beat per frame (frames,), at least one frame.
        model: tempo model for the activation's frame rate.

    Returns:
        (first frame, interval in frames) of each beat; the first may begin before frame 0 and the last end after the
        last frame. And the logarithm of the joint density of this sequence and the activations.
    """
    frames, shortest = len(activation), int(model.intervals[0])
    leave = _leaving_scores(activation, model)
    end, which = np.unravel_index(int(leave[frames:].argmax()), leave[frames:].shape)
    score = float(leave[frames + end, which])
    start = frames + int(end) - (shortest + int(which))
    beats = [(start, shortest + int(which))]
    while start > 0:
        which = (leave[start] + model.log_transition[:, which]).argmax()
        start -= shortest + int(which)
        beats.append((start, shortest + int(which)))
    return beats[::-1], score


def _leaving_scores(activation: NDArray[np.float64], model: TempoModel) -> NDArray[np.float64]:
    """Return the log-density of the best way to end a beat of each interval just before each frame.

    Returns:
        (frames + longest interval, intervals); rows from ``frames`` on are beats that the end cuts. -inf where there is
        no way.
    """
    frames, intervals, beat_frames = len(activation), model.intervals, model.beat_frames
    shortest, longest = int(intervals[0]), int(intervals[-1])
    early, late = (np.concatenate([[0.0], np.cumsum(density)]) for density in model.log_observations(activation))

    # Beats that had begun before the first frame.
    leave = np.full((frames + longest, len(intervals)), -np.inf)
    end = np.arange(1, longest)[:, None]
    middle = np.minimum(np.maximum(beat_frames - (intervals - end), 0), frames)
    density = early[middle] + late[np.minimum(end, frames)] - late[middle]
    leave[1:longest] = np.where(end < intervals, model.log_start + density, -np.inf)

    # The frames of a whole beat that starts at each frame, cut at the end (frames, intervals).
    start = np.arange(frames)[:, None]
    middle = np.minimum(start + beat_frames, frames)
    inside = early[middle] - early[start] + late[np.minimum(start + intervals, frames)] - late[middle]

    # Row s of the view is where a beat that starts at frame s leaves: leave[s + interval].
    row, column = leave.strides
    by_start = as_strided(leave[shortest:], (frames, len(intervals)), (row, row + column))
    by_start[0] = model.log_start + inside[0]
    transition = model.log_transition[:, None, :]
    buffer = np.empty((len(intervals), shortest, len(intervals)))
    for first in range(1, frames, shortest):
        last = min(first + shortest, frames)
        ways = np.add(leave[first:last].T[:, :, None], transition, out=buffer[:, : last - first])
        by_start[first:last] = ways.max(axis=0) + inside[first:last]
    return leave


TOLERANCES = {"f_measure": 0.07, "f_measure_20ms": 0.02}
"""Metric → seconds by which a beat may be off."""
TRIM_SECONDS = 5.0
TRIMMED_FROM_SECONDS = 15.0


def trim_seconds_of(clip_seconds: float) -> float:
    """Return how much of a clip's start is not scored: mir_eval's (and MARBLE's) 5 s; nothing of clips under 15 s.

    In a demo clip of 10 s the first 5 s are half of what there is to score, and nobody's tempo estimate needs them.
    """
    return TRIM_SECONDS if clip_seconds >= TRIMMED_FROM_SECONDS else 0.0


def f_measures(
    truth: NDArray[np.float64], estimate: NDArray[np.float64], trim_seconds: float = TRIM_SECONDS
) -> dict[str, float]:
    """Return the F-measure at each of `TOLERANCES` of one clip's beats; 0 where either has no beat to score.

    Args:
        truth: times of the true beats in seconds, rising.
        estimate: times of the estimated beats in seconds, rising.
        trim_seconds: beats before this are not scored, in neither.
    """
    from mir_eval import beat

    kept = [beat.trim_beats(np.asarray(beats, dtype=np.float64), trim_seconds) for beats in (truth, estimate)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* beats are empty")
        return {name: float(beat.f_measure(*kept, tolerance)) for name, tolerance in TOLERANCES.items()}


def frame_targets(beats: ArrayLike, frames: int, frame_rate: float) -> NDArray[np.int64]:
    """Return 1 at the frame of each beat and, as MARBLE does, at its two neighbours, else 0; (frames,).

    Args:
        beats: seconds.
        frames: how many frames the clip has; beats beyond them count for nothing.
        frame_rate: frames per second; frame i is at i / frame_rate, for the decoder, too.
    """
    centers = np.round(np.asarray(beats, dtype=np.float64) * frame_rate).astype(np.int64)
    near = (centers[:, None] + np.arange(-1, 2)).ravel()
    targets = np.zeros(frames, dtype=np.int64)
    targets[near[(near >= 0) & (near < frames)]] = 1
    return targets
