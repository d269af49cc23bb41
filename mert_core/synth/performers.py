"""Performers with habits and playing techniques, for the phrases: in place of singers and of vocal techniques."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.synth.instruments import INSTRUMENTS, Instrument
from mert_core.synth.render import Expression, PlayedNote

_DARK_HERTZ, _BRIGHT_HERTZ = 1000.0, 4000.0  # between them a performer's brightness sets in

_STACCATO_SHARE, _STACCATO_SECONDS = 0.35, 0.12
_STROKES_PER_SECOND = (10.0, 13.0)  # of a tremolo and of a trill
_STROKE_SHARE, _SHORTEST_STROKE_SECONDS = 0.9, 0.03  # of a stroke's time that it is held
_SLIDE_SECONDS, _SLIDE_SHARE = 0.16, 0.6  # the shorter of the two: absolute, and of the note
_FARTHEST_SLIDE = 700.0  # cents
_SWELL_DB = (-24.0, 0.0, -24.0)
_ACCENT_DB = (0.0, -14.0, -18.0, -18.0)


@dataclass(frozen=True)
class Performer:
    """An instrument in the hands of somebody with habits.

    Attributes:
        name: the label.
        program: General MIDI program, counted from 0.
        brightness_db: level above 4 kHz against that below 1 kHz.
        attack_seconds: time in which a note reaches its loudness.
        level_db: usual loudness (RMS) relative to full scale.
        tuning_cents: distance from concert pitch.
        looseness_seconds: standard deviation of onsets from the score's.
        vibrato_hertz, vibrato_cents: rate and reach of the vibrato.
        held_out: whether techniques are asked of this performer in the test split alone.
    """

    name: str
    program: int
    brightness_db: float
    attack_seconds: float
    level_db: float
    tuning_cents: float
    looseness_seconds: float
    vibrato_hertz: float
    vibrato_cents: float
    held_out: bool = False

    @property
    def expression(self) -> Expression:
        """The expression of every note, whatever the technique."""
        return Expression(tuning_cents=self.tuning_cents, attack_seconds=self.attack_seconds)

    @property
    def instrument(self) -> Instrument:
        """The program with its family and range."""
        return next(one for one in INSTRUMENTS if one.program == self.program)


# Three pairs share an instrument, so that its sound alone does not tell who plays.
PERFORMERS = (
    Performer("violin 1", 40, 2.0, 0.005, -20.0, 6.0, 0.008, 5.8, 30.0),
    Performer("flute 1", 73, -2.0, 0.03, -22.0, -8.0, 0.02, 4.9, 45.0),
    Performer("violin 2", 40, -1.5, 0.03, -21.5, -10.0, 0.02, 5.1, 50.0, held_out=True),
    Performer("oboe", 68, 0.0, 0.02, -20.0, 0.0, 0.01, 5.5, 35.0),
    Performer("clarinet 1", 71, 1.5, 0.01, -21.0, 8.0, 0.006, 5.6, 35.0),
    Performer("clarinet 2", 71, -2.0, 0.035, -22.5, -6.0, 0.015, 5.0, 45.0, held_out=True),
    Performer("flute 2", 73, 2.0, 0.005, -20.5, 10.0, 0.006, 6.1, 35.0),
    Performer("trumpet", 56, 0.0, 0.01, -19.0, 4.0, 0.01, 6.0, 40.0, held_out=True),
)


@dataclass(frozen=True)
class LineNote:
    """One note of a line before it is played: seconds, pitch, velocity, and the interval it comes from in cents."""

    onset_seconds: float
    duration_seconds: float
    pitch: int
    velocity: int
    from_cents: float


def _held(note: LineNote, expression: Expression, seconds: float | None = None) -> list[PlayedNote]:
    held = note.duration_seconds if seconds is None else seconds
    return [PlayedNote(note.onset_seconds, held, note.pitch, note.velocity, expression)]


def _strokes(note: LineNote, expression: Expression, rng: np.random.Generator, *steps: int) -> list[PlayedNote]:
    """Divide a note into short ones of equal length, whose pitches go through the steps in turn."""
    count = max(round(note.duration_seconds * rng.uniform(*_STROKES_PER_SECOND)), 1)
    stroke = note.duration_seconds / count
    held = max(_STROKE_SHARE * stroke, _SHORTEST_STROKE_SECONDS)
    return [
        PlayedNote(note.onset_seconds + stroke * number, held, note.pitch + step, note.velocity, expression)
        for number, step in zip(range(count), cycle(steps), strict=False)
    ]


def _slide(note: LineNote, expression: Expression) -> list[PlayedNote]:
    seconds = min(_SLIDE_SECONDS, _SLIDE_SHARE * note.duration_seconds)
    return _held(note, replace(expression, slide_cents=note.from_cents, slide_seconds=seconds))


Technique = Callable[[LineNote, Performer, np.random.Generator], list[PlayedNote]]

TECHNIQUES: dict[str, Technique] = {
    "legato": lambda note, who, rng: _held(note, who.expression),
    "staccato": lambda note, who, rng: _held(
        note, who.expression, min(_STACCATO_SHARE * note.duration_seconds, _STACCATO_SECONDS)
    ),
    "vibrato": lambda note, who, rng: _held(
        note, replace(who.expression, vibrato_hertz=who.vibrato_hertz, vibrato_cents=who.vibrato_cents)
    ),
    "tremolo": lambda note, who, rng: _strokes(note, who.expression, rng, 0),
    "trill": lambda note, who, rng: _strokes(note, who.expression, rng, 0, 2),
    "swell": lambda note, who, rng: _held(note, replace(who.expression, levels_db=_SWELL_DB)),
    "slide": lambda note, who, rng: _slide(note, who.expression),
    "accent": lambda note, who, rng: _held(note, replace(who.expression, levels_db=_ACCENT_DB)),
}
"""How each note of a line is played."""


def slide_from(interval: int) -> float:
    """Return where a slide over an interval in semitones begins, in cents from the note's own pitch."""
    return float(np.clip(100.0 * interval, -_FARTHEST_SLIDE, _FARTHEST_SLIDE))


def brighten(waveform: NDArray[np.float32], brightness_db: float) -> NDArray[np.float32]:
    """Make a sound (samples,) brighter or darker: nothing below 1 kHz, all of it above 4 kHz, without phase shift."""
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 1.0) / _DARK_HERTZ) / np.log2(_BRIGHT_HERTZ / _DARK_HERTZ)
    gain = 10 ** (brightness_db * np.clip(octaves, 0, 1) / 20)
    return np.fft.irfft(np.fft.rfft(waveform) * gain, len(waveform)).astype(np.float32)
