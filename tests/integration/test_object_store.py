"""Shards and DVC's remote on a real S3 API: reading, training, uploading, and what goes wrong."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from s3fs import S3FileSystem

from mert_core import upload as upload_module
from mert_core.config import Config, load_config
from mert_core.data import remote
from mert_core.data.corpus import Corpus
from mert_core.data.targets import TargetStore
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.tracking import NullTracker
from mert_core.training import stage
from mert_core.upload import upload
from tests.e2e.tiny import clone, commit, run, set_parameters
from tests.object_store import BUCKET, Store, running_store
from tests.training.test_stage import layout, small

__all__ = ["layout", "small"]  # fixtures: a corpus and its targets on disk, and a run of three steps

pytestmark = pytest.mark.integration
URL = f"s3://{BUCKET}/demo"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as running:
        yield running


@pytest.fixture
def uploaded(store: Store, layout: Layout) -> Iterator[Layout]:
    upload(layout, URL)
    yield layout
    S3FileSystem().rm(URL, recursive=True)


def test_what_is_read_is_what_lies_in_the_folder(uploaded: Layout) -> None:
    local, far = Corpus.open(uploaded.corpus), Corpus.open(uploaded.corpus, shards=f"{URL}/corpus")
    assert len(set(local.shard)) > 1
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(local), 20)
    starts = rng.integers(0, local.samples[rows] - 24000 + 1) // 320 * 320
    again = pickle.loads(pickle.dumps(far))
    for dtype in (np.int16, np.float32):
        expected = local.crops(rows, starts, 24000, np.empty((20, 24000), dtype))
        assert np.array_equal(again.crops(rows, starts, 24000, np.empty((20, 24000), dtype)), expected)
    assert np.array_equal(far.pcm(3), local.pcm(3))

    near, away = (
        TargetStore.open(uploaded.targets("rvqvae"), shards=shards) for shards in (None, f"{URL}/targets/rvqvae")
    )
    assert np.array_equal(away.read(rows, starts // 320, 75), near.read(rows, starts // 320, 75))
    assert np.array_equal(away.track(3), near.track(3))


def test_training_from_the_store_gives_the_same_model_to_the_byte(small: Config, uploaded: Layout) -> None:
    expected = stage.run(small, uploaded, NullTracker(), "tiny")
    shutil.rmtree(uploaded.corpus / "shards")
    shutil.rmtree(uploaded.targets("rvqvae") / "shards")
    away = load_config(uploaded.root / "params.yaml", [f"storage.shards={URL}", "storage.read_ahead=4"])
    assert stage.run(away, uploaded, NullTracker(), "tiny") == expected


def test_an_upload_goes_on_and_sends_nothing_twice(
    store: Store, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/again"
    shards = upload_module.list_shards(layout, url)
    assert len(shards) >= 4
    last = shards[-1].path
    content = last.read_bytes()
    last.write_bytes(b"\x07" + content[1:])
    with pytest.raises(MertError, match=f"{last.name} has changed since it was written"):
        upload(layout, url)
    last.write_bytes(content)
    sent: list[str] = []
    copy = upload_module._copy
    monkeypatch.setattr(upload_module, "_copy", lambda *a: (sent.append(a[1].path.name), copy(*a)))
    assert f"{len(shards)} shards" in upload(layout, url)
    assert sent == [last.name]  # the others were there
    assert f"0 copied now (0 GB), {len(shards)} there before" in upload(layout, url)
    S3FileSystem().pipe(shards[0].url, bytes(shards[0].size))  # as long, but not the same
    assert "1 copied now" in upload(layout, url)
    assert S3FileSystem().cat(shards[0].url) == shards[0].path.read_bytes()


def test_a_large_shard_goes_in_parts(store: Store, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "_PART_BYTES", 5 * 2**20)
    path = layout.root / "00000.pcm"
    path.write_bytes(np.random.default_rng(0).bytes(11 * 2**20))
    shard = upload_module.Shard(path, f"s3://{BUCKET}/parts", sha256_file(path), path.stat().st_size)
    told: list[int] = []
    upload_module._copy(remote.filesystem(URL)[0], shard, told.append)
    assert sorted(told) == [2**20, 5 * 2**20, 5 * 2**20]
    assert S3FileSystem().cat(shard.url) == path.read_bytes()
    assert not upload_module._missing(remote.filesystem(URL)[0], [shard])


def test_missing_and_cut_objects_are_named(uploaded: Layout) -> None:
    s3, address = S3FileSystem(), f"{URL}/corpus/shards/00001.pcm"
    far = Corpus.open(uploaded.corpus, shards=f"{URL}/corpus")
    row = int(np.flatnonzero(far.shard == 1)[-1])
    where, start = np.array([row]), np.array([int(far.samples[row]) - 24000])
    content = s3.cat(address)
    for kept, message in (
        (len(content) - 1000, "the object ends after 47000 of 48000 bytes"),
        (1000, "the object ends before these bytes"),
    ):
        s3.pipe(address, content[:kept])
        with pytest.raises(MertError, match=rf"{address}, bytes \d+ … {len(content) - 1}: {message}.*mert upload"):
            far.crops(where, start, 24000)
        with pytest.raises(MertError, match=rf"{address} has {kept} bytes; the manifest needs {len(content)} bytes"):
            Corpus.open(uploaded.corpus, shards=f"{URL}/corpus")
    s3.rm(address)
    with pytest.raises(MertError, match=rf"{address}, bytes \d+ … \d+: there is no such object or bucket"):
        far.crops(where, start, 24000)
    with pytest.raises(MertError, match=f"{address} is missing"):
        Corpus.open(uploaded.corpus, shards=f"{URL}/corpus")
    s3.rm(f"{URL}/targets/rvqvae/shards/00000.codes")
    with pytest.raises(MertError, match=r"targets/rvqvae/shards/00000.codes is missing.*mert upload"):
        TargetStore.open(uploaded.targets("rvqvae"), shards=f"{URL}/targets/rvqvae")
    with pytest.raises(MertError, match="no address of an object store"):
        Corpus.open(uploaded.corpus, shards="somewhere")


def test_an_outage_is_sat_out_or_named(store: Store, uploaded: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS_SECONDS", (0.2,) * 20)
    far = Corpus.open(uploaded.corpus, shards=f"{URL}/corpus")
    rows, starts = np.arange(4), np.zeros(4, np.int64)
    expected = far.crops(rows, starts, 24000)
    store.stop()
    back = threading.Timer(1.0, store.answer_again)
    back.start()
    assert np.array_equal(far.crops(rows, starts, 24000), expected)
    back.join()
    store.stop()
    monkeypatch.setattr(remote, "WAITS_SECONDS", (0.1,))
    try:
        with pytest.raises(MertError, match=r"00000.pcm, bytes 0 … 47999: cannot be read after 2 attempts.*AWS_ENDPO"):
            far.crops(rows, starts, 24000)
    finally:
        store.answer_again()


def music(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        (folder / f"artist{number}").mkdir(parents=True)
        soundfile.write(folder / f"artist{number}" / "song.wav", 0.1 * rng.standard_normal(24000 * 4), 24000)


def test_dvc_pushes_pulls_and_reproduces_from_the_store(repository: Path, tmp_path: Path, store: Store) -> None:
    first, second = clone(repository, tmp_path / "first"), tmp_path / "second"
    music(tmp_path / "music")
    set_parameters(first, {"corpus.source": "folder", "corpus.folder": str(tmp_path / "music")})
    run(first, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    run(first, "dvc", "repro", "corpus")
    commit(first, "corpus")
    run(first, "dvc", "push")

    def found(folder: Path) -> dict[str, str]:
        return {path.name: sha256_file(path) for path in (folder / "data/corpus").rglob("*") if path.is_file()}

    made = found(first)
    assert {"00000.pcm", "manifest.parquet", "record.json"} <= set(made)
    shutil.rmtree(first / "data")
    shutil.rmtree(first / ".dvc" / "cache")
    run(first, "dvc", "pull", "corpus")
    assert found(first) == made

    shutil.rmtree(tmp_path / "music")  # the stage cannot run again
    run(tmp_path, "git", "clone", "-q", str(first), str(second))
    said = run(second, "dvc", "repro", "--pull", "corpus")
    assert "Running stage" not in said and found(second) == made
    assert "up to date" in run(second, "dvc", "status", "corpus")
