"""A corpus that is made again after its folder has changed: what is untouched stays, to the byte and the inode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mert_core.audio.decode import Decoded, decode
from mert_core.corpus import folder, incremental
from mert_core.data import hashes
from mert_core.data.corpus import Corpus
from mert_core.data.shards import to_int16
from mert_core.files import sha256_file
from mert_core.paths import Layout
from tests.corpus import test_folder
from tests.corpus.test_folder import contents, write

SHARD = "corpus.shard_megabytes=0.4"  # two tracks of 3.2 s


@pytest.fixture
def music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight files of eight artists, which fill four shards."""
    monkeypatch.setattr(hashes, "_SETTLED_NS", 0)
    for seed in range(8):
        write(
            tmp_path / "music" / f"artist {seed}" / "song.wav", seed, subtype="FLOAT", level=0.5 if seed == 3 else 0.1
        )
    return tmp_path / "music"


@dataclass
class Watch:
    """The artists whose files are hashed and decoded."""

    hashed: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.hashed.clear()
        self.decoded.clear()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    def counted(function: Callable[[Path], Any], seen: list[str]) -> Callable[[Path], Any]:
        return lambda path: (seen.append(path.parent.name), function(path))[1]

    watch = Watch()
    monkeypatch.setattr(incremental, "hash_file", counted(hashes.hash_file, watch.hashed))
    monkeypatch.setattr(folder, "decode", counted(decode, watch.decoded))
    return watch


def build(music: Path, *changes: str) -> Corpus:
    return test_folder.build(music.parent, SHARD, *changes)


def inodes(corpus: Corpus) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted((corpus.folder / "shards").iterdir())}


def sources(corpus: Corpus) -> list[tuple[int, str]]:
    """Return shard and artist of every track, after checking it against its file, and the record against the disk."""
    rows = corpus.tracks.to_pylist()
    for number, row in enumerate(rows):
        path = corpus.folder.parent.parent / "music" / row["source"]
        expected, clipped = to_int16(decode(path).waveform)
        assert np.array_equal(corpus.pcm(number), expected[: row["samples"]])
        assert row["clipped_samples"] == clipped
        assert row["source_sha256"] == sha256_file(path)
    assert corpus.record.files == {name: sha for name, sha in contents(corpus).items() if name != "record.json"}
    assert corpus.record.facts["clipped_samples"] == sum(row["clipped_samples"] for row in rows)
    assert corpus.record.facts["shards"] == len(inodes(corpus))
    places = [(row["shard"], row["offset_samples"]) for row in rows]
    assert places == sorted(places)
    return [(row["shard"], row["artist"].removeprefix("artist ")) for row in rows]


FIRST = [(0, "0"), (0, "1"), (1, "2"), (1, "3"), (2, "4"), (2, "5"), (3, "6"), (3, "7")]


def test_nothing_new_gives_the_same_bytes_and_reads_nothing(music: Path, watch: Watch) -> None:
    corpus = build(music)
    before, links = contents(corpus), inodes(corpus)
    assert sources(corpus) == FIRST
    watch.clear()
    again = build(music)
    assert contents(again) == before and inodes(again) == links
    assert watch.hashed == watch.decoded == []


def test_new_files_go_to_new_shards(music: Path, watch: Watch) -> None:
    links = inodes(build(music))
    write(music / "artist 00" / "song.wav", 100)  # before all the others in the listing
    write(music / "artist 9" / "song.wav", 109)
    watch.clear()
    corpus = build(music)
    assert sources(corpus) == [*FIRST, (4, "00"), (4, "9")]
    assert inodes(corpus).items() > links.items()
    assert watch.hashed == [] and sorted(watch.decoded) == ["artist 00", "artist 9"]
    assert contents(build(music)) == contents(corpus)


def test_a_corpus_says_what_it_has_grown_from(music: Path) -> None:
    first = build(music).record
    assert "grown_from" not in first.facts
    write(music / "artist 9" / "song.wav", 109)
    second = build(music).record
    assert second.facts["grown_from"] == [first.id] and build(music).record == second
    write(music / "artist 10" / "song.wav", 110)
    assert build(music).record.facts["grown_from"] == [first.id, second.id]
    (music / "artist 4" / "song.wav").unlink()  # of six shards one is written again: more than a tenth
    assert "grown_from" not in build(music).record.facts


