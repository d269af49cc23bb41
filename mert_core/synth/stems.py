"""Mixtures of four stems by role: vocals, drums, bass and the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, Split
from mert_core.data.shards import to_float32, to_int16
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.instruments import FAMILIES, INSTRUMENTS
from mert_core.synth.library import Library
from mert_core.synth.performance import ScoreExcerpt, draw_excerpt, draw_instruments, perform
from mert_core.synth.render import PlayedNote, PlayedPart, mix_mono, render_stems
from mert_core.synth.rng import generator
from mert_core.synth.track import (
    LEVELS_DB,
    PEAK,
    REDRAWS,
    SILENT_RMS,
    Rendition,
    level_gain,
    probe_track,
    rms,
    whole_samples,
)

ROLES = ("vocals", "drums", "bass", "other")
PERCUSSION = "percussion"

# Programs of General MIDI's percussive family that sound unpitched, and the keys that they are struck at.
_LOW_DRUMS: dict[int, tuple[int, int]] = {116: (50, 60), 117: (34, 44)}  # taiko, melodic tom
_HIGH_DRUMS: dict[int, tuple[int, int]] = {117: (62, 72), 118: (64, 76)}  # melodic tom, synth drum
_TICKS: dict[int, tuple[int, int]] = {115: (76, 90)}  # woodblock
_DRUM_SECONDS = 0.15
_FEWEST_BEATS = 3
_SUBDIVIDE_SECONDS = 0.3  # a tick between two beats that are further apart

_FEWEST_PARTS = 3
_BASS_MEAN_PITCH = 46  # the lowest part moves down by octaves until it is there
_BALANCE_DB = (-4.0, 4.0)  # of a stem, against equally loud ones


def stem_items(config: Config, library: Library, split: Split, index: int) -> list[SourceTrack]:
    """Play one mixture: the track of the whole, then one track per role, whose sum it is, sample by sample.

    Every stem is rounded to 16 bits first, and the whole is the sum of those: int16 adds up without another rounding.
    """
    rng = generator(config.seed, "stems", split, index)
    samples = whole_samples(config.probe_set.stem_seconds)
    pieces = [piece for piece in library.of(split) if len(piece.parts) >= _FEWEST_PARTS]
    composers = sorted({piece.composer for piece in pieces})
    for _ in range(REDRAWS if pieces else 0):
        mine = [piece for piece in pieces if piece.composer == composers[index % len(composers)]]
        excerpt = draw_excerpt(mine[int(rng.integers(len(mine)))], samples / SAMPLE_RATE, rng)
        if len(excerpt.parts) < _FEWEST_PARTS:
            continue
        stems = _play(excerpt, samples, rng)
        if stems is None:
            continue
        mix, first = f"stem-{split}-{index:05d}", stems[ROLES[0]]
        performances = [stems[role].performance for role in ROLES]
        whole = replace(
            first,
            performance=replace(
                first.performance,
                parts=tuple(part for one in performances for part in one.parts),
                families=tuple(family for one in performances for family in one.families),
            ),
            waveform=np.stack([stems[role].waveform for role in ROLES]).sum(axis=0),
        )
        return [
            probe_track(mix, whole, "stem:mix", mix=mix),
            *(probe_track(f"{mix}-{role}", stems[role], f"stem:{role}", mix=mix) for role in ROLES),
        ]
    raise MertError(
        f"no {split} piece has {_FEWEST_PARTS} parts and a beat in {samples / SAMPLE_RATE:g} s, "
        f"though {REDRAWS} were tried; raise pieces.per_composer"
    )


def _play(excerpt: ScoreExcerpt, samples: int, rng: np.random.Generator) -> dict[str, Rendition] | None:
    """Return each role's performance and sound at its final level; None where one can hardly be heard."""
    # the highest part on average sings, the lowest is the bass, at an octave where basses play
    means = [float(np.mean(part.pitches)) for part in excerpt.parts]
    roles = ["other"] * len(means)
    bass = int(np.argmin(means))
    roles[bass] = "bass"
    roles[int(np.argmax(means)) if max(means) > min(means) else bass - 1] = "vocals"
    octaves = max(int(np.ceil((means[bass] - _BASS_MEAN_PITCH) / 12)), 0)
    lowered = tuple(pitch - 12 * octaves for pitch in excerpt.parts[bass].pitches)
    parts = list(excerpt.parts)
    parts[bass] = replace(parts[bass], pitches=lowered)
    families = {"vocals": ("voice",), "bass": ("bass",)}
    others = tuple(family for family in FAMILIES if family not in ("voice", "bass"))
    instruments = []
    for part, role in zip(parts, roles, strict=True):
        among = [one for one in INSTRUMENTS if one.family in families.get(role, others)]
        instruments += draw_instruments([part.pitches], rng, among)
    performance = perform(replace(excerpt, parts=tuple(parts)), instruments, rng)
    if len(performance.beats) < _FEWEST_BEATS:
        return None
    played: dict[str, list[tuple[PlayedPart, str]]] = {role: [] for role in ROLES}
    for role, one, family in zip(roles, performance.parts, performance.families, strict=True):
        played[role].append((one, family))
    played["drums"] = [(one, PERCUSSION) for one in _drums(performance.beats, rng)]

    # stems equally loud but for a random balance, then the level of the whole
    sounds = {role: mix_mono(render_stems([one for one, _ in played[role]], samples)) for role in ROLES}
    loudness = {role: rms(waveform) for role, waveform in sounds.items()}
    if min(loudness.values()) < SILENT_RMS:
        return None
    gains = {role: 10 ** (float(rng.uniform(*_BALANCE_DB)) / 20) / loudness[role] for role in ROLES}
    balanced = np.stack([sounds[role] * np.float32(gains[role]) for role in ROLES])
    whole = level_gain(balanced.sum(axis=0), float(rng.uniform(*LEVELS_DB)))
    if whole is None:
        return None
    whole = min(whole, PEAK / float(np.abs(balanced).max()))  # a stem can be louder than the sum
    return {
        role: Rendition(
            excerpt.piece,
            replace(
                performance,
                parts=tuple(replace(one, gain=one.gain * gains[role]) for one, _ in played[role]),
                families=tuple(family for _, family in played[role]),
            ),
            to_float32(to_int16(waveform * np.float32(whole))[0]),
            whole,
        )
        for role, waveform in zip(ROLES, balanced, strict=True)
    }


