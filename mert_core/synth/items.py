"""Items of the probe set: excerpts with a key, single notes, excerpts with a steady pulse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mert_core.config import Config, Split
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.descriptors import describe
from mert_core.synth.instruments import FAMILIES, NOTE_FAMILIES, NOTE_HIGHEST, NOTE_LOWEST
from mert_core.synth.labels import UNKNOWN_KEY
from mert_core.synth.library import Library
from mert_core.synth.performance import Performance
from mert_core.synth.pieces import Piece
from mert_core.synth.render import PlayedNote, PlayedPart
from mert_core.synth.rng import generator
from mert_core.synth.track import (
    REDRAWS,
    Rendition,
    as_track,
    choose_piece,
    draw_rendition,
    render_performance,
    whole_samples,
)

_NOTE_DELAY_SECONDS = 0.1
_SHORTEST_NOTE_SHARE = 0.6  # of a single-note item

_BEATS_PER_MINUTE = (55.0, 215.0)
_FEWEST_BEATS = 4
_STEADY = 1.02  # longest over shortest time between beats
_ON_THE_BEAT_SECONDS = 0.02
_HEARD_BEATS = 0.75  # share of the beats on which some note begins
_PATIENCE = 50  # draws; a few pieces of one composer may all be too free


def probe_track(track_id: str, rendition: Rendition, kind: str, **own: Any) -> SourceTrack:
    """Return an item of the probe set; labels that its kind does not have are empty."""
    labels = {"kind": kind, "pitch": np.int16(-1), "family": "", "technique": "", "performer": "", "mix": "", **own}
    track = as_track(track_id, rendition, labels)
    return replace(track, labels={**(track.labels or {}), **describe(track)})


def mix_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one excerpt with a certain key."""
    rng = generator(config.seed, "mixes", split, index)
    samples = whole_samples(config.probe_set.mix_seconds)
    rendition = draw_rendition(
        library, split, index, samples, rng, lambda one: one.key != UNKNOWN_KEY, "has a certain key"
    )
    return probe_track(f"mix-{split}-{index:05d}", rendition, "mix")


def rhythm_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one excerpt whose beats are steady and can be heard."""
    rng = generator(config.seed, "rhythms", split, index)
    samples = whole_samples(config.probe_set.rhythm_seconds)
    rendition = draw_rendition(library, split, index, samples, rng, has_steady_pulse, "has a steady pulse", _PATIENCE)
    return probe_track(f"rhythm-{split}-{index:05d}", rendition, "rhythm")


def has_steady_pulse(performance: Performance) -> bool:
    """Return whether beats are equally far apart, neither too slow nor too fast, and notes begin on most of them."""
    beats = np.array([seconds for seconds, _ in performance.beats])
    if len(beats) < _FEWEST_BEATS:
        return False
    between = np.diff(beats)
    slowest, fastest = _BEATS_PER_MINUTE
    if between.max() > _STEADY * between.min() or not slowest <= 60 / between.mean() <= fastest:
        return False
    onsets = np.array([note.onset_seconds for part in performance.parts for note in part.notes])
    nearest = np.abs(beats[:, None] - onsets[None, :]).min(axis=1, initial=np.inf)
    return bool(np.mean(nearest <= _ON_THE_BEAT_SECONDS) >= _HEARD_BEATS)


def note_item(config: Config, library: Library, split: Split, index: int) -> SourceTrack:
    """Play one note of a score alone: families in turn, pitches evenly over what the instrument can play.

    The score's note is moved to its pitch by one of the twelve transpositions.
    """
    rng = generator(config.seed, "notes", split, index)
    family = NOTE_FAMILIES[index % len(NOTE_FAMILIES)]
    samples = whole_samples(config.probe_set.note_seconds)
    for _ in range(REDRAWS):
        programs = sorted(FAMILIES[family])
        program = programs[int(rng.integers(len(programs)))]
        lowest, highest = FAMILIES[family][program]
        pitch = int(rng.integers(max(lowest, NOTE_LOWEST), min(highest, NOTE_HIGHEST) + 1))
        piece = choose_piece(library, split, int(rng.integers(len(library.composers))), rng)
        note_in_score = _find_note(piece, pitch, rng)
        if note_in_score is None:
            continue
        transposition, quarters = note_in_score
        delay = float(rng.uniform(0, _NOTE_DELAY_SECONDS))
        room = config.probe_set.note_seconds - delay
        quarter_seconds = float(np.exp(rng.uniform(*np.log((0.4, 0.9)))))
        held = float(np.clip(quarters * quarter_seconds, _SHORTEST_NOTE_SHARE * room, room))
        note = PlayedNote(delay, held, pitch, int(rng.integers(40, 121)))
        part = PlayedPart((note,), program, 1.0, float(rng.uniform(-0.8, 0.8)))
        performance = Performance((part,), (family,), (), UNKNOWN_KEY, transposition, 60 / quarter_seconds, -1)
        rendition = render_performance(piece, performance, samples, rng)
        if rendition is not None:
            return probe_track(f"note-{split}-{index:05d}", rendition, "note", pitch=np.int16(pitch), family=family)
    raise MertError(f"no {split} piece has a note for {family}, though {REDRAWS} were tried; raise pieces.per_composer")


def _find_note(piece: Piece, pitch: int, rng: np.random.Generator) -> tuple[int, float] | None:
    """Return a transposition that brings some note of the piece to a pitch, and that note's length in quarters."""
    pitches = np.concatenate([part.pitches for part in piece.parts])
    durations = np.concatenate([part.durations for part in piece.parts])
    near = np.flatnonzero((pitch - pitches >= -6) & (pitch - pitches <= 5))
    if not near.size:
        return None
    chosen = int(near[rng.integers(near.size)])
    return pitch - int(pitches[chosen]), float(durations[chosen])
