"""Playing notes on a SoundFont: deterministic, linear (the mix is the sum of its stems), at 24 kHz.

A sampler after sections 8 and 9 of the SoundFont Technical Specification 2.04: samples with loops, tunings, the
volume envelope, velocity and panorama, without filters, modulators and effects. symusic 0.5.9 has a synthesiser
too, but with this SoundFont it plays most programs out of tune (the piano's middle C at 830 Hz), takes no notice of
velocity, volume and panorama, and never returns from some notes above E6: labels made from the score would be false.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.corpus.scores.expression import Expression
from mert_core.corpus.scores.soundfont import Envelope, SoundFont, Zone, load_soundfont

_OVERSAMPLING = 2  # of the tables, so that linear interpolation between their points is enough
_TAPS = 32  # half-length of the low-pass, in samples at its cutoff
_LONGEST_RELEASE_SECONDS = 0.6
_SHORTEST_FADE_SECONDS = 0.01  # no click, whatever the SoundFont says
_FLOOR_DB = 100.0


@dataclass(frozen=True)
class PlayedNote:
    """A note in seconds from the start of the excerpt; ``expression`` says how it moves while it sounds."""

    onset_seconds: float
    duration_seconds: float
    pitch: int
    velocity: int
    expression: Expression | None = None


@dataclass(frozen=True)
class PlayedPart:
    """The notes of one part, its program, linear gain and place from -1 (left) to 1 (right)."""

    notes: tuple[PlayedNote, ...]
    program: int
    gain: float
    pan: float


@dataclass(frozen=True)
class _Table:
    """A sample, oversampled and band-limited, with the difference to each next point."""

    values: NDArray[np.float32]
    slopes: NDArray[np.float32]
    loop: tuple[int, int] | None


def render_stems(parts: list[PlayedPart], samples: int) -> NDArray[np.float32]:
    """Play every part on its own.

    Returns:
        float32 (parts, 2, samples); the mix is the sum over parts, its mono form the mean of both channels.
    """
    font = load_soundfont()
    stems = np.zeros((len(parts), 2, samples), dtype=np.float32)
    for stem, part in zip(stems, parts, strict=True):
        for note in part.notes:
            _play(font, stem, note, part)
    return stems


def mix_mono(stems: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mono mix, float32 (samples,), of stems (parts, 2, samples)."""
    mono: NDArray[np.float32] = stems.sum(axis=(0, 1), dtype=np.float32) * np.float32(0.5)
    return mono


def _play(font: SoundFont, stem: NDArray[np.float32], note: PlayedNote, part: PlayedPart) -> None:
    start = round(note.onset_seconds * SAMPLE_RATE)
    held = max(round(note.duration_seconds * SAMPLE_RATE), 1)
    for zone in font.zones(part.program):
        if not (
            zone.keys[0] <= note.pitch <= zone.keys[1] and zone.velocities[0] <= note.velocity <= zone.velocities[1]
        ):
            continue
        release = round(_release_seconds(zone.envelope) * SAMPLE_RATE)
        length = min(held + release, stem.shape[1] - start)
        if length <= 0:
            continue
        wave = _oscillate(font, zone, note, length)
        wave *= _envelope(zone.envelope, held, release, wave.size)
        if note.expression is not None:
            wave *= note.expression.level(held, wave.size)
        level = part.gain * (note.velocity / 127) ** 2 * 10 ** (-zone.attenuation_db / 20)
        angle = (np.clip(part.pan + zone.pan, -1, 1) + 1) * np.pi / 4
        stem[0, start : start + wave.size] += wave * np.float32(level * np.sqrt(2) * np.cos(angle))
        stem[1, start : start + wave.size] += wave * np.float32(level * np.sqrt(2) * np.sin(angle))


def _oscillate(font: SoundFont, zone: Zone, note: PlayedNote, length: int) -> NDArray[np.float32]:
    """Return the sample at the note's pitch, float32 (at most ``length``,): shorter when it ends without a loop."""
    step = 2 ** ((note.pitch - zone.root) * zone.cents_per_key / 1200) * zone.rate / SAMPLE_RATE
    position = np.arange(length, dtype=np.float64) * (step * _OVERSAMPLING)
    if note.expression is not None:
        bend = 2 ** (note.expression.cents(length) / 1200)
        position = np.cumsum(np.append(0.0, bend[:-1])) * (step * _OVERSAMPLING)
        step *= float(bend.max())
    half_octaves_down = max(int(np.ceil(np.log2(step) * 2)), 0)
    table = _table(font, zone.sample, zone.loop, half_octaves_down)
    if table.loop is not None:
        first, end = table.loop
        turn = int(np.searchsorted(position, end))
        position[turn:] = first + (position[turn:] - first) % (end - first)
    else:
        position = position[: int(np.searchsorted(position, table.values.size - 1))]
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    return table.values[index] + fraction * table.slopes[index]


