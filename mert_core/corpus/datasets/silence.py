"""Silence taken out of a recording by its energy, as is done with VocalSet before it is cut into windows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.decode import SILENCE_RANGE
from mert_core.audio.frames import SAMPLE_RATE
from mert_core.audio.unusable import UnusableAudio
from mert_core.corpus.datasets.clips import Sound


@dataclass(frozen=True)
class Gate:
    """What counts as silence.

    The sound is looked at in windows side by side. A window is quiet whose mean power lies more than ``threshold_db``
    below that of the loudest one. All quiet windows before the first and after the last loud one are taken out, and
    those between two loud ones where they last ``pause_seconds`` or longer: articulation stays as it was sung.

    Attributes:
        threshold_db: decibels below the loudest window.
        window_seconds: length of a window.
        pause_seconds: the shortest silence that is taken out within the sound.
    """

    threshold_db: float = 40.0
    window_seconds: float = 0.02
    pause_seconds: float = 0.3


def sounding(waveform: NDArray[np.float32], gate: Gate) -> NDArray[np.bool_]:
    """Return which samples are kept, (samples,); none of a waveform that is silent from end to end.

    Args:
        waveform: (samples,) at 24 kHz.
        gate: what counts as silence.
    """
    if not len(waveform) or np.ptp(waveform) < SILENCE_RANGE:
        return np.zeros(len(waveform), dtype=np.bool_)
    size = round(gate.window_seconds * SAMPLE_RATE)
    starts = np.arange(0, len(waveform), size)
    lengths = np.diff(starts, append=len(waveform))
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / lengths
    loud = power >= power.max() * 10.0 ** (-gate.threshold_db / 10.0)
    places = np.flatnonzero(loud)
    kept = np.zeros(len(starts), dtype=np.bool_)
    kept[places[0] : places[-1] + 1] = True
    pause = round(gate.pause_seconds / gate.window_seconds)
    for place in np.flatnonzero(np.diff(places) > pause):
        kept[places[place] + 1 : places[place + 1]] = False
    return np.repeat(kept, lengths)


@dataclass(frozen=True)
class Trimmed:
    """A sound without its silence.

    Attributes:
        sound: as it was recorded.
        gate: what counts as silence.
    """

    sound: Sound
    gate: Gate = Gate()

    @property
    def identity(self) -> str:
        """SHA-256 (hexadecimal) of the sound's identity and the gate.

        Raises:
            UnusableAudio: the sound cannot be read.
        """
        return hashlib.sha256(f"{self.sound.identity} without silence: {self.gate}".encode()).hexdigest()

    def waveform(self) -> NDArray[np.float32]:
        """Return the mean of the channels at 24 kHz without silence, (samples,).

        Raises:
            UnusableAudio: it cannot be decoded, or is silent from end to end.
        """
        waveform = self.sound.waveform()
        return waveform[_some(sounding(waveform, self.gate))]

    def channels(self) -> NDArray[np.float32]:
        """Return all channels at 24 kHz, (channels, samples), without what is silence in their mean.

        Raises:
            UnusableAudio: it cannot be decoded, or is silent from end to end.
        """
        channels = self.sound.channels()
        return channels[:, _some(sounding(channels.mean(axis=0, dtype=np.float32), self.gate))]


def _some(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not kept.any():
        raise UnusableAudio("silent", "nothing is left when silence is taken out")
    return kept
