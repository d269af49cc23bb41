"""Moods, genres and descriptors follow from the rows of notes and beats, by rules that are written out again here."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import pretty_midi
import pytest

from mert_core.data.track import SourceTrack
from mert_core.synth.descriptors import describe
from mert_core.synth.instruments import INSTRUMENTS, PROGRAM_NAMES
from mert_core.synth.library import COLLECTIONS


def _milliseconds(note: dict[str, Any]) -> int:
    return round(float(note["onset_seconds"]) * 1000)


def _by_hand(track: SourceTrack) -> tuple[set[str], set[str]]:
    """Return moods and genres, by plain loops."""
    assert track.notes and track.labels and track.beats is not None
    parts = defaultdict(list)
    for note in track.notes:
        parts[int(note["part"])].append(note)
    gaps, pairs, onsets = [], 0, set()
    for notes in parts.values():
        own = sorted({_milliseconds(note) for note in notes})
        gaps += [(later - earlier) / 1000 for earlier, later in pairwise(own)]
        pairs += len(own)
        onsets |= set(own)
    moods, genres = set(), set(COLLECTIONS[track.artist].genres)
    if gaps:
        moods |= {"slow"} if median(gaps) >= 0.5 else set()
        moods |= {"fast"} if median(gaps) <= 0.33 else set()
    rate = len(track.notes) / (len(track.waveform) / 24000)
    moods |= {"sparse"} if rate <= 3 else {"dense"} if rate >= 9 else set()
    level = 10 * math.log10(float(np.mean(track.waveform.astype(np.float64) ** 2)))
    moods |= {"soft"} if level <= -25 else {"loud"} if level >= -19 else set()
    held = sum(float(note["duration_seconds"]) for note in track.notes)
    mean = sum(float(note["duration_seconds"]) * int(note["pitch"]) for note in track.notes) / held
    moods |= {"low"} if mean < 60 else {"high"} if mean >= 69 else set()
    highest = max(parts.values(), key=lambda notes: sum(int(note["pitch"]) for note in notes) / len(notes))
    line: dict[int, int] = {}
    for note in highest:
        line[_milliseconds(note)] = max(line.get(_milliseconds(note), 0), int(note["pitch"]))
    tune = [line[onset] for onset in sorted(line)]
    if len(tune) > 1:
        interval = sum(abs(b - a) for a, b in pairwise(tune)) / (len(tune) - 1)
        moods |= {"stepwise"} if interval <= 1.5 else {"leaping"} if interval >= 3 else set()
    key = int(track.labels["key"])
    if key >= 0:
        scale = [0, 2, 4, 5, 7, 9, 11] if key < 12 else [0, 2, 3, 5, 7, 8, 9, 10, 11]
        foreign = sum(
            float(note["duration_seconds"]) for note in track.notes if (int(note["pitch"]) - key) % 12 not in scale
        )
        moods |= {"major"} if key < 12 else {"minor"}
        moods |= {"chromatic"} if foreign / held >= 0.05 else set()
    together = pairs / len(onsets) / len(parts)
    if len(parts) == 1:
        genres.add("solo")
    elif together <= 0.5:
        genres.add("polyphonic")
    elif together >= 0.7:
        genres.add("homophonic")
    downbeats = [number for number, beat in enumerate(track.beats) if beat["downbeat"]]
    if downbeats[1:2] == [downbeats[0] + 3] if downbeats else False:
        genres.add("triple")
    return moods, genres


def test_tags_are_what_the_rules_say(items: list[SourceTrack]) -> None:
    seen: set[str] = set()
    for track in items:
        assert track.labels
        moods, genres = _by_hand(track)
        assert track.labels["moods"] == sorted(moods), track.track_id
        assert track.labels["genres"] == sorted(genres), track.track_id
        seen |= moods | genres
    assert {"slow", "fast", "sparse", "dense", "soft", "loud", "low", "high", "major", "minor", "stepwise"} <= seen
    assert {"baroque", "sacred", "vocal", "dance", "folk", "solo", "homophonic", "polyphonic"} <= seen


def test_descriptors_are_density_and_register(items: list[SourceTrack]) -> None:
    for track in items:
        assert track.notes and track.labels
        seconds = len(track.waveform) / 24000
        assert track.labels["density"] == pytest.approx(math.log(len(track.notes) / seconds), rel=1e-6)
        held = [float(note["duration_seconds"]) for note in track.notes]
        pitch = sum(hold * int(note["pitch"]) for hold, note in zip(held, track.notes, strict=True)) / sum(held)
        assert track.labels["register"] == pytest.approx(pitch, rel=1e-6)


def test_one_changed_fact_changes_its_tag(items: list[SourceTrack]) -> None:
    mix = next(item for item in items if item.labels and item.labels["kind"] == "mix" and item.labels["key"] < 12)
    assert mix.labels and mix.notes
    minor = replace(mix, labels={**mix.labels, "key": np.int16(12)})
    assert "major" in describe(mix)["moods"]
    assert {"minor", "major"} & set(describe(minor)["moods"]) == {"minor"}
    quiet = replace(mix, waveform=mix.waveform * np.float32(0.01))
    assert "soft" in describe(quiet)["moods"]
    down = replace(mix, notes=[{**note, "pitch": np.int16(note["pitch"] - 24)} for note in mix.notes])
    assert describe(down)["register"] == pytest.approx(describe(mix)["register"] - 24, abs=1e-4)
    assert "low" in describe(down)["moods"]
    solo = replace(mix, notes=[{**note, "part": np.int16(0)} for note in mix.notes])
    assert "solo" in describe(solo)["genres"]


def test_programs_have_general_midis_names() -> None:
    assert set(PROGRAM_NAMES) == {one.program for one in INSTRUMENTS}
    assert len(set(PROGRAM_NAMES.values())) == len(PROGRAM_NAMES)
    for program, name in PROGRAM_NAMES.items():
        assert name == pretty_midi.program_to_instrument_name(program).lower()
