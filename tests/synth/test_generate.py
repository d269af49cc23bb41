"""The iterators that the corpus stage consumes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mert_core.config import Config
from mert_core.data.track import SourceTrack
from mert_core.synth.card import data_card
from mert_core.synth.generate import (
    corpus_track,
    count_corpus,
    count_probe_set,
    has_steady_pulse,
    mix_item,
    note_item,
    perform_corpus,
)
from mert_core.synth.instruments import FAMILIES, NOTE_FAMILIES
from mert_core.synth.library import Library
from mert_core.synth.performance import Performance
from mert_core.synth.render import PlayedNote, PlayedPart


@pytest.fixture(scope="module")
def tracks(scores_config: Config, scores_cache: Path, library: Library) -> list[SourceTrack]:
    """All tracks of a small corpus."""
    return list(perform_corpus(scores_config, scores_cache, library))


def test_corpus_is_as_long_as_asked(tracks: list[SourceTrack], scores_config: Config) -> None:
    assert len(tracks) == count_corpus(scores_config) == 10
    assert Counter(track.split for track in tracks) == {"train": 8, "valid": 1, "test": 1}
    assert all(track.waveform.shape == (72000,) and track.waveform.dtype == np.float32 for track in tracks)


def test_waveforms_are_audible_and_do_not_clip_and_pieces_keep_to_their_split(
    tracks: list[SourceTrack], items: list[SourceTrack], library: Library
) -> None:
    split = {piece.score: piece.split for piece in library.pieces}
    for track in [*tracks, *items]:
        assert track.split == split[track.source]
        assert np.isfinite(track.waveform).all()
        assert np.abs(track.waveform).max() <= 0.99
        assert np.sqrt(np.mean(track.waveform**2)) > 10 ** (-45 / 20)


def test_track_ids_are_unique_and_rows_fit_one_table(tracks: list[SourceTrack], items: list[SourceTrack]) -> None:
    everything = [*tracks, *items]
    assert len({track.track_id for track in everything}) == len(everything)
    for table in (tracks, items):
        labels = pa.Table.from_pylist([track.labels for track in table])
        assert all(set(track.labels or ()) == set(labels.column_names) for track in table)
        assert labels.schema.field("key").type == pa.int16()
        assert labels.schema.field("programs").type == pa.list_(pa.int16())
    notes = pa.Table.from_pylist([row for track in everything for row in track.notes or []])
    assert {notes.schema.field(name).type for name in ("part", "pitch", "velocity", "program")} == {pa.int16()}


def test_probe_items(
    items: list[SourceTrack], of_kind: Callable[[str], list[SourceTrack]], scores_config: Config
) -> None:
    assert len(items) == count_probe_set(scores_config)
    stems = {f"stem:{part}": 4 for part in ("mix", "vocals", "drums", "bass", "other")}
    kinds = Counter(item.labels["kind"] for item in items if item.labels)
    assert kinds == {"mix": 68, "note": 22, "rhythm": 6, "phrase": 32, **stems}
    assert all(item.notes for item in items)
    for item in of_kind("mix"):
        assert item.labels and 0 <= item.labels["key"] < 24
        assert item.waveform.size == 96000
        assert item.beats
    for item in of_kind("note"):
        assert item.labels and item.notes
        (note,) = item.notes
        assert item.labels["key"] == -1
        assert note["pitch"] == item.labels["pitch"]
        assert list(item.labels["programs"]) == [note["program"]]
        assert note["program"] in FAMILIES[item.labels["family"]]
        assert note["onset_seconds"] + note["duration_seconds"] <= 1.5 + 1e-6
        assert item.beats == []
    families = Counter(item.labels["family"] for item in items if item.split == "train" and item.labels["family"])
    assert families == dict.fromkeys(NOTE_FAMILIES, 2)


def test_beats_of_rhythms_are_the_scores_and_heard(
    of_kind: Callable[[str], list[SourceTrack]], library: Library
) -> None:
    pieces = {piece.score: piece for piece in library.pieces}
    for item in of_kind("rhythm"):
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


EVERY = [0.5 * n for n in range(12)]


@pytest.mark.parametrize(
    ("beats", "onsets", "steady"),
    [
        (EVERY, EVERY, True),
        (EVERY, EVERY[:9], True),
        (EVERY, EVERY[::2], False),  # half of the beats unheard
        (EVERY, [0.25 + beat for beat in EVERY], False),  # all of them
        ([0.2 * n for n in range(20)], [0.2 * n for n in range(20)], False),  # 300 per minute
        ([1.2 * n for n in range(8)], [1.2 * n for n in range(8)], False),  # 50
        ([0.0, 0.5, 1.0, 1.7, 2.2], [0.0, 0.5, 1.0, 1.7, 2.2], False),
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], False),
        (EVERY, [], False),
    ],
)
def test_steady_pulse(beats: list[float], onsets: list[float], steady: bool) -> None:
    part = PlayedPart(tuple(PlayedNote(onset, 0.2, 60, 90) for onset in onsets), 0, 1.0, 0.0)
    times = tuple((beat, False) for beat in beats)
    assert has_steady_pulse(Performance((part,), ("piano",), times, 0, 0, 120.0, 0)) == steady


def test_old_items_do_not_change(scores_config: Config, library: Library) -> None:
    """A probe set may grow; excerpts and notes that it had stay, as their embeddings lie in caches."""
    digests = {}
    for player in (mix_item, note_item):
        played = [player(scores_config, library, "valid", index) for index in range(4)]
        rows = [
            [int(row["pitch"]), int(row["velocity"]), int(row["program"]), f"{row['onset_seconds']:.3f}"]
            for track in played
            for row in track.notes or ()
        ]
        levels = [f"{np.sqrt(np.mean(np.square(track.waveform, dtype=np.float64))):.3e}" for track in played]
        digests[player.__name__] = hashlib.sha256(json.dumps([rows, levels]).encode()).hexdigest()[:16]
    assert digests == {"mix_item": "50fff343285d1265", "note_item": "b447030b9a1de99f"}


def test_one_track_alone_is_the_same(tracks: list[SourceTrack], scores_config: Config, library: Library) -> None:
    alone = corpus_track(scores_config, library, "train", 3)
    assert alone.track_id == tracks[3].track_id
    np.testing.assert_array_equal(alone.waveform, tracks[3].waveform)
    assert alone.notes == tracks[3].notes


def test_another_seed_is_another_performance(scores_config: Config, library: Library) -> None:
    other = scores_config.model_copy(update={"seed": 7})
    first, second = note_item(scores_config, library, "train", 0), note_item(other, library, "train", 0)
    assert not np.array_equal(first.waveform, second.waveform)


def test_same_sound_in_another_process(scores_config: Config, scores_cache: Path, tracks: list[SourceTrack]) -> None:
    script = (
        "import hashlib, sys; from pathlib import Path; from mert_core.config import Config;"
        "from mert_core.synth.generate import corpus_track; from mert_core.synth.library import load_library;"
        "config = Config.model_validate_json(sys.stdin.read());"
        "library = load_library(config, Path(sys.argv[1]), ['bach', 'ryan']);"
        "print(hashlib.sha256(corpus_track(config, library, 'train', 3).waveform.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(scores_cache)],
        input=scores_config.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "12345", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.strip() == hashlib.sha256(tracks[3].waveform.tobytes()).hexdigest()


@pytest.mark.parametrize("kind", ["corpus", "probe_set"])
def test_data_card_names_origin_and_licence(scores_config: Config, kind: str) -> None:
    size = {"tracks": 1, "seconds": 3.0, "pieces": 1, "artists": 1}
    card = data_card(scores_config, kind, {**size, "splits": {"train": size}, "clipped_samples": 0})
    for word in ("music21", "TimGM6mb", "GPL-2", "non-commercial", "Seed 1337"):
        assert word in card
    if kind == "probe_set":
        assert all(f"`{name}`" in card for name in ("mix", "note", "rhythm", "phrase", "stem:mix", "stem:drums"))
        assert "3 pairs" in card and "violin 2, clarinet 2, trumpet in the test split alone" in card
