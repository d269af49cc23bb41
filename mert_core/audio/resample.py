"""Band-limited resampling to 24 kHz, block by block, so that a long file never lies in memory at its own rate."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE


class Resampler:
    """Resamples a mono stream to 24 kHz with soxr's HQ filter (20-bit, linear phase, no delay).

    Any rate works, also ones without a small ratio to 24 kHz. The output does not depend on where the blocks
    are cut, and n input samples give n × 24000 / rate, rounded, output samples.
    """

    def __init__(self, source_rate: int) -> None:
        self._stream = None
        if source_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(source_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def push(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Feed a block (samples,); return what is ready. With ``last`` the filter is drained as well."""
        if self._stream is None:
            return block
        return self._stream.resample_chunk(block, last=last)


def resample(waveform: NDArray[np.float32], source_rate: int) -> NDArray[np.float32]:
    """Resample a whole mono waveform (samples,) to 24 kHz."""
    return Resampler(source_rate).push(waveform, last=True)
