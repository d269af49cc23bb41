"""Phrases of a single line, played with one technique by one performer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, Split
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.items import probe_track
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import Library
from mert_core.synth.performance import Performance, ScoreExcerpt, draw_excerpt, into_range
from mert_core.synth.performers import PERFORMERS, TECHNIQUES, LineNote, Performer, brighten, slide_from
from mert_core.synth.pieces import Part
from mert_core.synth.render import PlayedPart, mix_mono, render_stems
from mert_core.synth.rng import generator
from mert_core.synth.track import REDRAWS, Rendition, choose_piece, level_gain, whole_samples

_MEDIAN_NOTE_SECONDS = (0.35, 0.6)  # long enough for a trill or a vibrato
_FEWEST_NOTES = 4
_SOUNDING_SHARE = 0.7  # of a phrase; the rest is rests
# How far a performer is from the usual on the day.
_LEVEL_SPREAD_DB, _BRIGHTNESS_SPREAD_DB, _TUNING_SPREAD_CENTS = 3.0, 2.5, 4.0
_FIRST_SLIDE = -3  # semitones: where the first note of a phrase slides from


def phrase_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one phrase: performers in turn, and techniques so that each performer has all of them in turn."""
    rng = generator(config.seed, "phrases", split, index)
    performer = PERFORMERS[index % len(PERFORMERS)]
    technique = list(TECHNIQUES)[(index + index // len(PERFORMERS)) % len(TECHNIQUES)]
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
    highest: dict[float, tuple[float, int]] = {}
    for onset, duration, pitch in zip(part.onsets, part.durations, part.pitches, strict=True):
        if onset not in highest or pitch > highest[onset][1]:
            highest[onset] = (duration, pitch)
    onsets = sorted(highest)
    ends = [*onsets[1:], np.inf]
    return Part(
        tuple(onsets),
        tuple(float(min(highest[onset][0], end - onset)) for onset, end in zip(onsets, ends, strict=True)),
        tuple(highest[onset][1] for onset in onsets),
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
    notes = [
        stroke
        for note in _line_notes(line, performer, excerpt.quarter_seconds, samples / SAMPLE_RATE, rng)
        for stroke in TECHNIQUES[technique](note, performer, rng)
    ]
    part = PlayedPart(tuple(notes), performer.program, 1.0, 0.0)
    waveform = brighten(mix_mono(render_stems([part], samples)), performer.brightness_db)
    gain = level_gain(waveform, performer.level_db)
    if gain is None:
        return None
    performance = Performance(
        parts=(part,),
        families=(performer.instrument.family,),
        beats=(),
        key=UNKNOWN_KEY,
        transposition=excerpt.transposition,
        quarters_per_minute=excerpt.quarters_per_minute,
        start_bar=excerpt.start_bar,
    )
    return Rendition(excerpt.piece, performance, waveform * np.float32(gain), gain)


def _line_notes(
    line: Part, performer: Performer, quarter_seconds: float, seconds: float, rng: np.random.Generator
) -> list[LineNote]:
    """Return a line at the octave where the performer is at home, with the performer's timing."""
    instrument = performer.instrument
    octaves = round(((instrument.lowest + instrument.highest) / 2 - float(np.mean(line.pitches))) / 12)
    pitches = [into_range(pitch + 12 * octaves, instrument) for pitch in line.pitches]
    before = [pitches[0] + _FIRST_SLIDE, *pitches[:-1]]
    late = rng.normal(0, performer.looseness_seconds, len(pitches))
    velocities = np.clip(np.rint(rng.normal(85, 6, len(pitches))), 60, 110).astype(int)
    starts = np.clip(np.array(line.onsets) * quarter_seconds + late, 0, seconds - 0.05)
    return [
        LineNote(
            onset_seconds=float(start),
            duration_seconds=duration * quarter_seconds,
            pitch=pitch,
            velocity=int(velocity),
            from_cents=slide_from(previous - pitch),
        )
        for start, duration, pitch, velocity, previous in zip(
            starts, line.durations, pitches, velocities, before, strict=True
        )
    ]
