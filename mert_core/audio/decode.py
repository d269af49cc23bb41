"""From a file to float32 at 24 kHz, mono or channel by channel, or to the reason why not."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mert_core.audio.errors import Reason, UnusableAudio
from mert_core.audio.grid import SAMPLE_RATE
from mert_core.audio.integrity import MpegStream, check_container

__all__ = ["AUDIO_SUFFIXES", "Decoded", "UnusableAudio", "check_music", "decode", "decode_channels"]


class Resampler:
    """Resamples a stream to 24 kHz with soxr's HQ filter (20-bit, linear phase, no delay).

    Any rate works, also ones without a small ratio to 24 kHz. The output does not depend on where the blocks
    are cut, and n input samples give n × 24000 / rate, rounded, output samples.
    """

    def __init__(self, source_rate: int, channels: int = 1) -> None:
        self._stream = None
        if source_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(source_rate, SAMPLE_RATE, channels, dtype="float32", quality="HQ")

    def push(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Feed a block (samples,) or (samples, channels); return what is ready. ``last`` drains the filter as well."""
        if self._stream is None:
            return block
        return self._stream.resample_chunk(block, last=last)


def resample(waveform: NDArray[np.float32], source_rate: int) -> NDArray[np.float32]:
    """Resample a whole mono waveform (samples,) to 24 kHz."""
    return Resampler(source_rate).push(waveform, last=True)


AUDIO_SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
RATES = range(1000, 1_000_001)
"""Plausible sample rates in hertz; a damaged header that says 1 Hz would ask for gigabytes of output."""
SILENCE_RANGE = 1e-4
"""Highest minus lowest sample of a file that counts as silent: -80 dB of full scale, about 3 steps of int16."""

_OPENING = threading.Lock()  # libsndfile keeps the error of a failed open in a global variable
_BLOCK_VALUES = 1 << 20  # values (frames × channels) decoded at a time


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Attributes:
        waveform: float32 (samples,), mean of the channels, 24 kHz; of `decode_channels` (channels, samples).
        source_rate: the file's own sample rate in hertz.
        source_seconds: duration at that rate.
        sample_range: highest minus lowest sample (of `decode`: of the mono mix) before resampling.
    """

    waveform: NDArray[np.float32]
    source_rate: int
    source_seconds: float
    sample_range: float


def decode(path: Path) -> Decoded:
    """Decode a wav, flac, ogg, opus or mp3 file to mono at 24 kHz.

    Files are read in blocks: memory is the 24 kHz result and one block.

    Raises:
        UnusableAudio: with the reason, when the file is unreadable, empty, no audio, truncated or damaged, or
            holds NaN or infinity.
    """
    decoded = _decode_file(path, mono=True)
    return replace(decoded, waveform=decoded.waveform[0])


def decode_channels(path: Path) -> Decoded:
    """Decode like `decode`, but keep the channels apart: the waveform is (channels, samples).

    Raises:
        UnusableAudio: as `decode` does.
    """
    return _decode_file(path, mono=False)


def _decode_file(path: Path, mono: bool) -> Decoded:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableAudio("unreadable", "no regular file")
        if status.st_size == 0:
            raise UnusableAudio("empty", "the file has 0 bytes")
        with path.open("rb") as stream:
            mpeg = check_container(stream, status.st_size)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)  # libsndfile begins where the descriptor stands
            source = BytesIO(mpeg.repaired) if mpeg and mpeg.repaired else stream.fileno()
            return _decode_stream(source, mpeg, mono)
    except OSError as error:
        raise UnusableAudio("unreadable", error.strerror or type(error).__name__) from error


def _decode_stream(source: int | BytesIO, mpeg: MpegStream | None, mono: bool) -> Decoded:
    try:
        with _OPENING:
            sound = soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        reason: Reason = "no channels" if "channel" in error.error_string.lower() else "not audio"
        raise UnusableAudio(reason, error.error_string.strip()) from error
    with sound:
        rate, channels = sound.samplerate, 1 if mono else sound.channels
        if rate not in RATES:
            raise UnusableAudio("impossible rate", f"the header says {rate} Hz")
        if sound.channels < 1:
            raise UnusableAudio("no channels", "the header says 0 channels")
        resampler, parts = Resampler(rate, channels), []
        read, low, high = 0, np.inf, -np.inf
        for block in _blocks(sound):
            columns = block.mean(axis=1, keepdims=True, dtype=np.float32) if mono else block
            if not np.isfinite(columns).all():
                where = f"between {read / rate:.2f} and {(read + len(block)) / rate:.2f} s"
                raise UnusableAudio("not finite", f"NaN or infinity {where}")
            read, low, high = read + len(block), min(low, float(columns.min())), max(high, float(columns.max()))
            parts.append(resampler.push(columns))
        if read == 0:
            raise UnusableAudio("empty", "a header, but no audio behind it")
        # What was decoded against what the container promises; libsndfile's "unknown" is 2**63 - 1.
        expected = sound.frames if mpeg is None else mpeg.samples - mpeg.slack_samples
        if read < expected < 1 << 62:
            seconds = f"{read / rate:.2f} of {expected / rate:.2f} s"
            raise UnusableAudio("truncated", f"cut off or damaged: {seconds} decode")
        parts.append(resampler.push(np.zeros((0, channels), dtype=np.float32), last=True))
    return Decoded(np.ascontiguousarray(np.concatenate(parts).T), rate, read / rate, high - low)


def _blocks(sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """Yield all of a file as blocks (samples, channels) of about a million values."""
    frames = max(1, _BLOCK_VALUES // sound.channels)
    read = 0
    while True:
        try:
            block = sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            detail = f"cut off or damaged after {read / sound.samplerate:.2f} s: {error.error_string.strip()}"
            raise UnusableAudio("truncated", detail) from error
        if not len(block):
            return
        read += len(block)
        yield block


def check_music(decoded: Decoded, min_seconds: float) -> None:
    """Refuse what decodes but is no use as music.

    Raises:
        UnusableAudio: too short, or silent from end to end (a constant offset is silence too).
    """
    if decoded.source_seconds < min_seconds:
        raise UnusableAudio("too short", f"{decoded.source_seconds:.3f} s; at least {min_seconds:g} s are needed")
    if decoded.sample_range < SILENCE_RANGE:
        raise UnusableAudio("silent", f"all samples lie within {decoded.sample_range:.2g} of full scale")
