"""A performance of an excerpt: everything a player would choose, drawn from one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mert_core.synth.instruments import INSTRUMENTS, Instrument
from mert_core.synth.labels import UNKNOWN_KEY, krumhansl_schmuckler, notated_key, pitch_class_times, transpose_key
from mert_core.synth.pieces import Part, Piece
from mert_core.synth.render import PlayedNote, PlayedPart

_MEDIAN_NOTE_SECONDS = 0.42  # of a score without a tempo
_TEMPO_FACTORS = (0.75, 1.35)
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 12.0
_ENSEMBLE_CHANCE = 0.4  # all parts from one family: a piano piece, a string quartet, a choir


@dataclass(frozen=True)
class Performance:
    """What is played, and what is true about it.

    Attributes:
        parts: notes in seconds from the excerpt's start, with program, gain and pan.
        families: instrument family of each part.
        beats: (seconds, downbeat), rising.
        key: 0-11 major from C, 12-23 minor, -1 unknown; as played.
        transposition: semitones, -6 to 5.
        quarters_per_minute: as played.
        start_bar: number of the measure it starts with, from 0.
    """

    parts: tuple[PlayedPart, ...]
    families: tuple[str, ...]
    beats: tuple[tuple[float, bool], ...]
    key: int
    transposition: int
    quarters_per_minute: float
    start_bar: int


@dataclass(frozen=True)
class ScoreExcerpt:
    """A stretch of a piece before anybody plays it; onsets, durations and lengths in quarter notes.

    Attributes:
        parts: notes of the parts that sound, transposed; onsets from the stretch's start.
        start: onset in the piece.
        key, transposition, quarters_per_minute, start_bar: as of a `Performance`.
    """

    piece: Piece
    parts: tuple[Part, ...]
    start: float
    length: float
    key: int
    transposition: int
    quarters_per_minute: float
    start_bar: int

    @property
    def quarter_seconds(self) -> float:
        """Length of a quarter note as played."""
        return 60 / self.quarters_per_minute


def draw_performance(piece: Piece, seconds: float, rng: np.random.Generator) -> Performance:
    """Draw an excerpt of a piece and how it is played, by whichever instruments reach its notes."""
    excerpt = draw_excerpt(piece, seconds, rng)
    return perform(excerpt, draw_instruments([part.pitches for part in excerpt.parts], rng), rng)


def draw_excerpt(
    piece: Piece, seconds: float, rng: np.random.Generator, quarters_per_minute: float | None = None
) -> ScoreExcerpt:
    """Draw transposition, tempo (unless it is given) and measure.

    It starts with a measure. A piece that is too short, or an excerpt that reaches its end, begins again from the top.
    """
    transposition = int(rng.integers(-6, 6))
    tempo = quarters_per_minute
    if tempo is None:
        durations = np.concatenate([part.durations for part in piece.parts])
        written = piece.quarters_per_minute or float(np.median(durations)) * 60 / _MEDIAN_NOTE_SECONDS
        tempo = float(written * np.exp(rng.uniform(*np.log(_TEMPO_FACTORS))))
    length = seconds * tempo / 60
    fitting = [index for index, bar in enumerate(piece.bars) if bar.onset + length <= piece.length]
    start_bar = int(rng.choice(fitting)) if fitting else int(rng.integers(len(piece.bars)))
    start = piece.bars[start_bar].onset
    cut = [_cut(part, start, length, piece.length) for part in piece.parts]
    sounding = [part for part in cut if part.onsets]
    # the key stands if the signature and the excerpt's own notes agree on it
    wraps = start + length > piece.length
    key = notated_key(piece, 0.0 if wraps else start, piece.length if wraps else start + length)
    if krumhansl_schmuckler(pitch_class_times(sounding)) != key:
        key = UNKNOWN_KEY
    return ScoreExcerpt(
        piece=piece,
        parts=tuple(replace(part, pitches=tuple(pitch + transposition for pitch in part.pitches)) for part in sounding),
        start=start,
        length=length,
        key=transpose_key(key, transposition),
        transposition=transposition,
        quarters_per_minute=tempo,
        start_bar=start_bar,
    )


def perform(excerpt: ScoreExcerpt, instruments: list[Instrument], rng: np.random.Generator) -> Performance:
    """Draw how an excerpt is played by given instruments, one for each of its parts."""
    playing = zip(excerpt.parts, instruments, strict=True)
    return Performance(
        parts=tuple(_play(part, instrument, excerpt.quarter_seconds, rng) for part, instrument in playing),
        families=tuple(instrument.family for instrument in instruments),
        beats=_beats(excerpt),
        key=excerpt.key,
        transposition=excerpt.transposition,
        quarters_per_minute=excerpt.quarters_per_minute,
        start_bar=excerpt.start_bar,
    )


def _cut(part: Part, start: float, length: float, piece_length: float) -> Part:
    """Cut [start, start + length) out of a part that begins again after its end; onsets count from ``start``."""
    onsets, durations, pitches = np.array(part.onsets), np.array(part.durations), np.array(part.pitches)
    rows: list[tuple[float, float, int]] = []
    offset = -start
    while offset < length:
        begins = np.maximum(onsets + offset, 0)
        ends = np.minimum(onsets + offset + durations, length)
        heard = np.flatnonzero(ends - begins > 1e-3)
        rows += zip(begins[heard].tolist(), (ends - begins)[heard].tolist(), pitches[heard].tolist(), strict=True)
        offset += piece_length
    return Part(*zip(*rows, strict=True)) if rows else Part((), (), ())


def draw_instruments(
    pitches: list[tuple[int, ...]], rng: np.random.Generator, among: Sequence[Instrument] = INSTRUMENTS
) -> list[Instrument]:
    """Draw family, then program, among those that can play each part; never looking at who wrote the music."""
    possible = []
    for part in pitches:  # a part too wide for all of them: those that miss the fewest of its notes
        missed = [sum(not one.lowest <= pitch <= one.highest for pitch in part) for one in among]
        possible.append([one for one, count in zip(among, missed, strict=True) if count == min(missed)])
    shared = sorted(set.intersection(*({one.family for one in fitting} for fitting in possible))) if possible else []
    ensemble = shared[int(rng.integers(len(shared)))] if shared and rng.random() < _ENSEMBLE_CHANCE else None
    chosen = []
    for fitting in possible:
        families = sorted({one.family for one in fitting})
        family = ensemble or families[int(rng.integers(len(families)))]
        programs = [one for one in fitting if one.family == family]
        chosen.append(programs[int(rng.integers(len(programs)))])
    return chosen


def into_range(pitch: int, instrument: Instrument) -> int:
    """Move a pitch by octaves into an instrument's range."""
    while pitch < instrument.lowest:
        pitch += 12
    while pitch > instrument.highest:
        pitch -= 12
    return pitch


