"""The stage on a real little corpus: alignment, checksums, and the gate in place."""

from __future__ import annotations

import pickle
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mert_core.audio.grid import HOP_SAMPLES
from mert_core.config import load_config
from mert_core.data.corpus import Corpus
from mert_core.data.record import read_record
from mert_core.data.target_kinds import Codes, Spectrum
from mert_core.data.targets import TargetStore
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.targets.label import BATCH_SAMPLES
from mert_core.targets.stage import run
from mert_core.teachers.registry import load_teacher
from mert_core.teachers.spectra import ConstantQTeacher
from mert_core.tracking import NullTracker
from tests.targets.conftest import Label, hashes


def test_codes_are_the_teachers_at_the_tracks_place(label: Label, layout: Layout) -> None:
    record = label()
    corpus, store = Corpus.open(layout.corpus), TargetStore.open(layout.targets("rvqvae"))
    teacher = load_teacher(layout.teacher("rvqvae"))
    assert len(set(corpus.shard)) > 1
    assert store.frames.tolist() == (corpus.samples // HOP_SAMPLES).tolist()
    for row in range(len(corpus)):
        waveform = torch.from_numpy(corpus.pcm(row).astype(np.float32) / 32768).unsqueeze(0)
        expected = teacher(waveform)[0].numpy()
        # Not all: the last bit of a matrix product depends on the batch, and may turn a near tie.
        assert np.mean(store.track(row) == expected) > 0.995
        assert np.array_equal(store.read(np.array([row]), np.array([20]), 50)[0], store.track(row)[20:70])
    assert not list(layout.resume.glob("*")) and record.run == store.teacher == "rvqvae"
    assert store.kind == Codes(3, 8)
    assert record.inputs == {"corpus": corpus.record.id, "teacher": read_record(layout.teacher("rvqvae")).id}
    assert store.teacher_id == record.inputs["teacher"]
    usage = pq.read_table(layout.targets("rvqvae") / "usage.parquet").to_pandas()
    for split, rows in (("train", [0, 1, 3]), ("valid", [2]), ("test", [4])):
        mine = usage[(usage.split == split) & (usage.codebook == 1)].sort_values("entry")["count"].tolist()
        codes = np.concatenate([store.track(row)[:, 1] for row in rows])
        assert mine == np.bincount(codes, minlength=8).tolist()


def test_spectra_are_the_teachers_in_float16(label: Label, layout: Layout) -> None:
    label("cqt")
    corpus, store = Corpus.open(layout.corpus), TargetStore.open(layout.targets("cqt"))
    assert store.kind == Spectrum(336)
    for row in range(len(corpus)):
        waveform = torch.from_numpy(corpus.pcm(row).astype(np.float32) / 32768).unsqueeze(0)
        expected = ConstantQTeacher()(waveform)[0].numpy()
        found = store.read(np.array([row]), np.array([7]), 60)[0]
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected[7:67]) < 4e-4 * np.linalg.norm(expected[7:67])
    bins = pq.read_table(layout.targets("cqt") / "bins.parquet").to_pandas()
    train = np.concatenate([store.track(row) for row in (0, 1, 3)]).astype(np.float64)
    mine = bins[bins.split == "train"].sort_values("bin")
    assert np.allclose(mine["mean"], train.mean(axis=0)) and np.allclose(mine["deviation"], train.std(axis=0))
    assert np.array_equal(mine["most"], train.max(axis=0))


def test_the_example_is_the_first_validation_track(label: Label, layout: Layout) -> None:
    record = label()
    store = TargetStore.open(layout.targets("rvqvae"))
    with np.load(layout.targets("rvqvae") / "example.npz") as example:
        assert np.array_equal(example["targets"], store.track(2))
        assert example["log_mel"].shape == (len(store.track(2)), 128) and np.ptp(example["log_mel"]) > 1
    assert record.facts["example"] == "t2"


def test_a_stretch_outside_its_track_is_refused(label: Label, layout: Layout) -> None:
    label()
    store = TargetStore.open(layout.targets("rvqvae"))
    with pytest.raises(IndexError):
        store.read(np.array([0, 1]), np.array([0, int(store.frames[1]) - 9]), 10)
    assert store.read(np.array([0, 1]), np.array([0, int(store.frames[1]) - 10]), 10).shape == (2, 10, 3)


def test_a_flipped_byte_is_found_and_its_shard_named(label: Label, layout: Layout) -> None:
    label()
    path = layout.targets("rvqvae") / "shards" / "00001.codes"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    store = pickle.loads(pickle.dumps(TargetStore.open(layout.targets("rvqvae"))))
    store.track(0)
    in_second = int(np.flatnonzero(Corpus.open(layout.corpus).shard == 1)[0])
    with pytest.raises(MertError, match=r"00001\.codes has changed.*dvc checkout"):
        store.track(in_second)
    path.unlink()
    with pytest.raises(MertError, match=r"00001\.codes is missing"):
        TargetStore.open(layout.targets("rvqvae")).track(in_second)


def test_the_bytes_do_not_depend_on_the_number_of_threads(
    label: Label, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BATCH_SAMPLES, "cpu", 100_000)
    found = []
    for threads in (1, 2):
        label(threads=threads)
        found.append({name: value for name, value in hashes(layout).items() if name.endswith(".codes")})
        layout.targets("rvqvae").rename(layout.root / f"aside-{threads}")
    assert len(found[0]) > 1
    assert found[0] == found[1]


def test_the_gate_shows_its_table_and_leaves_nothing(
    repository: Path, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    strict = load_config(repository / "params.yaml", ["threads=1", "targets.gate.min_entropy_bits=9"])
    tracker = Mock(NullTracker)
    caplog.set_level("INFO")
    with pytest.raises(MertError, match=r"codebook 0: entropy bits is .* allowed >= 9; train the teacher"):
        run(strict, layout, tracker, "rvqvae")
    assert "gate of rvqvae" in caplog.text
    name, rows = tracker.table.call_args.args
    assert name == "gate" and any(not row["passed"] for row in rows)
    assert not layout.targets("rvqvae").exists()
    assert not list(layout.root.glob("data/targets/**/*"))


def test_a_missing_teacher_says_what_to_run(label: Label, layout: Layout) -> None:
    (layout.root / "data" / "teachers").unlink()
    with pytest.raises(MertError, match="mert teachers fit rvqvae"):
        label()
