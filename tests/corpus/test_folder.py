"""Source ``folder``, end to end on real files, good and bad."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from mert_core.audio.decode import decode
from mert_core.config import load_config
from mert_core.corpus.folder import list_folder
from mert_core.corpus.stage import run
from mert_core.data.corpus import Corpus
from mert_core.data.shards import to_int16
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.tracking import NullTracker

PARAMS = Path(__file__).parents[2] / "params.yaml"


def write(
    path: Path,
    seed: int,
    seconds: float = 3.2,
    rate: int = 24000,
    channels: int = 1,
    level: float = 0.1,
    **options: str,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = level * np.random.default_rng(seed).standard_normal((round(rate * seconds), channels))
    soundfile.write(path, noise.astype(np.float32), rate, **options)
    return path


def build(root: Path, *changes: str, folder: str = "music", tracker: NullTracker | None = None) -> Corpus:
    layout = Layout.at(root)
    settings = ["corpus.source=folder", f"corpus.folder={folder}", "corpus.licence=CC0", *changes]
    run(load_config(PARAMS, settings), layout, tracker or NullTracker())
    return Corpus.open(layout.corpus)


def contents(corpus: Corpus) -> dict[str, str]:
    files = (path for path in sorted(corpus.folder.rglob("*")) if path.is_file())
    return {path.relative_to(corpus.folder).as_posix(): sha256_file(path) for path in files}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with five good artists in five formats, and everything bad."""
    music = tmp_path / "music"
    write(music / "Ann" / "album" / "one.wav", 1, rate=44100, channels=2)
    write(music / "Ben" / "zwei.FLAC", 2, rate=96000, channels=6, format="FLAC")
    write(music / "Çelik" / "üç.ogg", 3, rate=22050, format="OGG", subtype="VORBIS")
    write(music / "Dan" / "four.opus", 4, rate=48000, channels=2, format="OGG", subtype="OPUS")
    write(music / "Eve" / "five.mp3", 5, rate=44100, channels=2)
    bad = music / "bad"
    (music / "Ann" / "z copy.wav").write_bytes((music / "Ann" / "album" / "one.wav").read_bytes())
    bad.mkdir()
    (bad / "empty.wav").touch()
    whole = write(bad / "cut.wav", 6).read_bytes()
    (bad / "cut.wav").write_bytes(whole[:70000])
    (bad / "text.wav").write_text("no music\n" * 100)
    write(bad / "short.wav", 7, seconds=2.9)
    soundfile.write(bad / "silent.flac", np.zeros(96000), 24000)
    soundfile.write(bad / "nan.wav", np.full(96000, np.nan), 24000, subtype="FLOAT")
    (bad / "gone.wav").symlink_to(bad / "nowhere")
    (music / "cover.jpg").touch()
    (music / "notes.txt").touch()
    write(music / ".hidden" / "a.wav", 8)
    write(music / "Ann" / "._resource.wav", 9)
    return tmp_path


BAD = {
    "Ann/z copy.wav": "duplicate",
    "bad/cut.wav": "truncated",
    "bad/empty.wav": "empty",
    "bad/gone.wav": "unreadable",
    "bad/nan.wav": "not finite",
    "bad/short.wav": "too short",
    "bad/silent.flac": "silent",
    "bad/text.wav": "not audio",
}


def test_good_and_bad_files(mixed: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Mock(NullTracker)
    corpus = build(mixed, tracker=tracker)
    rows = corpus.tracks.to_pylist()
    assert [(row["source"], row["artist"], row["source_rate"]) for row in rows] == [
        ("Ann/album/one.wav", "Ann", 44100),
        ("Ben/zwei.FLAC", "Ben", 96000),
        ("Dan/four.opus", "Dan", 48000),
        ("Eve/five.mp3", "Eve", 44100),
        ("Çelik/üç.ogg", "Çelik", 22050),
    ]
    for index, row in enumerate(rows):
        assert row["seconds"] == pytest.approx(3.2, abs=0.06)
        assert row["samples"] % 320 == row["offset_samples"] % 320 == 0
        assert row["licence"] == "CC0"
        expected, _ = to_int16(decode(mixed / "music" / row["source"]).waveform)
        assert np.array_equal(corpus.pcm(index), expected[: row["samples"]])
    left_out = pq.read_table(corpus.folder / "quarantine.parquet").to_pylist()
    assert {row["path"]: row["reason"] for row in left_out} == BAD
    assert all(row["detail"] and str(mixed) not in row["detail"] for row in left_out)
    assert corpus.record.facts["ignored_files"] == {".jpg": 1, ".txt": 1}
    assert tracker.metrics.call_args.args[0]["quarantined"] == len(BAD)
    tracker.table.assert_called_once_with("quarantine", left_out)
    assert f"{len(BAD)} of 13 files left out" in caplog.text
    card = (corpus.folder / "DATACARD.md").read_text()
    assert "| truncated | 1 |" in card
    assert str(mixed) not in card + (corpus.folder / "record.json").read_text()


def test_same_folder_elsewhere_gives_the_same_bytes(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    one = build(mixed, "threads=1")
    music = (mixed / "music").rename(tmp_path_factory.mktemp("elsewhere") / "music")
    other = build(mixed / "other", "threads=3", folder=str(music))  # an absolute path
    assert contents(one) == contents(other)


def test_nothing_usable_is_an_error_and_leaves_the_old_corpus(mixed: Path) -> None:
    before = build(mixed).record.id
    for path in (mixed / "music").rglob("*.*"):
        if path.is_file() and path.parent.name != "bad":
            path.unlink()
    with pytest.raises(MertError, match=r"none of the 7 audio files .*1 empty(?s:.*)bad/cut.wav: truncated"):
        build(mixed)
    assert Corpus.open(Layout.at(mixed).corpus).record.id == before
    assert [path.name for path in (mixed / "data").iterdir()] == ["corpus"]


@pytest.mark.parametrize("state", ["missing", "file", "without audio"])
def test_no_folder(tmp_path: Path, state: str) -> None:
    if state == "file":
        (tmp_path / "music").touch()
    if state == "without audio":
        (tmp_path / "music").mkdir()
        (tmp_path / "music" / "readme.txt").touch()
    with pytest.raises(MertError, match=r"does not exist|is no folder|holds no audio file"):
        build(tmp_path)
    assert not list(tmp_path.glob("data/*"))


def test_links_are_followed_once(tmp_path: Path) -> None:
    music = tmp_path / "music"
    write(music / "real" / "a.wav", 1)
    write(tmp_path / "outside" / "b.wav", 2)
    (music / "all").symlink_to(music)
    (music / "real" / "up").symlink_to(music / "real")
    (music / "again").symlink_to(music / "real")
    (music / "outside").symlink_to(tmp_path / "outside")
    (music / "self").symlink_to(music / "self")
    assert list_folder(music).files == ["outside/b.wav", "real/a.wav"]


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    music = tmp_path / "music"
    write(music / "a.wav", 1)
    try:
        os.rename(os.fsencode(write(music / "b.wav", 2)), os.fsencode(music) + b"/caf\xe9.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert [row["source"] for row in build(tmp_path).tracks.to_pylist()] == ["a.wav", "caf\\xe9.wav"]
