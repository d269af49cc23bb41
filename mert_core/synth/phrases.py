"""Phrases of a single line, played with one technique by one performer: in place of singers and vocal techniques."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, Split
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.instruments import INSTRUMENTS
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import Library
from mert_core.synth.performance import Performance, ScoreExcerpt, draw_excerpt, into_range
from mert_core.synth.pieces import Part
from mert_core.synth.render import Expression, PlayedNote, PlayedPart, mix_mono, render_stems
from mert_core.synth.rng import generator
from mert_core.synth.track import REDRAWS, Rendition, choose_piece, level_gain, probe_track, whole_samples

_MEDIAN_NOTE_SECONDS = (0.35, 0.6)  # long enough for a trill or a vibrato
_FEWEST_NOTES = 4
_SOUNDING_SHARE = 0.7  # of a phrase; the rest is rests
# How far a performer is from the usual on the day.
_LEVEL_SPREAD_DB, _BRIGHTNESS_SPREAD_DB, _TUNING_SPREAD_CENTS = 3.0, 2.5, 4.0
_DARK_HERTZ, _BRIGHT_HERTZ = 1000.0, 4000.0  # between them a performer's brightness sets in

_STACCATO_SHARE, _STACCATO_SECONDS = 0.35, 0.12
_STROKES_PER_SECOND = (10.0, 13.0)  # of a tremolo and of a trill
_STROKE_SHARE, _SHORTEST_STROKE_SECONDS = 0.9, 0.03  # of a stroke's time that it is held
_SLIDE_SECONDS, _SLIDE_SHARE = 0.16, 0.6  # the shorter of the two: absolute, and of the note
_FIRST_SLIDE = -3  # semitones: where the first note of a phrase slides from
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


TECHNIQUES = ("legato", "staccato", "vibrato", "tremolo", "trill", "swell", "slide", "accent")


def play_note(technique: str, note: LineNote, who: Performer, rng: np.random.Generator) -> list[PlayedNote]:
    """Play one note of a line with a technique; tremolo and trill divide it into short ones of equal length."""
    held, touch = note.duration_seconds, Expression(tuning_cents=who.tuning_cents, attack_seconds=who.attack_seconds)
    match technique:
        case "tremolo" | "trill":
            count = max(round(held * rng.uniform(*_STROKES_PER_SECOND)), 1)
            stroke = held / count
            held = max(_STROKE_SHARE * stroke, _SHORTEST_STROKE_SECONDS)
            steps = cycle((0, 2) if technique == "trill" else (0,))
            return [
                PlayedNote(note.onset_seconds + stroke * number, held, note.pitch + step, note.velocity, touch)
                for number, step in zip(range(count), steps, strict=False)
            ]
        case "staccato":
            held = min(_STACCATO_SHARE * held, _STACCATO_SECONDS)
        case "vibrato":
            touch = replace(touch, vibrato_hertz=who.vibrato_hertz, vibrato_cents=who.vibrato_cents)
        case "swell":
            touch = replace(touch, levels_db=_SWELL_DB)
        case "slide":
            seconds = min(_SLIDE_SECONDS, _SLIDE_SHARE * held)
            touch = replace(touch, slide_cents=note.from_cents, slide_seconds=seconds)
        case "accent":
            touch = replace(touch, levels_db=_ACCENT_DB)
    return [PlayedNote(note.onset_seconds, held, note.pitch, note.velocity, touch)]


def phrase_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one phrase: performers in turn, and techniques so that each performer has all of them in turn."""
    rng = generator(config.seed, "phrases", split, index)
    performer = PERFORMERS[index % len(PERFORMERS)]
    technique = TECHNIQUES[(index + index // len(PERFORMERS)) % len(TECHNIQUES)]
    samples = whole_samples(config.probe_set.phrase_seconds)
    for _ in range(REDRAWS):
        piece = choose_piece(library, split, int(rng.integers(len(library.composers))), rng)
        part = piece.parts[int(rng.integers(len(piece.parts)))]
        note_seconds = float(np.exp(rng.uniform(*np.log(_MEDIAN_NOTE_SECONDS))))
        tempo = float(np.median(part.durations)) * 60 / note_seconds
        excerpt = draw_excerpt(replace(piece, parts=(part,)), samples / SAMPLE_RATE, rng, tempo)
        line = single_line(excerpt.parts[0]) if excerpt.parts else None
        if line is None or len(line.onsets) < _FEWEST_NOTES or sum(line.durations) < _SOUNDING_SHARE * excerpt.length:
            continue
        rendition = _sing(excerpt, line, performer, technique, samples, rng)
        if rendition is not None:
            return probe_track(
                f"phrase-{split}-{index:05d}", rendition, "phrase", technique=technique, performer=performer.name
            )
    raise MertError(
        f"no {split} piece has a phrase of {_FEWEST_NOTES} notes in {samples / SAMPLE_RATE:g} s, though {REDRAWS} were "
        "tried; raise probe_set.phrase_seconds or pieces.per_composer"
    )


def single_line(part: Part) -> Part:
    """Return the highest note at each onset, none longer than to the next."""
    highest: dict[float, tuple[int, float]] = {}
    for onset, duration, pitch in zip(part.onsets, part.durations, part.pitches, strict=True):
        if onset not in highest or pitch > highest[onset][0]:
            highest[onset] = pitch, duration
    onsets = sorted(highest)
    ends = [*onsets[1:], np.inf]
    return Part(
        tuple(onsets),
        tuple(float(min(highest[onset][1], end - onset)) for onset, end in zip(onsets, ends, strict=True)),
        tuple(highest[onset][0] for onset in onsets),
    )


def _sing(
    excerpt: ScoreExcerpt, line: Part, performer: Performer, technique: str, samples: int, rng: np.random.Generator
) -> Rendition | None:
    """Play a line; None where it can hardly be heard."""
    spreads = (_LEVEL_SPREAD_DB, _BRIGHTNESS_SPREAD_DB, _TUNING_SPREAD_CENTS)
    level, brightness, tuning = (float(rng.uniform(-spread, spread)) for spread in spreads)
    performer = replace(
        performer,
        level_db=performer.level_db + level,
        brightness_db=performer.brightness_db + brightness,
        tuning_cents=performer.tuning_cents + tuning,
    )
    # the line at the octave where the performer is at home, with the performer's timing
    instrument = next(one for one in INSTRUMENTS if one.program == performer.program)
    octaves = round(((instrument.lowest + instrument.highest) / 2 - float(np.mean(line.pitches))) / 12)
    pitches = [into_range(pitch + 12 * octaves, instrument) for pitch in line.pitches]
    late = rng.normal(0, performer.looseness_seconds, len(pitches))
    velocities = np.clip(np.rint(rng.normal(85, 6, len(pitches))), 60, 110).astype(int).tolist()
    starts = np.clip(np.array(line.onsets) * excerpt.quarter_seconds + late, 0, samples / SAMPLE_RATE - 0.05).tolist()
    seconds = [duration * excerpt.quarter_seconds for duration in line.durations]
    intervals = np.diff(pitches, prepend=pitches[0] + _FIRST_SLIDE)
    slides = np.clip(-100.0 * intervals, -_FARTHEST_SLIDE, _FARTHEST_SLIDE).tolist()
    notes = [
        stroke
        for note in map(LineNote, starts, seconds, pitches, velocities, slides)
        for stroke in play_note(technique, note, performer, rng)
    ]
    part = PlayedPart(tuple(notes), performer.program, 1.0, 0.0)

    waveform = brighten(mix_mono(render_stems([part], samples)), performer.brightness_db)
    gain = level_gain(waveform, performer.level_db)
    if gain is None:
        return None
    performance = Performance(
        parts=(part,),
        families=(instrument.family,),
        beats=(),
        key=UNKNOWN_KEY,
        transposition=excerpt.transposition,
        quarters_per_minute=excerpt.quarters_per_minute,
        start_bar=excerpt.start_bar,
    )
    return Rendition(excerpt.piece, performance, waveform * np.float32(gain), gain)


def brighten(waveform: NDArray[np.float32], brightness_db: float) -> NDArray[np.float32]:
    """Make a sound (samples,) brighter or darker: nothing below 1 kHz, all of it above 4 kHz, without phase shift."""
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 1.0) / _DARK_HERTZ) / np.log2(_BRIGHT_HERTZ / _DARK_HERTZ)
    gain = 10 ** (brightness_db * np.clip(octaves, 0, 1) / 20)
    return np.fft.irfft(np.fft.rfft(waveform) * gain, len(waveform)).astype(np.float32)
