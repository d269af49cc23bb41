"""What all data sets have in common: what they say of themselves, what they refuse, and how complete they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mert_core.datasets import mtt
from mert_core.datasets.base import SPLITS
from mert_core.datasets.giantsteps import TEST, TRACKS, TRAIN
from mert_core.datasets.reading import EMPTY, find_audio
from mert_core.datasets.registry import DATASETS
from mert_core.errors import MertError

COUNTS = {
    "mtt": {"clips": (14, 25_860), "rows": (17, 25_863)},
    "giantsteps": {TRAIN: (12, 1486), TEST: (3, 604)},
    "gtzan": {"lists": (3, 3), "clips": (30, 929), "beats": (30, 929)},
    "emo": {"clips": (39, 744), "songs": (40, 744), "ratings": (39, 744)},
    "nsynth": {"train notes": (12, 289_205), "valid notes": (8, 12_678), "test notes": (4, 4_096)},
    "vocalset": {"singers": (20, 20), "techniques": (4, 17)},
    "musdb18": {"train songs": (1, 86), "valid songs": (2, 14), "test songs": (2, 50)},
}
WITHOUT_SOUND = {
    "mtt": "no sound file: 17",
    "giantsteps": "no sound file: 10",
    "gtzan": "damaged in the common copy: 1, no sound file: 30",
    "emo": "no sound file: 40",
    "nsynth": "no sound file: 25",
    "vocalset": "none was left out",
    "mtg_jamendo": "no sound file: 4",
    "musdb18": "none was left out",
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_says_what_it_is_and_refuses_other_questions(
    made: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name and dataset.questions
    assert dataset.title and dataset.licence and dataset.source
    nothing = dataset.survey(tmp_path / "nowhere")
    assert nothing.state == "missing" and nothing.notes and not nothing.damaged
    with pytest.raises(MertError):
        dataset.read(tmp_path / "nowhere", dataset.questions[0])
    with pytest.raises(MertError, match=f"'loops'; it answers {dataset.questions[0]}"):
        dataset.read(made(name), "loops")


@pytest.mark.parametrize("name", DATASETS)
def test_clips_are_sorted_and_named_once_and_without_sound_there_are_none(
    copied: Callable[[str], Path], name: str
) -> None:
    dataset, folder = DATASETS[name], copied(name)
    for question in dataset.questions:
        clips = dataset.read(folder, question).clips
        order = [(SPLITS.index(clip.split), clip.clip_id) for clip in clips]
        assert order == sorted(set(order)) and {clip.split for clip in clips} == set(SPLITS)
    for path in folder.rglob("*.*"):
        if path.suffix in (".wav", ".mp3"):
            path.unlink()
    said = rf"no usable clip for train and valid and test.*{WITHOUT_SOUND[name]}.*mert doctor --datasets"
    with pytest.raises(MertError, match=said):
        dataset.read(folder, dataset.questions[0])


def test_a_clip_that_is_listed_twice_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("gtzan")
    with (folder / "test_filtered.txt").open("a") as stream:
        stream.write("blues/blues.00001.wav\n")  # of the validation split
    with pytest.raises(MertError, match=r"appear more than once, the first is 'blues\.00001'"):
        DATASETS["gtzan"].read(folder, "genre")


def test_sound_is_found_by_the_first_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "x.au").write_bytes(b"")
    folders = (tmp_path / "none", tmp_path)
    assert find_audio(folders, ["x"], (".wav", ".au")) == tmp_path / "x.au"
    assert find_audio(folders, ["y"], (".wav", ".au")) == tmp_path / "none/y.wav"


@pytest.mark.parametrize("name", COUNTS)
def test_a_miniature_is_incomplete(made: Callable[[str], Path], name: str) -> None:
    survey = DATASETS[name].survey(made(name))
    assert (survey.state, survey.counts, survey.damaged) == ("incomplete", COUNTS[name], 0)
    assert survey.notes


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("mtt", "c/artist-album-08-29-58.mp3", "1 mp3 file(s) have no bytes; unpack mp3.zip again"),
        ("giantsteps", f"{TRAIN}/audio/5061.LOFI.mp3", f"{1486 - 11} of {TRAIN} have no sound"),
        ("gtzan", "genres/pop/pop.00000.wav", "1 clip(s) have no bytes; unpack the archive again"),
        ("emo", "clips_45seconds/10.mp3", "1 clip(s) have no bytes; unpack clips_45sec.tar.gz again"),
        (
            "nsynth",
            "nsynth-valid/audio/bass_synthetic_100-048-025.wav",
            "nsynth-valid: 1 wavs have no bytes, such as bass",
        ),
        (
            "vocalset",
            "FULL/female1/scales/belt/f1_scales_belt_a.wav",
            "1 recording(s) have no bytes; unpack the archive",
        ),
        ("mtg_jamendo", "raw_30s/audio/01/1083401.mp3", "1 mp3s have no bytes, such as 01/1083401.mp3"),
        (
            "musdb18",
            "train/Leaf - Summerghost/drums.wav",
            "train/Leaf - Summerghost: drums.wav without bytes: left out; unpack it again.",
        ),
    ],
)
def test_sound_without_bytes_is_damage_and_left_out(
    copied: Callable[[str], Path], name: str, file: str, said: str
) -> None:
    dataset, folder = DATASETS[name], copied(name)
    question = dataset.questions[-1]  # all tags of MTG-Jamendo: in each split a clip is left
    before = len(dataset.read(folder, question).clips), dataset.read(folder, question).left_out.get(EMPTY, 0)
    assert (folder / file).is_file()
    (folder / file).write_bytes(b"")
    survey = dataset.survey(folder)
    assert (survey.state, survey.damaged) == ("incomplete", 1)
    assert any(said in note for note in survey.notes)
    clip_set = dataset.read(folder, question)
    assert (len(clip_set.clips), clip_set.left_out[EMPTY]) == (before[0] - 1, before[1] + 1)


def test_a_whole_set_is_complete(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtt, "CLIPS", 17)  # as many as the miniature has
    assert DATASETS["mtt"].survey(made("mtt")).state == "complete"


def test_giantsteps_compares_with_the_published_sums(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, folder = DATASETS["giantsteps"], copied("giantsteps")
    (folder / TRAIN / "md5/77.LOFI.md5").unlink()
    assert dataset.survey(folder).state == "incomplete"  # though there is sound for every sum
    for part, count in ((TRAIN, 12), (TEST, 3)):  # as many as the miniature has
        monkeypatch.setitem(TRACKS, part, count)
    assert dataset.survey(folder).state == "complete"
    path = folder / f"{TEST}-master/audio/774875.LOFI.mp3"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert dataset.survey(folder, quick=True).state == "complete"
    survey = dataset.survey(folder)
    assert (survey.state, survey.damaged) == ("incomplete", 1)
    assert "774875" in survey.notes[0]


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("gtzan", "test_filtered.txt", r"test_filtered\.txt.*dnn-mgr"),
        ("giantsteps", f"{TRAIN}/annotations/beatport_metadata.txt", r"beatport_metadata\.txt"),
        ("nsynth", "nsynth-valid/examples.json", "nsynth-valid"),
    ],
)
def test_label_files_without_which_nothing_can_be_read_are_named(
    copied: Callable[[str], Path], name: str, file: str, said: str
) -> None:
    folder = copied(name)
    (folder / file).unlink()
    survey = DATASETS[name].survey(folder)
    assert survey.state == "missing" and re.search(said, survey.notes[0])


KEYS_OF_TRAIN, ARTISTS = (f"{TRAIN}/annotations/{name}.txt" for name in ("annotations", "beatport_metadata"))
STATIC, SONGS = (f"annotations/{name}.csv" for name in ("static_annotations", "songs_info"))
MTT, NOTES = "annotations_final.csv", "nsynth-test/examples.json"
TAGS = "data/splits/split-0/autotagging_instrument-train.tsv"


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("mtt", MTT, None, "cannot read"),
        ("mtt", MTT, "", "is empty"),
        ("mtt", MTT, "clip_id\trock\tmp3_path\n", "3 columns"),
        ("mtt", MTT, "{all[:1500]}", "line 5"),
        ("giantsteps", KEYS_OF_TRAIN, None, "cannot read"),
        ("giantsteps", KEYS_OF_TRAIN, "ID\tKEY\n1\tC major\n", "no column MANUAL KEY, C"),
        ("giantsteps", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n5061\tH moll\t2\n", "'H moll'"),
        ("giantsteps", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n5061\n", "line 2"),
        ("giantsteps", KEYS_OF_TRAIN, "ID\tMANUAL KEY\tC\n50²\tC minor\t2\n", "track '50²'"),
        ("giantsteps", ARTISTS, "ID\tARTIST\n1\tA\n", "no row for track 5061"),
        ("giantsteps", f"{TEST}-master/annotations/key/774875.LOFI.key", "loud", "'loud'"),
        ("gtzan", "valid_filtered.txt", None, "coreyker/dnn-mgr"),
        ("gtzan", "valid_filtered.txt", "          30\n          31\n", "the line '30'"),
        ("gtzan", "valid_filtered.txt", "\n", "no usable clip for valid"),
        ("emo", STATIC, "song_id,mean_arousal\n1,2\n", "no column mean_valence"),
        ("emo", STATIC, "song_id,mean_arousal,mean_valence\n1,loud,2\n", "'loud'"),
        ("emo", SONGS, "song_id,Artist,Mediaeval 2013 set\n1²,A,development\n", "'1²'"),
        ("emo", SONGS, "song_id,Artist,Mediaeval 2013 set\n1,A,training\n", "'training'"),
        ("nsynth", NOTES, None, r"nsynth-test.examples\.json are missing"),
        ("nsynth", NOTES, '{"a": {"pitch": 1', "is no JSON"),
        ("nsynth", NOTES, "[]", "one entry per note"),
        ("nsynth", NOTES, "{}", "one entry per note"),
        ("nsynth", NOTES, '{"a": {"pitch": 60}}', "instrument_family_str': None"),
        ("nsynth", NOTES, '{"a": {"pitch": 128, "instrument_family_str": "bass"}}', "'pitch': 128"),
        ("nsynth", NOTES, '{"a": {"pitch": "60", "instrument_family_str": "bass"}}', "'pitch': '60'"),
        ("nsynth", NOTES, '{"a": {"pitch": 60, "instrument_family_str": ["bass"]}}', r"\['bass'\]"),
        ("nsynth", NOTES, '{"a": 60}', "note 'a': found 60"),
        ("mtg_jamendo", TAGS, None, "Clone https://"),
        ("mtg_jamendo", TAGS, "", "found the header 'nothing'"),
        ("mtg_jamendo", TAGS, "TRACK_ID,ARTIST_ID\n", "expected TRACK_ID ARTIST_ID"),
        ("mtg_jamendo", TAGS, "{head}track_1\tartist_1\talbum_1\t48/948.mp3\t212.7\n", "line 2"),
        ("mtg_jamendo", TAGS, "{head}t\ta\tb\t48/948.mp3\t212.7\tgenre---rock\n", "tags that begin with instrument---"),
    ],
)
def test_label_files_that_are_missing_or_wrong(
    copied: Callable[[str], Path], name: str, file: str, text: str | None, said: str
) -> None:
    folder = copied(name)
    path = folder / file
    if text is None:
        path.unlink()
    else:
        whole = path.read_text()
        path.write_text(text.replace("{all[:1500]}", whole[:1500]).replace("{head}", whole.split("\n")[0] + "\n"))
    with pytest.raises(MertError, match=said) as error:
        DATASETS[name].read(folder, DATASETS[name].questions[0])
    assert str(folder) in str(error.value)
