"""`CorpusWriter` and `Corpus`: what goes in comes out."""

from __future__ import annotations

import pickle
import timeit
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mert_core.data.corpus import Corpus
from mert_core.data.manifest import SHARDS_NAME
from mert_core.data.shards import to_float32
from mert_core.data.tables import read_table
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from tests.stored import write_corpus


def track(number: int, seconds: float = 4.0, **changes: object) -> SourceTrack:
    wave = np.random.default_rng(number).uniform(-1, 1, round(seconds * 24000)).astype(np.float32)
    known: dict[str, object] = {
        "track_id": f"t{number}",
        "waveform": wave,
        "source_rate": 24000,
        "source": f"s{number}",
        "piece": f"p{number}",
        "artist": "a",
        "split": ("train", "valid", "test")[number % 3],
        "licence": "CC0",
        "labels": {"key": np.int16(number % 24), "family": "", "programs": [np.int16(number)]},
        "notes": [{"pitch": np.int16(60 + note), "onset_seconds": np.float32(note)} for note in range(number)],
        "beats": [{"seconds": np.float32(0.5), "downbeat": True}],
    }
    return SourceTrack(**{**known, **changes})  # type: ignore[arg-type]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    write_corpus(tmp_path, [track(number, 3 + number / 7) for number in range(7)])
    return Corpus.open(tmp_path)


def test_crops_are_the_tracks_own_samples(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(corpus), 40)
    starts = rng.integers(0, corpus.samples[rows] - 24000 + 1)
    crops = corpus.crops(rows, starts, 24000)
    assert crops.shape == (40, 24000) and crops.dtype == np.int16 and len(set(corpus.shard)) > 1
    for crop, row, start in zip(crops, rows, starts, strict=True):
        source = track(int(row), 3 + int(row) / 7).waveform[start : start + 24000]
        assert np.abs(crop / 32768 - source).max() <= 1 / 32768
    again = pickle.loads(pickle.dumps(corpus)).crops(rows, starts, 24000, out=np.empty((40, 24000), np.int16))
    assert np.array_equal(again, crops)
    waveforms = corpus.crops(rows, starts, 24000, out=np.empty((40, 24000), np.float32))
    assert np.array_equal(waveforms, to_float32(crops))


def test_a_crop_never_reads_another_track(corpus: Corpus) -> None:
    length = int(corpus.samples[2])
    assert corpus.crops(np.array([2]), np.array([0]), length).shape == (1, length)
    for start in (-1, 1):
        with pytest.raises(IndexError, match="row 2"):
            corpus.crops(np.array([3, 2]), np.array([0, start]), length)


def test_tables_keep_types_and_order(corpus: Corpus) -> None:
    labels = corpus.labels()
    assert labels["track_id"].to_pylist() == corpus.tracks["track_id"].to_pylist()
    assert labels.schema.field("key").type == pa.int16()
    assert labels.schema.field("programs").type == pa.list_(pa.int16())
    assert labels["key"].to_pylist() == list(range(7))
    notes = read_table(corpus.folder / "notes.parquet")
    assert notes.num_rows == 21 and notes.schema.field("onset_seconds").type == pa.float32()
    assert corpus.beats()["downbeat"].to_pylist() == [True] * 7
    assert corpus.rows("valid").tolist() == [1, 4] and corpus.rows("none").tolist() == []


def test_fewer_hours_are_the_same_random_subset_and_nested(tmp_path: Path) -> None:
    tracks = [track(number, 1 + number % 5, notes=[], beats=[]) for number in range(60)]
    write_corpus(tmp_path, tracks)
    whole = Corpus.open(tmp_path)
    hours = whole.samples[whole.rows("train")].sum() / 24000 / 3600
    halves = [whole.with_hours(hours * share) for share in (0.1, 0.5, 0.5, 1.0)]
    rows = [set(corpus.rows("train")) for corpus in halves]
    assert rows[0] < rows[1] == rows[2] < rows[3] == set(whole.rows("train"))
    taken = whole.samples[halves[1].rows("train")].sum() / 24000 / 3600
    assert 0.4 * hours < taken <= 0.5 * hours
    assert np.array_equal(halves[0].rows("valid"), whole.rows("valid"))
    assert rows[1] != set(sorted(whole.rows("train"))[: len(rows[1])]), "random, not the first ones"
    with pytest.raises(MertError, match="hours is 7, but the training split"):
        whole.with_hours(7)
    write_corpus(tmp_path / "more", [*tracks[::-1], *(track(n, 2, notes=[], beats=[]) for n in range(60, 90))])
    more = Corpus.open(tmp_path / "more")
    kept = more.column("track_id")[more.with_hours(hours * 0.1).rows("train")]
    first = whole.column("track_id")[sorted(rows[0])]
    assert set(kept) & {f"t{n}" for n in range(60)} <= set(first), "other music does not change the order"


def test_left_out_tracks_leave_no_labels(tmp_path: Path) -> None:
    same = track(0).waveform
    writer = write_corpus(
        tmp_path,
        [track(0), track(1, waveform=same), track(2), track(3, 0.01), track(4, waveform=np.zeros(96000, np.float32))],
    )
    assert [(row["path"], row["reason"]) for row in writer.quarantine.rows] == [
        ("s1", "duplicate"),
        ("s3", "too short"),
        ("s4", "silent"),
    ]
    assert "s0" in writer.quarantine.rows[0]["detail"]
    assert Corpus.open(tmp_path).labels()["track_id"].to_pylist() == ["t0", "t2"]


def test_no_labels_and_no_corpus(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", [track(0, labels=None, notes=None, beats=None)])
    with pytest.raises(MertError, match="no labels"):
        Corpus.open(tmp_path / "corpus").labels()
    assert not (tmp_path / "corpus" / "notes.parquet").exists()
    with pytest.raises(MertError, match=r"record.json is missing"):
        Corpus.open(tmp_path / "nothing")


def test_a_cut_shard_is_noticed(corpus: Corpus) -> None:
    shard = corpus.folder / SHARDS_NAME / "00001.pcm"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(MertError, match=r"00001.pcm has"):
        Corpus.open(corpus.folder)
    shard.unlink()
    with pytest.raises(MertError, match=r"00001.pcm is missing"):
        Corpus.open(corpus.folder)


def test_crops_are_quick(corpus: Corpus) -> None:
    """An alarm well below what was measured; a slow machine must not fail it."""
    rows, starts, out = np.zeros(256, np.int64), np.arange(256), np.empty((256, 24000), np.int16)
    corpus.crops(rows, starts, 24000, out)
    best = min(timeit.repeat(lambda: corpus.crops(rows, starts, 24000, out), number=1, repeat=5))
    assert 256 / best > 4000
