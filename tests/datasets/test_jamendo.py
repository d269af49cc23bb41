"""MTG-Jamendo's label files and the places of its mp3s."""

from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.datasets.jamendo import TAGS, MtgJamendo
from mert_core.datasets.reading import ABSENT, EMPTY
from mert_core.errors import MertError
from mert_core.files import sha256_file
from tests.datasets.miniatures import write_jamendo

JAMENDO = MtgJamendo()
TRAIN = "data/splits/split-0/autotagging_instrument-train.tsv"


def test_reads_split_0(tmp_path: Path) -> None:
    clips = JAMENDO.read(write_jamendo(tmp_path), "instrument")
    assert [(clip.clip_id, clip.split, clip.artist, clip.label) for clip in clips.clips] == [
        ("track_0000948", "train", "artist_000087", ("instrument---piano",)),
        ("track_1000214", "valid", "artist_000014", ("instrument---voice",)),
        ("track_1083400", "test", "artist_000099", ("instrument---piano",)),
    ]
    assert clips.classes == ("instrument---piano", "instrument---voice") and clips.left_out == {ABSENT: 1}
    assert clips.clips[0].sound.waveform().shape == (6000,)
    assert clips.clips[0].sound.channels().shape == (2, 6000)


@pytest.mark.parametrize(
    ("question", "tags", "tracks"), [("moodtheme", 2, 4), ("genre", 3, 4), ("top50tags", 7, 4), ("instrument", 2, 3)]
)
def test_each_question_has_its_tags(tmp_path: Path, question: str, tags: int, tracks: int) -> None:
    clips = JAMENDO.read(write_jamendo(tmp_path), question)
    assert len(clips.classes) == tags and len(clips.clips) == tracks
    assert all(set(clip.label) <= set(clips.classes) for clip in clips.clips)
    assert list(clips.classes) == sorted(clips.classes)


@pytest.mark.parametrize(
    ("audio", "low"),
    [("raw_30s/audio-low", True), ("raw_30s", False), ("audio", False), ("audio_low", True), (".", True), (".", False)],
)
def test_places_of_sound(tmp_path: Path, audio: str, low: bool) -> None:
    clips = JAMENDO.read(write_jamendo(tmp_path, audio, low), "genre")
    assert len(clips.clips) == 4 and clips.left_out == {ABSENT: 1}
    assert clips.clips[0].sound.channels().shape[0] == (1 if low else 2)


def test_one_place_is_used(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path, missing=("01/1083401.mp3", "49/949.mp3"))
    elsewhere = folder / "audio" / "01" / "1083401.mp3"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes((folder / "raw_30s/audio/00/1083400.mp3").read_bytes())
    assert JAMENDO.read(folder, "genre").left_out == {ABSENT: 2}


def test_files_without_their_folders_and_a_clone_beside(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path / "set")
    (folder / "mtg-jamendo-dataset").mkdir()
    (folder / "data").rename(folder / "mtg-jamendo-dataset" / "data")
    for path in list((folder / "raw_30s" / "audio").glob("*/*.mp3")):
        path.rename(folder / path.name)
    assert len(JAMENDO.read(folder, "top50tags").clips) == 4


def test_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert JAMENDO.survey(tmp_path).state == "missing"
    folder = write_jamendo(tmp_path)
    found = JAMENDO.survey(folder)
    assert found.state == "incomplete" and found.counts["instrument tags"] == (2, 40)
    assert found.counts["genre tracks"] == (4, 5) and len(found.counts) == 8
    assert len(found.notes) == 2 and "mp3s are missing in" in found.notes[0]
    assert "no SHA-256 sums to compare with" in found.notes[1] and len(JAMENDO.survey(folder, quick=True).notes) == 1
    (folder / "raw_30s/audio/49").mkdir()
    (folder / "raw_30s/audio/49/949.mp3").write_bytes((folder / "raw_30s/audio/48/948.mp3").read_bytes())
    for question, tags in {"instrument": 2, "moodtheme": 2, "genre": 3, "top50tags": 7}.items():
        monkeypatch.setitem(TAGS, question, tags)
    assert JAMENDO.survey(folder).state == "complete"
    (folder / "data/splits/split-0/autotagging_genre-test.tsv").unlink()
    less = JAMENDO.survey(folder)
    assert less.state == "incomplete" and "autotagging_genre-train.tsv" in less.notes[0]


