"""MUSDB18 as wav files and as stems files."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mert_core.audio.decode import resample
from mert_core.audio.errors import UnusableAudio
from mert_core.datasets.base import SPLITS
from mert_core.datasets.musdb18 import ARCHIVES, STEMS, TRACKS, Musdb18, StemSound, _songs
from mert_core.errors import MertError

MUSDB = Musdb18()
NEEDS_FFMPEG = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed"
)


@pytest.fixture
def folder(copied: Callable[[str], Path]) -> Path:
    return copied("musdb18")


def test_reads_wav_files_in_the_division_of_musdb(folder: Path) -> None:
    songs = MUSDB.read(folder, "stems")
    names = {split: [clip.clip_id for clip in songs.of(split)] for split in SPLITS}
    assert names["train"] == ["A Classic Education - NightOwl"]
    assert names["valid"] == ["ANiMAL - Rockshow", "Leaf - Summerghost"]
    assert names["test"] == ["AM Contra - Heart Peripheral", "PR - Oh No"]
    assert songs.classes == STEMS and songs.left_out == {"no bass": 1}


def test_stems_are_stereo_and_add_up(folder: Path) -> None:
    song = MUSDB.read(folder, "stems").of("test")[0]
    mixture = song.sound.channels()
    assert mixture.shape == (2, 6000)
    total = sum(song.label[stem].channels() for stem in STEMS)
    assert np.abs(total - mixture).max() < 2e-4  # 16 bit
    samples, rate = soundfile.read(folder / "test" / song.clip_id / "drums.wav", dtype="float32")
    assert np.array_equal(song.label["drums"].channels()[1], resample(np.ascontiguousarray(samples[:, 1]), rate))


def test_survey_names_a_song_without_a_stem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MUSDB.survey(folder).notes == ("train/Actions - Devil's Words has no bass: left out.",)
    shutil.rmtree(folder / "train" / "Actions - Devil's Words")
    for split, count in zip(SPLITS, (1, 2, 2), strict=True):
        monkeypatch.setitem(TRACKS, split, count)
    assert MUSDB.survey(folder).state == "complete"
    monkeypatch.setitem(ARCHIVES, "musdb18.zip", "900150983cd24fb0d6963f7d28e17f72")  # of "abc"
    (folder / "musdb18.zip").write_bytes(b"abc")
    assert MUSDB.survey(folder).state == "complete"
    (folder / "musdb18.zip").write_bytes(b"abd")
    assert MUSDB.survey(folder, quick=True).state == "complete"
    bad = MUSDB.survey(folder)
    assert bad.damaged == 1 and "published is 900150983cd24fb0d6963f7d28e17f72" in bad.notes[0]


def test_a_folder_without_any_stem_is_no_song(folder: Path) -> None:
    (folder / "train" / "__MACOSX" / "Leaf - Summerghost").mkdir(parents=True)
    assert MUSDB.read(folder, "stems").left_out == {"no bass": 1}
    assert not any("__MACOSX" in note for note in MUSDB.survey(folder).notes)


def test_without_the_package_the_division_is_unknown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "musdb" else find_spec(name))
    with pytest.raises(MertError, match="pip install musdb"):
        MUSDB.read(folder, "stems")
    found = MUSDB.survey(folder)
    assert found.counts == {"train songs": (3, 100), "test songs": (2, 50)} and "pip install musdb" in found.notes[1]


def test_importing_needs_neither_musdb_nor_ffmpeg() -> None:
    code = (
        "import sys; import mert_core.datasets.musdb18; "
        "print([name for name in ('musdb', 'stempeg', 'ffmpeg') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def stems_file() -> Path:
    """The short song that ``stempeg`` brings along, with a mixture and four stems."""
    spec = importlib.util.find_spec("stempeg")
    assert spec and spec.submodule_search_locations
    return next((Path(spec.submodule_search_locations[0]) / "data").glob("*.stem.mp4"))


@pytest.fixture
def stems(tmp_path: Path) -> Path:
    for part, song in (("train", "Leaf - Summerghost"), ("train", "Some - Other"), ("test", "PR - Oh No")):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / f"{song}.stem.mp4").symlink_to(stems_file())
    return tmp_path


def test_stems_files_without_ffmpeg(stems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(stems))
    with pytest.raises(MertError, match=r"ffmpeg and ffprobe cannot be found on the path.*MUSDB18-HQ"):
        MUSDB.read(stems, "stems")
    with pytest.raises(MertError, match="Install ffmpeg"):
        StemSound(stems / "test" / "PR - Oh No.stem.mp4", "bass").channels()
    found = MUSDB.survey(stems)
    assert found.counts["valid songs"] == (1, 14) and "Install ffmpeg" in found.notes[0]


def test_a_folder_wins_over_a_stems_file_if_it_is_whole(folder: Path) -> None:
    for song in ("Actions - Devil's Words", "Leaf - Summerghost"):  # the first lacks its bass
        (folder / "train" / f"{song}.stem.mp4").symlink_to(stems_file())
    songs = {song.name: song for song in _songs(folder) if song.part == "train"}
    assert songs["Actions - Devil's Words"].is_stems and not songs["Actions - Devil's Words"].lack
    assert not songs["Leaf - Summerghost"].is_stems and not songs["Leaf - Summerghost"].lack
    assert not any("left out" in note for note in MUSDB.survey(folder).notes)


def test_a_stems_file_without_bytes_is_left_out(stems: Path) -> None:
    path = stems / "train" / "Some - Other.stem.mp4"
    path.unlink()
    path.write_bytes(b"")
    found = MUSDB.survey(stems)
    assert found.damaged == 1 and found.counts["train songs"] == (0, 86)


def test_stems_of_one_file_differ_in_identity(stems: Path) -> None:
    path = stems / "test" / "PR - Oh No.stem.mp4"
    assert len({StemSound(path, stem).identity for stem in ("mixture", *STEMS)}) == 5
    assert StemSound(path, "bass").identity == StemSound(stems / "train" / "Some - Other.stem.mp4", "bass").identity


@NEEDS_FFMPEG
def test_stems_files_are_decoded(stems: Path) -> None:
    song = MUSDB.read(stems, "stems").of("valid")[0]
    mixture = song.sound.channels()
    assert mixture.shape[0] == 2 and mixture.shape[1] > 24000
    total = sum(song.label[stem].channels() for stem in STEMS)
    assert np.sum((total - mixture) ** 2) < 0.1 * np.sum(mixture**2)
    assert np.allclose(song.label["bass"].waveform(), song.label["bass"].channels().mean(axis=0))


@NEEDS_FFMPEG
def test_damaged_stems_files_are_refused(tmp_path: Path) -> None:
    whole = stems_file().read_bytes()
    path = tmp_path / "song.stem.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableAudio, match=r"of 6\.\d+ s decode of stem vocals"):
        StemSound(path, "vocals").channels()
    path.write_bytes(b"no music" * 1000)
    with pytest.raises(UnusableAudio, match=r"^not audio: ffprobe refuses it: Invalid data[^/]*$"):
        StemSound(path, "vocals").channels()


def test_a_part_that_is_missing_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    with pytest.raises(MertError, match="has no test; expected train/SONG"):
        MUSDB.read(folder, "stems")
