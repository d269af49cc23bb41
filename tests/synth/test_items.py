"""Excerpts to track beats in: the beats are the score's, steady and heard."""

from __future__ import annotations

import numpy as np
import pytest

from mert_core.data.track import SourceTrack
from mert_core.synth.items import has_steady_pulse
from mert_core.synth.library import Library
from mert_core.synth.performance import Performance
from mert_core.synth.render import PlayedNote, PlayedPart


def test_beats_are_the_scores(items: list[SourceTrack], library: Library) -> None:
    pieces = {piece.score: piece for piece in library.pieces}
    rhythms = [item for item in items if item.labels and item.labels["kind"] == "rhythm"]
    assert len(rhythms) == 6
    for item in rhythms:
        assert item.labels and item.beats and item.notes
        piece, quarter = pieces[item.source], 60 / float(item.labels["quarters_per_minute"])
        length, expected = len(item.waveform) / 24000, []
        bar, at = int(item.labels["start_bar"]), 0.0
        while at < length:
            here = piece.bars[bar]
            expected += [
                (at + (beat - here.onset) * quarter, here.downbeat and number == 0)
                for number, beat in enumerate(here.beats)
            ]
            following = piece.bars[bar + 1].onset if bar + 1 < len(piece.bars) else here.onset + here.length
            at += (following - here.onset) * quarter
            bar = (bar + 1) % len(piece.bars)
        expected = [(seconds, downbeat) for seconds, downbeat in expected if seconds < length - 1e-4]
        np.testing.assert_allclose([beat["seconds"] for beat in item.beats], [one[0] for one in expected], atol=1e-3)
        assert [beat["downbeat"] for beat in item.beats] == [one[1] for one in expected]
        between = np.diff([float(beat["seconds"]) for beat in item.beats])
        assert 55 <= 60 / between.mean() <= 215 and np.ptp(between) < 0.02 * between.mean() + 1e-5
        onsets = np.array([float(note["onset_seconds"]) for note in item.notes])
        heard = [np.abs(onsets - float(beat["seconds"])).min() <= 0.02 for beat in item.beats]
        assert np.mean(heard) >= 0.75


def _performed(beats: list[float], onsets: list[float]) -> Performance:
    part = PlayedPart(tuple(PlayedNote(onset, 0.2, 60, 90) for onset in onsets), 0, 1.0, 0.0)
    return Performance((part,), ("piano",), tuple((beat, False) for beat in beats), 0, 0, 120.0, 0)


@pytest.mark.parametrize(
    ("beats", "onsets", "steady"),
    [
        ([0.5 * n for n in range(12)], [0.5 * n for n in range(12)], True),
        ([0.5 * n for n in range(12)], [0.5 * n for n in range(9)], True),
        ([0.5 * n for n in range(12)], [0.5 * n for n in range(0, 12, 2)], False),  # half of the beats unheard
        ([0.5 * n for n in range(12)], [0.25 + 0.5 * n for n in range(12)], False),  # all of them
        ([0.2 * n for n in range(20)], [0.2 * n for n in range(20)], False),  # 300 per minute
        ([1.2 * n for n in range(8)], [1.2 * n for n in range(8)], False),  # 50
        ([0.0, 0.5, 1.0, 1.7, 2.2], [0.0, 0.5, 1.0, 1.7, 2.2], False),
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], False),
        ([0.5 * n for n in range(12)], [], False),
    ],
)
def test_steady_pulse(beats: list[float], onsets: list[float], steady: bool) -> None:
    assert has_steady_pulse(_performed(beats, onsets)) == steady
