"""Moods, genres and descriptors follow from the rows of notes and beats, by rules that are written out again here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import pytest

from mert_core.data.track import SourceTrack
from mert_core.synth.library import COLLECTIONS
from mert_core.synth.track import describe


def _milliseconds(note: dict[str, Any]) -> int:
    return round(float(note["onset_seconds"]) * 1000)


def _by_hand(track: SourceTrack) -> dict[str, Any]:
    """Return moods, genres and descriptors, by plain loops."""
    assert track.notes and track.labels and track.beats is not None
    parts = defaultdict(list)
    for note in track.notes:
        parts[int(note["part"])].append(note)
    own = [sorted({_milliseconds(note) for note in notes}) for notes in parts.values()]
    gaps = [(later - earlier) / 1000 for onsets in own for earlier, later in pairwise(onsets)]
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
    line: dict[int, int] = {}
    for note in max(parts.values(), key=lambda notes: sum(int(note["pitch"]) for note in notes) / len(notes)):
        line[_milliseconds(note)] = max(line.get(_milliseconds(note), 0), int(note["pitch"]))
    tune = [line[onset] for onset in sorted(line)]
    if len(tune) > 1:
        interval = sum(abs(b - a) for a, b in pairwise(tune)) / (len(tune) - 1)
        moods |= {"stepwise"} if interval <= 1.5 else {"leaping"} if interval >= 3 else set()
    key = int(track.labels["key"])
    if key >= 0:
        scale = [0, 2, 4, 5, 7, 9, 11] if key < 12 else [0, 2, 3, 5, 7, 8, 9, 10, 11]
        out = sum(float(one["duration_seconds"]) for one in track.notes if (int(one["pitch"]) - key) % 12 not in scale)
        moods |= {"major"} if key < 12 else {"minor"}
        moods |= {"chromatic"} if out / held >= 0.05 else set()
    together = sum(map(len, own)) / len(set().union(*own)) / len(parts)
    if len(parts) == 1:
        genres.add("solo")
    else:
        genres |= {"polyphonic"} if together <= 0.5 else {"homophonic"} if together >= 0.7 else set()
    downbeats = [number for number, beat in enumerate(track.beats) if beat["downbeat"]]
    genres |= {"triple"} if downbeats and downbeats[1:2] == [downbeats[0] + 3] else set()
    descriptors = {"density": pytest.approx(math.log(rate), rel=1e-6), "register": pytest.approx(mean, rel=1e-6)}
    return {"moods": sorted(moods), "genres": sorted(genres), **descriptors}


def test_tags_and_descriptors_are_what_the_rules_say(items: list[SourceTrack]) -> None:
    seen: set[str] = set()
    for track in items:
        assert track.labels
        expected = _by_hand(track)
        assert {name: track.labels[name] for name in expected} == expected, track.track_id
        seen |= {*expected["moods"], *expected["genres"]}
    assert {"slow", "fast", "sparse", "dense", "soft", "loud", "low", "high", "major", "minor", "stepwise"} <= seen
    assert {"baroque", "sacred", "vocal", "dance", "folk", "solo", "homophonic", "polyphonic"} <= seen


def test_one_changed_fact_changes_its_tag(of_kind: Callable[[str], list[SourceTrack]]) -> None:
    mix = next(item for item in of_kind("mix") if item.labels and item.labels["key"] < 12)
    assert mix.labels and mix.notes
    minor = replace(mix, labels={**mix.labels, "key": np.int16(12)})
    assert "major" in describe(mix)["moods"]
    assert {"minor", "major"} & set(describe(minor)["moods"]) == {"minor"}
    assert "soft" in describe(replace(mix, waveform=mix.waveform * np.float32(0.01)))["moods"]
    down = replace(mix, notes=[{**note, "pitch": np.int16(note["pitch"] - 24)} for note in mix.notes])
    assert describe(down)["register"] == pytest.approx(describe(mix)["register"] - 24, abs=1e-4)
    assert "low" in describe(down)["moods"]
    solo = replace(mix, notes=[{**note, "part": np.int16(0)} for note in mix.notes])
    assert "solo" in describe(solo)["genres"]
