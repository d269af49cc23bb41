from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mert_core.datasets.base import ClipSet
from mert_core.datasets.emo import Emomusic
from mert_core.datasets.giantsteps import GiantSteps
from mert_core.datasets.gtzan import Gtzan
from mert_core.datasets.keys import KEYS, spell_key
from mert_core.datasets.mtt import MagnaTagATune
from mert_core.errors import MertError
from tests.datasets import miniatures


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    return {
        "mtt": miniatures.write_mtt(root / "mtt"),
        "gs": miniatures.write_giantsteps(root / "gs"),
        "gtzan": miniatures.write_gtzan(root / "gtzan"),
        "emo": miniatures.write_emo(root / "emo"),
    }


def labels(clips: ClipSet) -> dict[str, object]:
    return {clip.clip_id: clip.label for clip in clips.clips}


def splits(clips: ClipSet) -> dict[str, int]:
    return dict(Counter(clip.split for clip in clips.clips))


def test_mtt(made: dict[str, Path]) -> None:
    found = MagnaTagATune().read(made["mtt"], "tags")
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


def test_mtt_keeps_clips_without_a_tag_and_reads_the_folder_mp3(tmp_path: Path) -> None:
    folder = miniatures.write_mtt(tmp_path / "mtt")
    path = folder / "annotations_final.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split("\t")
    lines[1] = "\t".join([cells[0], *['"0"'] * 55, cells[-1]])
    path.write_text("\n".join(lines) + "\n")
    (folder / "mp3").mkdir()
    for name in "0bcdf":
        shutil.move(folder / name, folder / "mp3" / name)
    found = MagnaTagATune().read(folder, "tags")
    assert labels(found)["100"] == () and len(found.clips) == 14
    assert found.left_out == {"no sound file": 3}


def test_giantsteps(made: dict[str, Path]) -> None:
    found = GiantSteps().read(made["gs"], "key")
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
    assert miniatures.held_out_artist() in held_out


def test_giantsteps_with_the_sound_of_both_in_one_folder(tmp_path: Path) -> None:
    folder = miniatures.write_giantsteps(tmp_path)
    (folder / "audio").mkdir()
    for path in [*folder.glob("*/audio/*.mp3")]:
        shutil.move(path, folder / "audio" / path.name)
    assert splits(GiantSteps().read(folder, "key")) == {"train": 2, "valid": 4, "test": 3}
    assert GiantSteps().survey(folder).counts["giantsteps-key-dataset"] == (3, 604)


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
    ],
)
def test_spelling_of_keys(written: str, spelled: str | None) -> None:
    assert spell_key(written) == spelled


def test_all_keys_are_spelled_as_they_are() -> None:
    assert [spell_key(key) for key in KEYS] == list(KEYS)


@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_gtzan_genre(tmp_path: Path, suffix: str) -> None:
    found = Gtzan().read(miniatures.write_gtzan(tmp_path, suffix), "genre")
    assert found.classes == miniatures.GENRES
    assert splits(found) == {"train": 10, "valid": 10, "test": 10}
    assert all(clip.label == clip.clip_id.split(".")[0] for clip in found.clips)
    assert {clip.clip_id.split(".")[1] for clip in found.of("test")} == {"00002"}
    assert found.left_out == {"damaged in the common copy": 1}
    assert len(found.clips[0].sound.waveform()) == 24000


def test_gtzan_rhythm(made: dict[str, Path]) -> None:
    found = Gtzan().read(made["gtzan"], "rhythm")
    assert found.classes == ()
    assert splits(found) == {"train": 10, "valid": 9, "test": 10}
    for clip in found.clips:
        np.testing.assert_array_equal(clip.label, miniatures.BEATS)
    assert found.left_out == {"damaged in the common copy": 1, "no beats annotated": 1}


def test_gtzan_beats_as_text_and_the_common_copys_folder(tmp_path: Path) -> None:
    folder = miniatures.write_gtzan(tmp_path)
    shutil.rmtree(folder / "GTZAN-Rhythm_v2_ismir2015_lbd")
    (folder / "Data").mkdir()
    shutil.move(folder / "genres", folder / "Data/genres_original")
    beats = folder / "gtzan_tempo_beat-main/beats"
    beats.mkdir(parents=True)
    for genre in miniatures.GENRES:
        for number in range(3):
            (beats / f"gtzan_{genre}_{number:05d}.beats").write_text("0.2\t1\n0.7\t2\n\n")
    found = Gtzan().read(folder, "rhythm")
    assert len(found.clips) == 30
    np.testing.assert_array_equal(found.clips[0].label, [0.2, 0.7])


