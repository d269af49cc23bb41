"""The iterators that the corpus stage consumes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mert_core.config import Config
from mert_core.data.track import SourceTrack
from mert_core.synth.card import data_card
from mert_core.synth.generate import corpus_track, count_corpus, count_probe_set, perform_corpus
from mert_core.synth.instruments import FAMILIES, NOTE_FAMILIES
from mert_core.synth.items import mix_item, note_item
from mert_core.synth.library import Library


@pytest.fixture(scope="module")
def tracks(scores_config: Config, scores_cache: Path, library: Library) -> list[SourceTrack]:
    """All tracks of a small corpus."""
    return list(perform_corpus(scores_config, scores_cache, library))


def test_corpus_is_as_long_as_asked(tracks: list[SourceTrack], scores_config: Config) -> None:
    assert len(tracks) == count_corpus(scores_config) == 10
    assert Counter(track.split for track in tracks) == {"train": 8, "valid": 1, "test": 1}
    assert all(track.waveform.shape == (72000,) and track.waveform.dtype == np.float32 for track in tracks)


def test_pieces_keep_to_their_split(tracks: list[SourceTrack], items: list[SourceTrack], library: Library) -> None:
    split = {piece.score: piece.split for piece in library.pieces}
    assert all(track.split == split[track.source] for track in [*tracks, *items])


def test_waveforms_are_audible_and_do_not_clip(tracks: list[SourceTrack], items: list[SourceTrack]) -> None:
    for track in [*tracks, *items]:
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


def test_probe_items(items: list[SourceTrack], scores_config: Config) -> None:
    assert len(items) == count_probe_set(scores_config)
    assert Counter(item.labels["kind"] for item in items if item.labels) == {
        "mix": 68,
        "note": 22,
        "rhythm": 6,
        "phrase": 32,
        "stem:mix": 4,
        "stem:vocals": 4,
        "stem:drums": 4,
        "stem:bass": 4,
        "stem:other": 4,
    }
    for item in items:
        assert item.labels is not None
        assert item.notes
        if item.labels["kind"] == "mix":
            assert 0 <= item.labels["key"] < 24
            assert item.waveform.size == 96000
            assert item.beats
        elif item.labels["kind"] == "note":
            (note,) = item.notes
            assert item.labels["key"] == -1
            assert note["pitch"] == item.labels["pitch"]
            assert list(item.labels["programs"]) == [note["program"]]
            assert note["program"] in FAMILIES[item.labels["family"]]
            assert note["onset_seconds"] + note["duration_seconds"] <= 1.5 + 1e-6
            assert item.beats == []
    families = Counter(item.labels["family"] for item in items if item.split == "train" and item.labels["family"])
    assert families == dict.fromkeys(NOTE_FAMILIES, 2)


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