@lru_cache(maxsize=1024)
def _table(font: SoundFont, sample: int, loop: tuple[int, int] | None, half_octaves_down: int) -> _Table:
    """Prepare a sample for steps up to 2 ** (half_octaves_down / 2): nothing above the new Nyquist is left."""
    wave = font.sample(sample)
    margin = int(np.ceil(_TAPS * 2 ** (half_octaves_down / 2))) + 1
    looped = loop is not None and loop[1] <= wave.size
    if looped and loop is not None:
        first, end = loop
        span = end - first
        lead = -(-margin // span) * span  # the loop that is used lies this far behind the first, clear of both ends
        turns = np.arange(first, first + 2 * lead + span)
        wave = np.concatenate([wave[:end], wave[first + (turns - first) % span]])
    else:
        wave = np.concatenate([wave, np.zeros(margin, np.float32)])
    points = _oversample(wave, half_octaves_down)
    bounds = None
    if looped and loop is not None:
        bounds = (_OVERSAMPLING * (loop[0] + lead), _OVERSAMPLING * (loop[1] + lead))
        points = points[: bounds[1] + 2]
    return _Table(points, np.append(np.diff(points), np.float32(0)), bounds)


def _oversample(wave: NDArray[np.float32], half_octaves_down: int) -> NDArray[np.float32]:
    cutoff = 0.95 * 2 ** (-half_octaves_down / 2) / _OVERSAMPLING  # 1 is the Nyquist frequency of the table
    reach = int(np.ceil(_TAPS / cutoff))
    kernel = cutoff * np.sinc(cutoff * np.arange(-reach, reach + 1)) * np.kaiser(2 * reach + 1, 8.0)
    stuffed = np.zeros(wave.size * _OVERSAMPLING)
    stuffed[::_OVERSAMPLING] = wave
    size = 1 << int(np.ceil(np.log2(stuffed.size + kernel.size)))
    filtered = np.fft.irfft(np.fft.rfft(stuffed, size) * np.fft.rfft(kernel * _OVERSAMPLING / kernel.sum(), size), size)
    return filtered[reach : reach + stuffed.size].astype(np.float32)


def _release_seconds(envelope: Envelope) -> float:
    return float(np.clip(envelope.release, 2 * _SHORTEST_FADE_SECONDS, _LONGEST_RELEASE_SECONDS))


@lru_cache(maxsize=256)
def _held(envelope: Envelope, samples: int) -> NDArray[np.float32]:
    """Return delay, attack, hold, decay and sustain (section 8.1.3, generators 33 to 37) as float32 (samples,)."""
    time = np.arange(samples) / SAMPLE_RATE - envelope.delay
    rise = np.clip(time / max(envelope.attack, 1e-4), 0, 1)
    decay = np.clip((time - envelope.attack - envelope.hold) / max(envelope.decay, 1e-3), 0, None) * _FLOOR_DB
    return (rise * 10 ** (-np.minimum(decay, envelope.sustain_db) / 20)).astype(np.float32)


def _envelope(envelope: Envelope, held: int, release: int, length: int) -> NDArray[np.float32]:
    """Return the volume envelope, float32 (length,), of a note held for ``held`` samples."""
    rounded = -(-max(held, length) // 12000) * 12000  # few different lengths, so that the cache serves
    curve = _held(envelope, rounded)[:length].copy()
    if length > held:
        curve[held:] = curve[held - 1] * _fade(envelope, release)[: length - held]
    return curve


@lru_cache(maxsize=256)
def _fade(envelope: Envelope, release: int) -> NDArray[np.float32]:
    """Return the fall after the key is let go, in decibel linear in time, ending at exactly zero."""
    time = np.arange(release) / SAMPLE_RATE
    fall = 10 ** (-time / max(envelope.release, _SHORTEST_FADE_SECONDS) * _FLOOR_DB / 20)
    last = round(_SHORTEST_FADE_SECONDS * SAMPLE_RATE)
    tail = np.clip((release - np.arange(release)) / last, 0, 1)
    return (fall * tail).astype(np.float32)
