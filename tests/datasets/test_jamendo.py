"""MTG-Jamendo's label files and the places of its mp3s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mert_core.datasets.jamendo import TAGS, MtgJamendo
from mert_core.datasets.reading import ABSENT
from mert_core.errors import MertError
from mert_core.files import sha256_file
from tests.datasets.miniatures import write_bytes, write_jamendo

JAMENDO = MtgJamendo()


def test_reads_split_0(made: Callable[[str], Path]) -> None:
    clips = JAMENDO.read(made("mtg_jamendo"), "instrument")
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
def test_each_question_has_its_tags(made: Callable[[str], Path], question: str, tags: int, tracks: int) -> None:
    clips = JAMENDO.read(made("mtg_jamendo"), question)
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


@pytest.mark.parametrize("elsewhere", ["audio/01/1083401.mp3", "raw_30s/audio/01/1083401.low.mp3"])
def test_one_place_and_one_quality_are_used(tmp_path: Path, elsewhere: str) -> None:
    folder = write_jamendo(tmp_path, missing=("01/1083401.mp3", "49/949.mp3"))
    write_bytes(folder / elsewhere, (folder / "raw_30s/audio/00/1083400.mp3").read_bytes())
    assert JAMENDO.read(folder, "genre").left_out == {ABSENT: 2}


def test_files_without_their_folders_and_a_clone_beside(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path / "set")
    (folder / "mtg-jamendo-dataset").mkdir()
    (folder / "data").rename(folder / "mtg-jamendo-dataset" / "data")
    for path in list((folder / "raw_30s" / "audio").glob("*/*.mp3")):
        path.rename(folder / path.name)
    assert len(JAMENDO.read(folder, "top50tags").clips) == 4


def test_survey(copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("mtg_jamendo")
    found = JAMENDO.survey(folder)
    assert found.state == "incomplete" and found.counts["instrument tags"] == (2, 40)
    assert found.counts["genre tracks"] == (4, 5) and len(found.counts) == 8
    assert len(found.notes) == 2 and "mp3s are missing in" in found.notes[0]
    assert "no SHA-256 sums to compare with" in found.notes[1] and len(JAMENDO.survey(folder, quick=True).notes) == 1
    write_bytes(folder / "raw_30s/audio/49/949.mp3", (folder / "raw_30s/audio/48/948.mp3").read_bytes())
    for question, tags in {"instrument": 2, "moodtheme": 2, "genre": 3, "top50tags": 7}.items():
        monkeypatch.setitem(TAGS, question, tags)
    assert JAMENDO.survey(folder).state == "complete"
    (folder / "data/splits/split-0/autotagging_genre-test.tsv").unlink()
    less = JAMENDO.survey(folder)
    assert less.state == "incomplete" and "autotagging_genre-train.tsv" in less.notes[0]


@pytest.mark.parametrize("flat", [False, True])
def test_published_checksums_are_compared(copied: Callable[[str], Path], flat: bool) -> None:
    folder = copied("mtg_jamendo")
    files = sorted((folder / "raw_30s/audio").glob("*/*.mp3"))
    lines = [f"{sha256_file(path)} {path.parent.name}/{path.name}\n" for path in files]
    listed = write_bytes(folder / "data/download/raw_30s_audio_sha256_tracks.txt", "".join(lines).encode())
    if flat:  # files without their folders
        files = [path.rename(folder / path.name) for path in files]
    assert JAMENDO.survey(folder).damaged == 0
    files[0].write_bytes(files[1].read_bytes())
    survey = JAMENDO.survey(folder)
    assert survey.damaged == 1 and JAMENDO.survey(folder, quick=True).damaged == 0
    name = "1083400.mp3" if flat else "00/1083400.mp3"
    assert f"1 mp3s differ from their published SHA-256, such as {name}" in survey.notes[1]
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MertError, match="is not UTF-8 text"):
        JAMENDO.survey(folder)