def _drums(beats: tuple[tuple[float, bool], ...], rng: np.random.Generator) -> list[PlayedPart]:
    """Return a low drum on downbeats, a high one on every second beat after, and ticks on and between all beats."""
    low: list[tuple[float, int]] = []  # seconds, velocity
    high: list[tuple[float, int]] = []
    tick: list[tuple[float, int]] = []
    since_downbeat = 0
    for number, (seconds, downbeat) in enumerate(beats):
        since_downbeat = 0 if downbeat else since_downbeat + 1
        if since_downbeat % 2 == 0:
            low.append((seconds, 105 if downbeat else 85))
        else:
            high.append((seconds, 95))
        tick.append((seconds, 80))
        following = beats[number + 1][0] if number + 1 < len(beats) else seconds
        if following - seconds > _SUBDIVIDE_SECONDS:
            tick.append(((seconds + following) / 2, 60))
    parts = []
    for hits, choice in ((low, _LOW_DRUMS), (high, _HIGH_DRUMS), (tick, _TICKS)):
        program = sorted(choice)[int(rng.integers(len(choice)))]
        lowest, highest = choice[program]
        pitch = int(rng.integers(lowest, highest + 1))
        accents = rng.normal(0, 6, len(hits)).tolist()
        notes = tuple(
            PlayedNote(seconds, _DRUM_SECONDS, pitch, int(np.clip(round(velocity + accent), 25, 127)))
            for (seconds, velocity), accent in zip(hits, accents, strict=True)
        )
        parts.append(PlayedPart(notes, program, 10 ** (float(rng.uniform(-6, 0)) / 20), 0.0))
    return parts
