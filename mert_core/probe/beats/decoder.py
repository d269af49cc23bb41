"""The likeliest beats given an activation per frame: Viterbi over whole beats.

Inside a beat nothing is decided, so the search goes from beat to beat: the best way to leave interval τ at frame t
is the best way to have entered it at t - τ, and the densities of τ frames, which are differences of running sums. And
since no beat is shorter than the shortest interval, that many frames are found in one step. Memory is one number per
frame and interval; where a beat came from is looked up only on the way back.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from mert_core.errors import MertError
from mert_core.probe.beats.tempo_model import TempoModel


def decode(activation: ArrayLike, model: TempoModel) -> NDArray[np.float64]:
    """Return the beats in seconds, rising.

    Each beat is put at the greatest activation of the first frames of its interval, where the model expects it.

    Args:
        activation: probability of a beat per frame (frames,).
        model: of tempo, for the activations' frame rate.

    Raises:
        MertError: the activations are not finite numbers from 0 to 1, (frames,).
    """
    found = np.asarray(activation, dtype=np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise MertError(
            f"beats are decoded from probabilities (frames,) between 0 and 1; got shape {found.shape}"
            + (f" with values from {found.min():g} to {found.max():g}" if found.size else "")
        )
    loud = np.flatnonzero(found >= model.threshold)
    if not len(loud):
        return np.zeros(0)
    first = int(loud[0])
    found = found[first : loud[-1] + 1]
    frames = []
    for start, interval in best_beats(found, model)[0]:
        begin, end = max(start, 0), start + int(model.beat_frames[interval - model.intervals[0]])
        if begin < min(end, len(found)):
            frames.append(first + begin + int(found[begin:end].argmax()))
    return np.array(frames) / model.frame_rate


def best_beats(activation: NDArray[np.float64], model: TempoModel) -> tuple[list[tuple[int, int]], float]:
    """Return the likeliest sequence of beats that covers all frames, and the logarithm of its probability.

    Args:
        activation: probability of a beat per frame (frames,), at least one frame.
        model: of tempo.

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
        (frames + longest interval, intervals); rows from ``frames`` on are beats that the end cuts.
    """
    frames, intervals = len(activation), model.intervals
    shortest = int(intervals[0])
    leave = _begun_before(activation, model)
    # row s of the view is where a beat that starts at frame s leaves: leave[s + interval]
    row, column = leave.strides
    by_start = as_strided(leave[shortest:], (frames, len(intervals)), (row, row + column))
    inside = _whole_beats(activation, model)

    by_start[0] = model.log_start + inside[0]
    transition = model.log_transition[:, None, :]
    buffer = np.empty((len(intervals), shortest, len(intervals)))
    for start in range(1, frames, shortest):
        end = min(start + shortest, frames)
        ways = np.add(leave[start:end].T[:, :, None], transition, out=buffer[:, : end - start])
        by_start[start:end] = ways.max(axis=0) + inside[start:end]
    return leave


def _running_sums(activation: NDArray[np.float64], model: TempoModel) -> list[NDArray[np.float64]]:
    return [np.concatenate([[0.0], np.cumsum(density)]) for density in model.log_observations(activation)]


def _whole_beats(activation: NDArray[np.float64], model: TempoModel) -> NDArray[np.float64]:
    """Return the log-density of the frames of a beat that starts at each frame (frames, intervals), cut at the end."""
    frames = len(activation)
    early, late = _running_sums(activation, model)
    start = np.arange(frames)[:, None]
    middle = np.minimum(start + model.beat_frames, frames)
    return early[middle] - early[start] + late[np.minimum(start + model.intervals, frames)] - late[middle]


def _begun_before(activation: NDArray[np.float64], model: TempoModel) -> NDArray[np.float64]:
    """Return the leaving scores of beats that had begun before the first frame; -inf where there is none."""
    frames, longest = len(activation), int(model.intervals[-1])
    early, late = _running_sums(activation, model)
    leave = np.full((frames + longest, len(model.intervals)), -np.inf)
    end = np.arange(1, longest)[:, None]
    middle = np.minimum(np.maximum(model.beat_frames - (model.intervals - end), 0), frames)
    density = early[middle] + late[np.minimum(end, frames)] - late[middle]
    leave[1:longest] = np.where(end < model.intervals, model.log_start + density, -np.inf)
    return leave