def test_one_quality_is_used(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path, missing=("01/1083401.mp3", "49/949.mp3"))
    plain = folder / "raw_30s/audio/00/1083400.mp3"
    low = folder / "raw_30s/audio/01/1083401.low.mp3"
    low.parent.mkdir()
    low.write_bytes(plain.read_bytes())
    assert JAMENDO.read(folder, "genre").left_out == {ABSENT: 2}


def test_mp3s_without_bytes_are_left_out(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path)
    (folder / "raw_30s/audio/01/1083401.mp3").write_bytes(b"")
    assert JAMENDO.read(folder, "genre").left_out == {ABSENT: 1, EMPTY: 1}
    found = JAMENDO.survey(folder, quick=True)
    assert (found.state, found.damaged, found.counts["genre tracks"]) == ("incomplete", 1, (3, 5))
    assert "1 mp3s have no bytes, such as 01/1083401.mp3" in found.notes[1]


def test_checksums_of_files_without_their_folders(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path)
    lines = []
    for path in sorted((folder / "raw_30s/audio").glob("*/*.mp3")):
        lines.append(f"{sha256_file(path)} {path.parent.name}/{path.name}\n")
        path.rename(folder / path.name)
    listed = folder / "data/download/raw_30s_audio_sha256_tracks.txt"
    listed.parent.mkdir()
    listed.write_text("".join(lines))
    assert JAMENDO.survey(folder).damaged == 0
    (folder / "948.mp3").write_bytes((folder / "1083400.mp3").read_bytes())
    assert JAMENDO.survey(folder).damaged == 1
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MertError, match="is not UTF-8 text"):
        JAMENDO.survey(folder)


def test_published_checksums_are_compared(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path)
    files = sorted((folder / "raw_30s/audio").glob("*/*.mp3"))
    listed = folder / "data/download/raw_30s_audio_sha256_tracks.txt"
    listed.parent.mkdir()
    lines = [f"{sha256_file(path)} {path.parent.name}/{path.name}" for path in files]
    listed.write_text("\n".join(lines) + "\n")
    assert JAMENDO.survey(folder).damaged == 0
    files[0].write_bytes(files[1].read_bytes())
    assert "1 mp3s differ from their published SHA-256, such as 00/1083400.mp3" in JAMENDO.survey(folder).notes[1]
    assert JAMENDO.survey(folder).damaged == 1
    assert JAMENDO.survey(folder, quick=True).damaged == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found the header 'nothing'"),
        ("TRACK_ID,ARTIST_ID\n", "expected TRACK_ID ARTIST_ID"),
        ("{head}track_1\tartist_1\talbum_1\t48/948.mp3\t212.7\n", "line 2"),
        ("{head}track_1\tartist_1\talbum_1\t48/948.mp3\t212.7\tgenre---rock\n", "tags that begin with instrument---"),
    ],
)
def test_label_files_that_are_not_as_expected(tmp_path: Path, text: str, said: str) -> None:
    folder = write_jamendo(tmp_path)
    (folder / TRAIN).write_text(text.replace("{head}", (folder / TRAIN).read_text().splitlines()[0] + "\n"))
    with pytest.raises(MertError, match=said):
        JAMENDO.read(folder, "instrument")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path)
    with pytest.raises(MertError, match="cannot be asked 'mood'"):
        JAMENDO.read(folder, "mood")
    (folder / "raw_30s").rename(folder / "elsewhere")
    with pytest.raises(MertError, match=r"no usable clip for train and valid and test.*no sound file: 4"):
        JAMENDO.read(folder, "instrument")
    (folder / TRAIN).unlink()
    with pytest.raises(MertError, match="Clone https://"):
        JAMENDO.read(folder, "instrument")
