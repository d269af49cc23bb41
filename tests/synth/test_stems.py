"""Stems: their sum is the mixture to the last bit, and each role plays what it should."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from mert_core.config import Config
from mert_core.data.shards import to_int16
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.synth.instruments import FAMILIES
from mert_core.synth.library import Library
from mert_core.synth.stems import ROLES, stem_items


@pytest.fixture
def stem_sets(of_kind: Callable[[str], list[SourceTrack]]) -> dict[str, dict[str, SourceTrack]]:
    """The tracks of each mixture by its stems' roles."""
    sets: dict[str, dict[str, SourceTrack]] = defaultdict(dict)
    for item in of_kind("stem:"):
        assert item.labels
        sets[item.labels["mix"]][item.labels["kind"].removeprefix("stem:")] = item
    return sets


def test_stems_add_up_to_the_mixture_in_int16(stem_sets: dict[str, dict[str, SourceTrack]]) -> None:
    assert len(stem_sets) == 4
    for name, tracks in stem_sets.items():
        assert set(tracks) == {"mix", *ROLES} and tracks["mix"].track_id == name
        stems = [to_int16(tracks[role].waveform) for role in ROLES]
        mixture, clipped = to_int16(tracks["mix"].waveform)
        assert clipped == 0 and not any(outside for _, outside in stems)
        np.testing.assert_array_equal(sum(pcm.astype(np.int32) for pcm, _ in stems), mixture)
        levels = [20 * np.log10(np.std(pcm.astype(np.float64))) for pcm, _ in stems]
        assert max(levels) - min(levels) <= 8.5, "no stem drowns"
        assert {item.split for item in tracks.values()} == {tracks["mix"].split}


def test_roles_are_cast_by_register_and_percussion_strikes_the_beats(
    stem_sets: dict[str, dict[str, SourceTrack]],
) -> None:
    for tracks in stem_sets.values():
        notes = {role: track.notes or [] for role, track in tracks.items()}
        assert {note["family"] for note in notes["vocals"]} == {"voice"}
        assert {note["family"] for note in notes["bass"]} == {"bass"}
        assert {note["family"] for note in notes["drums"]} == {"percussion"}
        assert {note["program"] for note in notes["drums"]} <= {115, 116, 117, 118}
        assert {note["family"] for note in notes["other"]} <= set(FAMILIES) - {"voice", "bass"}
        mean = {role: np.mean([note["pitch"] for note in notes[role]]) for role in ("vocals", "bass")}
        assert mean["bass"] < mean["vocals"]
        assert len(notes["mix"]) == sum(len(notes[role]) for role in ROLES)
        beats = np.array([beat["seconds"] for beat in tracks["mix"].beats or ()])
        struck = np.array([note["onset_seconds"] for note in notes["drums"]])
        assert all(np.abs(struck - beat).min() < 1e-6 for beat in beats)


def test_without_music_of_three_parts_there_are_no_stems(scores_config: Config, library: Library) -> None:
    tunes = Library(tuple(piece for piece in library.pieces if piece.composer == "ryan"))
    with pytest.raises(MertError, match="3 parts"):
        stem_items(scores_config, tunes, "train", 0)
