"""The stage on a real little corpus: alignment, checksums, resuming, and the gate in place."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mert_core.audio.frames import HOP_SAMPLES
from mert_core.config import Config, load_config
from mert_core.corpus import Corpus
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.targets import TargetStore
from mert_core.targets.stage import run
from mert_core.teachers import load_acoustic
from mert_core.tracking.protocol import NullTracker


class Tables(NullTracker):
    """Keeps the tables it is given."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Mapping[str, Any]]] = {}

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.tables[name] = list(rows)


def test_codes_are_the_teachers_at_the_tracks_place(small: Config, layout: Layout) -> None:
    record = run(small, layout, NullTracker())
    corpus, store, teacher = (
        Corpus.open(layout.corpus),
        TargetStore.open(layout.targets),
        load_acoustic(layout.teachers),
    )
    assert len(set(corpus.column("shard"))) > 1
    assert store.frames.tolist() == (corpus.samples // HOP_SAMPLES).tolist()
    for row in range(len(corpus)):
        waveform = torch.from_numpy(corpus.pcm(row).astype(np.float32) / 32768).unsqueeze(0)
        expected = teacher.encode(waveform)[0].numpy()
        # Not all: the last bit of a matrix product depends on the batch, and may turn a near tie.
        assert np.mean(store.track(row) == expected) > 0.995
        assert np.array_equal(store.codes(np.array([row]), np.array([20]), 50)[0], store.track(row)[20:70])
    assert record.inputs == {"corpus": corpus.record.id, "teacher": teacher_id(layout)}
    usage = pq.read_table(layout.targets / "usage.parquet").to_pandas()
    for split, rows in (("train", [0, 1, 3]), ("valid", [2]), ("test", [4])):
        mine = usage[(usage.split == split) & (usage.codebook == 1)].sort_values("entry")["count"].tolist()
        codes = np.concatenate([store.track(row)[:, 1] for row in rows])
        assert mine == np.bincount(codes, minlength=8).tolist()


def teacher_id(layout: Layout) -> str:
    from mert_core.records import read_record

    return read_record(layout.teachers).id


def test_a_stretch_outside_its_track_is_refused(small: Config, layout: Layout) -> None:
    run(small, layout, NullTracker())
    store = TargetStore.open(layout.targets)
    with pytest.raises(IndexError):
        store.codes(np.array([0, 1]), np.array([0, int(store.frames[1]) - 9]), 10)
    assert store.codes(np.array([0, 1]), np.array([0, int(store.frames[1]) - 10]), 10).shape == (2, 10, 3)


def test_a_flipped_byte_is_found_and_its_shard_named(small: Config, layout: Layout) -> None:
    run(small, layout, NullTracker())
    path = layout.targets / "shards" / "00001.codes"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    store = pickle.loads(pickle.dumps(TargetStore.open(layout.targets)))
    store.track(0)
    in_second = int(np.flatnonzero(Corpus.open(layout.corpus).column("shard") == 1)[0])
    with pytest.raises(MertError, match=r"00001\.codes has changed.*dvc checkout"):
        store.track(in_second)
    path.unlink()
    with pytest.raises(MertError, match=r"00001\.codes is missing"):
        TargetStore.open(layout.targets).track(in_second)


def test_running_twice_gives_the_same_bytes(small: Config, layout: Layout) -> None:
    first = run(small, layout, NullTracker())
    files = {path.name: sha256_file(path) for path in layout.targets.rglob("*") if path.is_file()}
    second = run(small, layout, NullTracker())
    assert first == second
    assert files == {path.name: sha256_file(path) for path in layout.targets.rglob("*") if path.is_file()}
    assert not list(layout.resume.glob("*"))


def test_an_interrupted_run_keeps_its_finished_shards(
    small: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mert_core.targets import encode

    whole = encode._encode_shard
    done: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return whole(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode, "_encode_shard", interrupted)
        run(small, layout, NullTracker())
    assert not layout.targets.exists()
    (kept,) = layout.resume.rglob("*.codes")
    before = kept.stat().st_mtime_ns
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(kept.stat().st_mtime_ns)
        return whole(*arguments)

    monkeypatch.setattr(encode, "_encode_shard", counted)
    run(small, layout, NullTracker())
    shards = set(Corpus.open(layout.corpus).column("shard"))
    assert calls == [before] * (len(shards) - 1)


def test_the_gate_shows_its_table_and_leaves_nothing(
    repository: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = load_config(repository / "params.yaml", ["threads=1", "targets.gate.min_entropy_bits=9"])
    tracker = Tables()
    with pytest.raises(MertError, match=r"codebook 0: entropy bits is .* allowed >= 9; train the teacher"):
        run(strict, layout, tracker)
    assert "label gate" in capsys.readouterr().err
    assert any(not row["passed"] for row in tracker.tables["gate"])
    assert not layout.targets.exists()
    assert [path.name for path in layout.targets.parent.iterdir() if path.name.startswith(".")] == []


def test_missing_teacher_says_what_to_run(small: Config, layout: Layout) -> None:
    layout.teachers.unlink()
    with pytest.raises(MertError, match="dvc repro"):
        run(small, layout, NullTracker())
    shutil.rmtree(layout.resume, ignore_errors=True)


def test_the_bytes_do_not_depend_on_the_number_of_threads(
    small: Config, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mert_core.targets.encode._BATCH_SAMPLES", 100_000)  # a batch per track
    found = []
    for threads in (1, 2):
        run(small.model_copy(update={"threads": threads}), layout, NullTracker())
        found.append({path.name: sha256_file(path) for path in sorted(layout.targets.rglob("*.codes"))})
        shutil.rmtree(layout.targets)
    assert len(found[0]) > 1
    assert found[0] == found[1]
