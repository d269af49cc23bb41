"""Targets per frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDENED_FRAMES = 1


def frame_targets(beats: ArrayLike, frames: int, frame_rate: float, widened: int = WIDENED_FRAMES) -> NDArray[np.int64]:
    """Return 1 at the frame of each beat and at its neighbours, else 0; (frames,).

    Args:
        beats: seconds.
        frames: how many frames the clip has; beats beyond them count for nothing.
        frame_rate: frames per second; frame i is at i / frame_rate, for the decoder, too.
        widened: how many neighbours on either side, MARBLE's 1.
    """
    centres = np.round(np.asarray(beats, dtype=np.float64) * frame_rate).astype(np.int64)
    near = (centres[:, None] + np.arange(-widened, widened + 1)).ravel()
    targets = np.zeros(frames, dtype=np.int64)
    targets[near[(near >= 0) & (near < frames)]] = 1
    return targets