def _play(part: Part, instrument: Instrument, quarter_seconds: float, rng: np.random.Generator) -> PlayedPart:
    """Draw loudness with swells and accents, articulation, gain and panorama of one part."""
    loudness = rng.uniform(55, 105)
    articulation = rng.uniform(0.75, 1.0)
    swell, phase = rng.uniform(0, 14), rng.uniform(0, 2 * np.pi)
    period = rng.uniform(4, 12)  # seconds from one loud moment to the next
    notes = []
    accents = rng.normal(0, 5, size=len(part.pitches))
    for onset, duration, pitch, accent in zip(part.onsets, part.durations, part.pitches, accents.tolist(), strict=True):
        seconds = onset * quarter_seconds
        velocity = loudness + swell * np.sin(2 * np.pi * seconds / period + phase) + accent
        held = float(np.clip(duration * quarter_seconds * articulation, _SHORTEST_SECONDS, _LONGEST_SECONDS))
        notes.append(PlayedNote(seconds, held, into_range(pitch, instrument), int(np.clip(round(velocity), 25, 127))))
    gain = 10 ** (rng.uniform(-6, 0) / 20)
    return PlayedPart(tuple(notes), instrument.program, gain, float(rng.uniform(-0.8, 0.8)))


def _beats(excerpt: ScoreExcerpt) -> tuple[tuple[float, bool], ...]:
    """Return the beats that the score's measures give, (seconds, downbeat), rising."""
    beats = []
    offset = -excerpt.start
    while offset < excerpt.length:
        for bar in excerpt.piece.bars:
            for index, beat in enumerate(bar.beats):
                if -1e-6 <= beat + offset < excerpt.length - 1e-6:
                    seconds = max(beat + offset, 0.0) * excerpt.quarter_seconds
                    beats.append((seconds, bar.downbeat and index == 0))
        offset += excerpt.piece.length
    return tuple(beats)