def test_emo(made: dict[str, Path]) -> None:
    found = Emomusic().read(made["emo"], "emotion")
    assert found.classes == ("valence", "arousal")
    assert labels(found)["0010"] == (8.0, 2.0)
    assert [clip.clip_id for clip in found.of("test")] == [f"{song:04d}" for song in range(4, 41, 4)]
    assert found.left_out == {"no rating": 1, "no sound file": 1}
    assert len(found.clips) == 38
    for clip in [*found.of("train"), *found.of("valid")]:
        name = f"the rtist no {'abcdefgh'[int(clip.clip_id) % 8]}"
        held_out = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10 >= 8
        assert (clip.artist, clip.split) == (name, "valid" if held_out else "train")


KEYS_OF_TRAIN, ARTISTS = (
    f"giantsteps-mtg-key-dataset/annotations/{name}.txt" for name in ("annotations", "beatport_metadata")
)
SETS = {"mtt": MagnaTagATune(), "gs": GiantSteps(), "gtzan": Gtzan(), "emo": Emomusic()}


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("mtt", "annotations_final.csv", None, "cannot read"),
        ("mtt", "annotations_final.csv", "", "is empty"),
        ("mtt", "annotations_final.csv", "clip_id\trock\tmp3_path\n", "3 columns"),
        ("mtt", "annotations_final.csv", "CUT", "line 5"),
        ("gs", KEYS_OF_TRAIN, None, "cannot read"),
        ("gs", KEYS_OF_TRAIN, "ID\tKEY\n1\tC major\n", "no column MANUAL KEY, C"),
        ("gs", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n5061\tH moll\t2\n", "'H moll'"),
        ("gs", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n5061\n", "line 2"),
        ("gs", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n50²\tC minor\t2\n", "track '50²'"),
        ("gs", ARTISTS, "ID\tARTIST\n1\tA\n", "no row for track 5061"),
        ("gs", "giantsteps-key-dataset-master/annotations/key/774875.LOFI.key", "loud", "'loud'"),
        ("gtzan", "valid_filtered.txt", None, "coreyker/dnn-mgr"),
        ("gtzan", "valid_filtered.txt", "          30\n          31\n", "the line '30'"),
        ("gtzan", "valid_filtered.txt", "\n", "no usable clip for valid"),
        ("emo", "annotations/static_annotations.csv", "song_id,mean_arousal\n1,2\n", "no column mean_valence"),
        ("emo", "annotations/static_annotations.csv", "song_id,mean_arousal,mean_valence\n1,loud,2\n", "'loud'"),
        ("emo", "annotations/songs_info.csv", "song_id,Artist,Mediaeval 2013 set\n1²,A,development\n", "'1²'"),
        ("emo", "annotations/songs_info.csv", "song_id,Artist,Mediaeval 2013 set\n1,A,training\n", "'training'"),
    ],
)
def test_label_files_that_are_missing_or_wrong(
    made: dict[str, Path], tmp_path: Path, name: str, file: str, text: str | None, said: str
) -> None:
    folder = tmp_path / name
    shutil.copytree(made[name], folder)
    path = folder / file
    if text == "CUT":
        text = path.read_text()[:1500]
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(MertError, match=said) as error:
        SETS[name].read(folder, SETS[name].questions[0])
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("broken", ["{", "[]", '{"annotations": [{"namespace": "beat", "sandbox": {}, "data": []}]}'])
def test_a_broken_beat_file(made: dict[str, Path], tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "gtzan"
    shutil.copytree(made["gtzan"], folder)
    (folder / "GTZAN-Rhythm_v2_ismir2015_lbd/jams/pop.00001.wav.jams").write_text(broken)
    with pytest.raises(MertError, match=r"pop\.00001\.wav\.jams"):
        Gtzan().read(folder, "rhythm")
    shutil.rmtree(folder / "GTZAN-Rhythm_v2_ismir2015_lbd")
    with pytest.raises(MertError, match="GTZAN-rhythm"):
        Gtzan().read(folder, "rhythm")


def test_a_set_without_sound_and_a_question_that_no_set_answers(made: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "emo"
    shutil.copytree(made["emo"], folder)
    shutil.rmtree(folder / "clips_45seconds")
    with pytest.raises(MertError, match=r"no sound file: 40.*mert doctor --datasets"):
        Emomusic().read(folder, "emotion")
    with pytest.raises(MertError, match=r"'mood'.*emotion"):
        Emomusic().read(made["emo"], "mood")
