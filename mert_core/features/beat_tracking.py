"""Beat tracking by dynamic programming (Ellis 2007, "Beat Tracking by Dynamic Programming", J. New Music Research)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mert_core.audio.grid import FRAME_RATE

# Tempi are weighed by a Gaussian over octaves around 120 beats per minute (sections 3.2 and 3.3).
_USUAL_PERIOD_SECONDS = 0.5
_PERIOD_OCTAVES = 0.9
_LONGEST_PERIOD_SECONDS = 2.0
_SHORTEST_PERIOD_SECONDS = 0.2
# How much a steady tempo weighs against strong onsets (section 3.1).
_TIGHTNESS = 100.0
# The mean onset strength of about a second around a frame is what stands out above (Ellis's high-pass filter).
_LEVEL_FRAMES = FRAME_RATE


def onset_strength(log_mel: Tensor) -> Tensor:
    """Return how much louder each frame is than the one before, averaged over the bands that got louder.

    Args:
        log_mel: (batch, frames, bands).

    Returns:
        (batch, frames), 0 at the first frame.
    """
    rise = log_mel.diff(dim=1, prepend=log_mel[:, :1])
    return rise.clamp(min=0).mean(-1)


def beat_frames(strength: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frames of the beats of a track, in order.

    The tempo is one for the whole track, the best period of the strength's autocorrelation. Beats then are the sequence
    that gains most: onset strength, less the squared logarithm of each distance's ratio to the period. Without any
    onset the beats keep time at 120 per minute.

    Args:
        strength: (frames,), onset strength per frame.
    """
    frames = len(strength)
    if not frames:
        return np.zeros(0, np.int64)
    kernel = np.ones(min(_LEVEL_FRAMES, frames))
    level = np.convolve(strength, kernel, "same") / np.convolve(np.ones(frames), kernel, "same")
    strength = np.maximum(strength - level, 0.0)
    deviation = strength.std()
    if deviation > 1e-9:
        strength = strength / deviation

    # The period: autocorrelation, weighed by how usual a tempo is.
    lags = np.arange(round(_SHORTEST_PERIOD_SECONDS * FRAME_RATE), round(_LONGEST_PERIOD_SECONDS * FRAME_RATE) + 1)
    size = 1 << (2 * frames + 2 * int(lags[-1])).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(strength, size)) ** 2, size)[lags]
    octaves = np.log2(lags / (_USUAL_PERIOD_SECONDS * FRAME_RATE)) / _PERIOD_OCTAVES
    period = int(lags[(np.exp(-0.5 * octaves**2) * np.maximum(correlation, 1e-6)).argmax()])

    # The sequence of frames whose score is best (Ellis 2007, equation 5).
    distances = np.arange(2 * period, math.ceil(period / 2) - 1, -1)
    cost = _TIGHTNESS * np.log(distances / period) ** 2
    longest, shortest = int(distances[0]), int(distances[-1])
    # scores with a lead of -inf, so that every frame looks back over all distances
    score = np.full(longest + frames, -np.inf)
    before = np.full(frames, -1, dtype=np.int64)
    for frame in range(frames):
        gains = score[frame : frame + longest - shortest + 1] - cost
        best = int(gains.argmax())
        if gains[best] >= 0.0:
            before[frame] = frame - distances[best]
            score[longest + frame] = strength[frame] + gains[best]
        else:  # the first beat of the sequence
            score[longest + frame] = strength[frame]
    beats = [frames - 1 - int(score[-min(period, frames) :][::-1].argmax())]
    while before[beats[-1]] >= 0:
        beats.append(int(before[beats[-1]]))
    return np.array(beats[::-1], dtype=np.int64)
