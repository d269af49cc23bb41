"""The frame grid: the only place that knows MERT's sample rate, hop and receptive field."""

from __future__ import annotations

SAMPLE_RATE = 24000
"""Samples per second of everything after decoding."""
HOP_SAMPLES = 320
"""Samples from one frame to the next."""
FRAME_RATE = SAMPLE_RATE // HOP_SAMPLES
"""Frames per second: 75."""
RECEPTIVE_SAMPLES = 400
"""Samples that one frame of the student's convolutions sees."""


def student_frames(samples: int) -> int:
    """Return how many frames the student makes of a waveform: only whole receptive fields count.

    24000 samples give 74 frames, not 75; 120000 give 374 (MERT's 5 s crops).
    """
    return max(0, (samples - RECEPTIVE_SAMPLES) // HOP_SAMPLES + 1)


def whole_hops(samples: int) -> int:
    """Return the greatest multiple of the hop that is not above ``samples``."""
    return samples // HOP_SAMPLES * HOP_SAMPLES


def seconds_to_samples(seconds: float) -> int:
    """Return the nearest number of samples at 24 kHz."""
    return round(seconds * SAMPLE_RATE)
