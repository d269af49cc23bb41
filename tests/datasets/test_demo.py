"""The demo's data set: fourteen questions of one small probe set that really was performed."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from pretty_midi.constants import INSTRUMENT_MAP as PROGRAMS

from mert_core.config import Config
from mert_core.data.corpus import Corpus
from mert_core.data.tables import read_table, write_table
from mert_core.data.track import SourceTrack
from mert_core.datasets.base import SPLITS, ClipSet
from mert_core.datasets.demo import Demo
from mert_core.datasets.keys import KEYS
from mert_core.datasets.sounds import StoredSound
from mert_core.errors import MertError
from mert_core.synth.instruments import FAMILIES
from mert_core.synth.phrases import PERFORMERS, TECHNIQUES
from mert_core.synth.stems import ROLES
from tests.stored import write_corpus


def _write(folder: Path, tracks: list[SourceTrack], config: Config) -> Path:
    write_corpus(folder, tracks, 8, "probe_set", {"probe_set": config.probe_set.model_dump(mode="json")})
    return folder


@pytest.fixture(scope="module")
def folder(items: list[SourceTrack], scores_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small probe set as the stage leaves it."""
    return _write(tmp_path_factory.mktemp("probe_set"), items, scores_config)


@pytest.fixture(scope="module")
def clip_sets(folder: Path) -> dict[str, ClipSet]:
    """All questions, asked."""
    return {question: Demo().read(folder, question) for question in Demo().questions}


def _column(folder: Path, name: str) -> dict[str, Any]:
    labels = Corpus.open(folder).labels()
    return dict(zip(labels["track_id"].to_pylist(), labels[name].to_pylist(), strict=True))


@pytest.mark.parametrize("question", sorted(Demo().questions))
def test_clip_sets_are_sorted_complete_and_sound(clip_sets: dict[str, ClipSet], question: str, folder: Path) -> None:
    asked = clip_sets[question]
    assert (asked.dataset, asked.question, asked.left_out) == ("demo", question, {})
    assert all(asked.of(split) for split in SPLITS)
    order = [(SPLITS.index(clip.split), clip.clip_id) for clip in asked.clips]
    assert order == sorted(order) and len({clip.clip_id for clip in asked.clips}) == len(order)
    manifest = {row["track_id"]: row for row in Corpus.open(folder).tracks.to_pylist()}
    for clip in asked.clips:
        row = manifest[clip.clip_id]
        assert (clip.split, clip.artist, clip.sound.identity) == (row["split"], row["piece"], row["content_hash"])
    first = asked.clips[0].sound
    wave = first.waveform()
    assert wave.dtype == np.float32 and wave.shape == (manifest[asked.clips[0].clip_id]["samples"],)
    np.testing.assert_array_equal(first.channels(), wave[None])


def test_single_labels(clip_sets: dict[str, ClipSet], folder: Path) -> None:
    for question, column in (
        ("gtzan_genre", "composer"),
        ("nsynth_instrument", "family"),
        ("nsynth_pitch", "pitch"),
        ("vocalset_singer", "performer"),
        ("vocalset_technique", "technique"),
    ):
        truth = _column(folder, column)
        asked = clip_sets[question]
        assert all(clip.label == str(truth[clip.clip_id]) for clip in asked.clips), question
        assert {clip.label for clip in asked.clips} <= set(asked.classes)
    keys = _column(folder, "key")
    assert clip_sets["gs_key"].classes == KEYS
    assert all(clip.label == KEYS[keys[clip.clip_id]] for clip in clip_sets["gs_key"].clips)
    assert clip_sets["gtzan_genre"].classes == ("bach", "ryan")
    assert {*clip_sets["mtg_instrument"].classes, *clip_sets["nsynth_instrument"].classes} < set(FAMILIES)
    assert clip_sets["vocalset_technique"].classes == tuple(TECHNIQUES)