def test_a_changed_file_moves_and_a_removed_one_goes(music: Path, watch: Watch) -> None:
    links = inodes(build(music))
    write(music / "artist 2" / "song.wav", 102, seconds=3.5)
    (music / "artist 7" / "song.wav").unlink()
    shutil.rmtree(music / "artist 4")
    shutil.rmtree(music / "artist 5")
    watch.clear()
    corpus = build(music)
    assert sources(corpus) == [(0, "0"), (0, "1"), (1, "3"), (3, "6"), (4, "2")]  # 2 is empty, and stays unused
    assert watch.hashed == watch.decoded == ["artist 2"]
    assert inodes(corpus)["00000.pcm"] == links["00000.pcm"] and "00002.pcm" not in inodes(corpus)
    assert corpus.offset_samples.tolist() == [0, int(corpus.samples[0]), 0, 0, 0]
    assert contents(build(music)) == contents(corpus)


def test_a_file_rewritten_under_its_old_date_and_size_is_noticed(music: Path) -> None:
    build(music)
    path = music / "artist 1" / "song.wav"
    status = path.stat()
    write(path, 101, subtype="FLOAT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert sources(build(music))[-1] == (4, "1")


@pytest.mark.parametrize("notebook", ["missing", "damaged"])
def test_without_its_notebook_it_hashes_and_does_not_decode(music: Path, watch: Watch, notebook: str) -> None:
    expected = contents(build(music))
    (path,) = Layout.at(music.parent).caches.iterdir()
    if notebook == "missing":  # on a fresh machine, whose files have other dates
        path.unlink()
        for song in music.rglob("*.wav"):
            song.touch()
    else:
        path.write_bytes(b"no database" * 1000)
    watch.clear()
    assert contents(build(music)) == expected
    assert len(watch.hashed) == 8 and watch.decoded == []
    watch.clear()
    assert contents(build(music)) == expected and watch.hashed == []


def test_kept_audio_counts_when_a_new_file_repeats_it(music: Path) -> None:
    build(music)
    shutil.copy(music / "artist 5" / "song.wav", music / "artist 0" / "a copy.wav")
    corpus = build(music)
    assert sources(corpus) == FIRST
    assert pq.read_table(corpus.folder / "quarantine.parquet").to_pylist() == [
        {"path": "artist 0/a copy.wav", "reason": "duplicate", "detail": "same audio as artist 5/song.wav"}
    ]


def test_other_splits_leave_the_shards_alone(music: Path, watch: Watch) -> None:
    links = inodes(build(music))
    watch.clear()
    corpus = build(music, "corpus.valid_fraction=0.5")
    assert sources(corpus) == FIRST and inodes(corpus) == links and watch.decoded == []
    assert len(corpus.rows("valid")) == 4


@pytest.mark.parametrize("cause", ["parameter", "damage", "decoder"])
def test_what_cannot_be_trusted_is_made_anew(
    music: Path, watch: Watch, cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    links = inodes(build(music))
    if cause == "damage":
        (Layout.at(music.parent).corpus / "shards" / "00001.pcm").unlink()
    if cause == "decoder":

        def quieter(path: Path) -> Decoded:
            found = decode(path)
            return Decoded(found.waveform * np.float32(0.999), found.source_rate, found.source_seconds, 1.0)

        monkeypatch.setattr(incremental, "decode", quieter)
    watch.clear()
    corpus = build(music, *(["corpus.licence=CC-BY-4.0"] if cause == "parameter" else []))
    assert sources(corpus) == FIRST and len(watch.decoded) == 8
    assert not set(inodes(corpus).values()) & set(links.values())
    assert "all music is read anew" in caplog.text


def test_dvc_leaves_the_previous_corpus_in_place(repository: Path) -> None:
    stage = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]["corpus"]
    assert stage["outs"] == [{"data/corpus": {"persist": True}}]


def test_a_file_system_without_links_gets_copies(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build(music)
    expected, links = contents(before), inodes(before)

    def refuse(*paths: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    again = build(music)
    assert contents(again) == expected and not set(inodes(again).values()) & set(links.values())


def test_killed_half_way_the_old_corpus_still_stands(music: Path) -> None:
    before = build(music)
    expected, links = contents(before), inodes(before)
    for seed in range(20, 60):
        write(music / f"new {seed}" / "song.wav", seed, seconds=20)
    script = (
        "from pathlib import Path\n"
        "from tests.corpus.test_incremental import build\n"
        f"build(Path({str(music)!r}), 'threads=1')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list((music.parent / "data").glob(".corpus.*/shards/00004.pcm")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    standing = Corpus.open(before.folder)
    assert contents(standing) == expected and inodes(standing) == links
    assert len(build(music)) == 48
    assert [path.name for path in (music.parent / "data").iterdir()] == ["corpus"]
