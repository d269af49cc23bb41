"""MagnaTagATune, GiantSteps, GTZAN and Emomusic in their official layouts."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mert_core.datasets.base import ClipSet
from mert_core.datasets.keys import KEYS, spell_key
from mert_core.datasets.registry import DATASETS
from mert_core.errors import MertError
from tests.datasets import miniatures


def labels(clips: ClipSet) -> dict[str, object]:
    return {clip.clip_id: clip.label for clip in clips.clips}


def splits(clips: ClipSet) -> dict[str, int]:
    return dict(Counter(clip.split for clip in clips.clips))


def test_mtt(made: Callable[[str], Path]) -> None:
    found = DATASETS["mtt"].read(made("mtt"), "tags")
    # Tags 13…53 apply to all 14 clips, tag 12 to 13, …; tags 0…3 and the one that never applies are the least common.
    by_count = [*miniatures.MTT_TAGS[13:54], *miniatures.MTT_TAGS[12:3:-1]]
    assert found.classes == tuple(by_count) and len(found.classes) == 50
    assert splits(found) == {"train": 8, "valid": 2, "test": 4}
    assert [clip.clip_id for clip in found.of("train")] == [str(number) for number in range(100, 108)]
    assert [clip.clip_id for clip in found.of("valid")] == ["108", "109"]
    assert found.left_out == {"empty sound file": 3}
    assert labels(found)["100"] == found.classes
    assert labels(found)["113"] == found.classes[:41]
    assert {len(clip.sound.waveform()) for clip in found.clips} == {12000}


def test_mtt_keeps_clips_without_a_tag_and_reads_the_folder_mp3(copied: Callable[[str], Path]) -> None:
    folder = copied("mtt")
    path = folder / "annotations_final.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split("\t")
    lines[1] = "\t".join([cells[0], *['"0"'] * 55, cells[-1]])
    path.write_text("\n".join(lines) + "\n")
    (folder / "mp3").mkdir()
    for name in "0bcdf":
        shutil.move(folder / name, folder / "mp3" / name)
    found = DATASETS["mtt"].read(folder, "tags")
    assert labels(found)["100"] == () and len(found.clips) == 14
    assert found.left_out == {"no sound file": 3}


def test_giantsteps(made: Callable[[str], Path]) -> None:
    found = DATASETS["giantsteps"].read(made("giantsteps"), "key")
    assert found.classes == KEYS
    assert splits(found) == {"train": 2, "valid": 4, "test": 3}
    assert labels(found) == {
        "0005061": "Eb minor",
        "0007217": "C# major",
        "0005881": "A major",
        "0009001": "F minor",
        "0009002": "G minor",
        "0009003": "B major",
        "0010089": "Bb major",
        "0774875": "F# minor",
        "3687442": "D minor",
    }
    assert found.left_out == {"several keys": 3, "no key": 2, "key in doubt": 1, "no sound file": 1}
    held_out = {artist for clip in found.of("valid") for artist in clip.artist.split(", ")}
    assert not held_out & {artist for clip in found.of("train") for artist in clip.artist.split(", ")}
    assert miniatures.artist("Held Out", held_out=True) in held_out


def test_giantsteps_with_the_sound_of_both_in_one_folder(copied: Callable[[str], Path]) -> None:
    folder = copied("giantsteps")
    (folder / "audio").mkdir()
    for path in [*folder.glob("*/audio/*.mp3")]:
        shutil.move(path, folder / "audio" / path.name)
    assert splits(DATASETS["giantsteps"].read(folder, "key")) == {"train": 2, "valid": 4, "test": 3}
    assert DATASETS["giantsteps"].survey(folder).counts["giantsteps-key-dataset"] == (3, 604)


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("Db minor", "C# minor"),
        ("D# minor", "Eb minor"),
        ("Cb major", "B major"),
        ("c maj", "C major"),
        ("A# MAJOR", "Bb major"),
        ("F:min", "F minor"),
        ("B#  minor", "C minor"),
        ("H minor", None),
        ("-", None),
        ("C minor / F# minor", None),
        ("G minor/major", None),
        ("C", None),
        *((key, key) for key in KEYS),
    ],
)
def test_spelling_of_keys(written: str, spelled: str | None) -> None:
    assert spell_key(written) == spelled


@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_gtzan_genre(tmp_path: Path, suffix: str) -> None:
    found = DATASETS["gtzan"].read(miniatures.write_gtzan(tmp_path, suffix), "genre")
    assert found.classes == miniatures.GENRES
    assert splits(found) == {"train": 10, "valid": 10, "test": 10}
    assert all(clip.label == clip.clip_id.split(".")[0] for clip in found.clips)
    assert {clip.clip_id.split(".")[1] for clip in found.of("test")} == {"00002"}
    assert found.left_out == {"damaged in the common copy": 1}
    assert len(found.clips[0].sound.waveform()) == 24000


def test_gtzan_rhythm(made: Callable[[str], Path]) -> None:
    found = DATASETS["gtzan"].read(made("gtzan"), "rhythm")
    assert found.classes == ()
    assert splits(found) == {"train": 10, "valid": 9, "test": 10}
    for clip in found.clips:
        np.testing.assert_array_equal(clip.label, miniatures.BEATS)
    assert found.left_out == {"damaged in the common copy": 1, "no beats annotated": 1}


def test_gtzan_beats_as_text_and_the_common_copys_folder(copied: Callable[[str], Path]) -> None:
    folder = copied("gtzan")
    shutil.rmtree(folder / "GTZAN-Rhythm_v2_ismir2015_lbd")
    (folder / "Data").mkdir()
    shutil.move(folder / "genres", folder / "Data/genres_original")
    beats = folder / "gtzan_tempo_beat-main/beats"
    for genre in miniatures.GENRES:
        for number in range(3):
            miniatures.write_bytes(beats / f"gtzan_{genre}_{number:05d}.beats", b"0.2\t1\n0.7\t2\n\n")
    found = DATASETS["gtzan"].read(folder, "rhythm")
    assert len(found.clips) == 30
    np.testing.assert_array_equal(found.clips[0].label, [0.2, 0.7])


def test_emo(made: Callable[[str], Path]) -> None:
    found = DATASETS["emo"].read(made("emo"), "emotion")
    assert found.classes == ("valence", "arousal")
    assert labels(found)["0010"] == (8.0, 2.0)
    assert [clip.clip_id for clip in found.of("test")] == [f"{song:04d}" for song in range(4, 41, 4)]
    assert found.left_out == {"no rating": 1, "no sound file": 1}
    assert len(found.clips) == 38
    for clip in [*found.of("train"), *found.of("valid")]:
        name = f"the rtist no {'abcdefgh'[int(clip.clip_id) % 8]}"
        held_out = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10 >= 8
        assert (clip.artist, clip.split) == (name, "valid" if held_out else "train")


@pytest.mark.parametrize("broken", ["{", "[]", '{"annotations": [{"namespace": "beat", "sandbox": {}, "data": []}]}'])
def test_a_broken_beat_file(copied: Callable[[str], Path], broken: str) -> None:
    folder = copied("gtzan")
    (folder / "GTZAN-Rhythm_v2_ismir2015_lbd/jams/pop.00001.wav.jams").write_text(broken)
    with pytest.raises(MertError, match=r"pop\.00001\.wav\.jams"):
        DATASETS["gtzan"].read(folder, "rhythm")
    shutil.rmtree(folder / "GTZAN-Rhythm_v2_ismir2015_lbd")
    with pytest.raises(MertError, match="GTZAN-rhythm"):
        DATASETS["gtzan"].read(folder, "rhythm")