def test_performers_of_techniques_are_unseen_in_the_test_split(clip_sets: dict[str, ClipSet], folder: Path) -> None:
    who = _column(folder, "performer")
    asked = clip_sets["vocalset_technique"]
    by_split = {split: {who[clip.clip_id] for clip in asked.of(split)} for split in SPLITS}
    held_out = {one.name for one in PERFORMERS if one.held_out}
    assert by_split["test"] == held_out
    assert by_split["train"] == by_split["valid"] == {one.name for one in PERFORMERS} - held_out
    singers = clip_sets["vocalset_singer"]
    pieces = {split: {clip.artist for clip in singers.of(split)} for split in SPLITS}
    assert not pieces["train"] & (pieces["valid"] | pieces["test"])
    assert all({clip.label for clip in singers.of(split)} == set(singers.classes) for split in SPLITS)


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("mtt", ["programs"]),
        ("mtg_instrument", ["families"]),
        ("mtg_mood", ["moods"]),
        ("mtg_genre", ["genres"]),
        ("mtg_top50", ["programs", "families", "moods", "genres"]),
    ],
)
def test_tags_are_common_enough_and_no_others_are_asked(
    clip_sets: dict[str, ClipSet], folder: Path, question: str, names: list[str]
) -> None:
    asked = clip_sets[question]
    columns = {name: _column(folder, name) for name in names}

    def tags(clip_id: str) -> set[str]:
        return {
            PROGRAMS[tag].lower() if isinstance(tag, int) else tag for name in names for tag in columns[name][clip_id]
        }

    counts = {split: Counter(tag for clip in asked.of(split) for tag in tags(clip.clip_id)) for split in SPLITS}
    enough = {
        tag for tag in counts["train"] if all(2 <= counts[split][tag] <= len(asked.of(split)) - 2 for split in SPLITS)
    }
    if question == "mtg_top50":
        assert len(asked.classes) == min(50, len(enough)) and set(asked.classes) <= enough
        least = min(counts["train"][tag] for tag in asked.classes)
        assert all(counts["train"][tag] <= least for tag in enough - set(asked.classes))
    else:
        assert set(asked.classes) == enough
    for clip in asked.clips:
        assert set(clip.label) == tags(clip.clip_id) & set(asked.classes)


def test_beats_descriptors_and_stems(clip_sets: dict[str, ClipSet], items: list[SourceTrack], folder: Path) -> None:
    tracks = {item.track_id: item for item in items}
    for clip in clip_sets["gtzan_rhythm"].clips:
        beats = [float(beat["seconds"]) for beat in tracks[clip.clip_id].beats or ()]
        np.testing.assert_array_equal(clip.label, np.array(beats))
        assert clip.label.dtype == np.float64
    assert clip_sets["emo"].classes == ("density", "register")
    for clip in clip_sets["emo"].clips:
        labels = tracks[clip.clip_id].labels or {}
        assert clip.label == (float(labels["density"]), float(labels["register"]))
    assert clip_sets["musdb18"].classes == ROLES
    for clip in clip_sets["musdb18"].clips:
        stems = [clip.label[role].waveform() for role in ROLES]
        np.testing.assert_array_equal(np.sum(stems, axis=0, dtype=np.float32), clip.sound.waveform())


def test_sound_travels_as_a_few_bytes_and_arrives_the_same(clip_sets: dict[str, ClipSet]) -> None:
    sound = clip_sets["gs_key"].clips[3].sound
    carried = pickle.dumps(sound)
    assert len(carried) < 1000
    np.testing.assert_array_equal(pickle.loads(carried).waveform(), sound.waveform())


def test_other_sound_than_promised_is_refused(folder: Path) -> None:
    with pytest.raises(MertError, match=r"row 0 .* is not the sound that it was"):
        StoredSound(folder, 0, "0" * 64).waveform()
    with pytest.raises(MertError, match="Run `mert probe-set`"):
        StoredSound(folder / "elsewhere", 0, "0" * 64).waveform()


def test_a_mixture_without_a_stem_is_not_asked(
    folder: Path, items: list[SourceTrack], scores_config: Config, tmp_path: Path
) -> None:
    few = _write(tmp_path / "few", items[:-1], scores_config)
    assert len(Demo().read(folder, "musdb18").clips) == 4
    with pytest.raises(
        MertError, match=r"demo/musdb18: no usable clip for test .*stem missing: 1.*probe_set in params"
    ):
        Demo().read(few, "musdb18")


def test_wrong_questions_and_old_probe_sets_are_refused(
    folder: Path, items: list[SourceTrack], scores_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(MertError, match=r"cannot be asked 'loops'; it answers mtt, gs_key"):
        Demo().read(folder, "loops")
    notes = [item for item in items if item.labels and item.labels["kind"] == "note"]
    few = _write(tmp_path / "few", notes[:3], scores_config)
    with pytest.raises(MertError, match="no item of kind 'mix'"):
        Demo().read(few, "gs_key")
    labels = read_table(few / "labels.parquet")
    write_table(few / "labels.parquet", labels.drop_columns(["technique", "moods"]))
    with pytest.raises(MertError, match="lack technique"):
        Demo().read(few, "vocalset_technique")


def test_unknown_keys_are_left_out(items: list[SourceTrack], scores_config: Config, tmp_path: Path) -> None:
    mixes = [item for item in items if item.labels and item.labels["kind"] == "mix"]
    folder = _write(tmp_path / "mixes", mixes, scores_config)
    table = read_table(folder / "labels.parquet")
    keys = pc.if_else(pc.equal(table["track_id"], mixes[0].track_id), -1, table["key"]).cast(table["key"].type)
    write_table(folder / "labels.parquet", table.set_column(table.column_names.index("key"), "key", keys))
    asked = Demo().read(folder, "gs_key")
    assert asked.left_out == {"key unknown": 1}
    assert mixes[0].track_id not in {clip.clip_id for clip in asked.clips}
