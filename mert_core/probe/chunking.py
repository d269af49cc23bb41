"""Windows of a sound: side by side, without overlap, nothing padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE, seconds_to_samples
from mert_core.errors import MertError
from mert_core.probe.tasks.base import Chunking

MIN_SAMPLES = 1200
"""The shortest window, 50 ms: the mel floor's half window, and three frames of the student. The same for all encoders,
so that no clip is left out for one of them only."""


@dataclass(frozen=True)
class Windows:
    """How one sound is cut. Equal ones are equal cuts, whatever `Chunking` they come from.

    Attributes:
        window_samples: of each window but the last, which may be shorter; of the only window, if there is one.
        used_samples: where the last window ends.
    """

    window_samples: int
    used_samples: int

    def __len__(self) -> int:
        return -(-self.used_samples // self.window_samples)

    def bounds(self) -> NDArray[np.int64]:
        """Return where each window begins and ends in samples (windows, 2)."""
        starts = np.arange(len(self), dtype=np.int64) * self.window_samples
        return np.stack([starts, np.minimum(starts + self.window_samples, self.used_samples)], axis=1)


def windows_of(samples: int, chunking: Chunking) -> Windows | None:
    """Return the windows of a sound, or None for one that is shorter than any encoder hears.

    Args:
        samples: of the sound, at 24 kHz.
        chunking: see there; a last window of just half the length is kept.

    Raises:
        MertError: windows are asked for that may be too short to embed.
    """
    for name, seconds in (("windows", chunking.seconds), ("limit", chunking.limit_seconds)):
        if seconds is not None and seconds_to_samples(seconds) < 2 * MIN_SAMPLES:
            raise MertError(
                f"a chunking has a {name} of {seconds:g} s; at least {2 * MIN_SAMPLES / SAMPLE_RATE:g} s are needed, "
                "since a last window may be half as long"
            )
    used = samples if chunking.limit_seconds is None else min(samples, seconds_to_samples(chunking.limit_seconds))
    if used < MIN_SAMPLES:
        return None
    if chunking.seconds is None:
        return Windows(used, used)
    window = seconds_to_samples(chunking.seconds)
    if used > window and 2 * (used % window) < window:
        used -= used % window
    return Windows(min(window, used), used)
