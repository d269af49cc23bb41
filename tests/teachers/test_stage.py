"""The stage on a real little corpus."""

from __future__ import annotations

from pathlib import Path

import encodec
import numpy as np
import pytest
import torch

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.config import Config, load_config
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import write_manifest
from mert_core.corpus.track import SourceTrack
from mert_core.corpus.writer import CorpusWriter
from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.records import write_record
from mert_core.teachers import load_acoustic
from mert_core.teachers.music import StoredMusic
from mert_core.teachers.stage import run
from mert_core.tracking.protocol import NullTracker

SMALL = [
    "threads=1", "teachers.acoustic.steps=8", "teachers.acoustic.batch_clips=2", "teachers.acoustic.filters=2",
    "teachers.acoustic.dimension=8", "teachers.acoustic.entries=8", "teachers.acoustic.crop_seconds=0.2",
]  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A working directory with a corpus of four tracks in two shards."""
    monkeypatch.delenv("MERT_HOME", raising=False)
    layout = Layout.at(tmp_path)
    generator = np.random.default_rng(0)
    layout.corpus.mkdir(parents=True)
    with CorpusWriter(layout.corpus, shard_megabytes=0.4) as writer:
        for number, split in enumerate(("train", "train", "valid", "train")):
            noise = 0.1 * generator.standard_normal((3 + number) * SAMPLE_RATE).astype(np.float32)
            writer.add(SourceTrack(f"t{number}", noise, 24000, "s", f"p{number}", "a", split, "CC0"))  # type: ignore[arg-type]  # fmt: skip
        write_manifest(layout.corpus, writer.manifest())
    write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={}, facts={})
    return layout


@pytest.fixture
def small(repository: Path) -> Config:
    return load_config(repository / "params.yaml", SMALL)


def test_trains_to_the_same_bytes_twice_and_cleans_up(small: Config, layout: Layout) -> None:
    first = run(small, layout, NullTracker())
    files = {path.name: sha256_file(path) for path in layout.teachers.iterdir()}
    assert first == run(small, layout, NullTracker())
    assert files == {path.name: sha256_file(path) for path in layout.teachers.iterdir()}
    assert first.kind == "teacher"
    assert first.facts["origin"] == "trained"
    assert not list(layout.resume.glob("*"))
    codes = load_acoustic(layout.teachers).encode(torch.zeros(1, SAMPLE_RATE))
    assert codes.shape == (1, 75, 8)


def test_music_is_the_corpuss(layout: Layout) -> None:
    corpus, music = Corpus.open(layout.corpus), StoredMusic(layout.corpus)
    assert music.samples.tolist() == corpus.samples.tolist()
    assert music.rows("train").tolist() == corpus.rows("train").tolist() == [0, 1, 3]
    rows, offsets = np.array([3, 0]), np.array([17, 4000])
    assert np.array_equal(music.crops(rows, offsets, 640), corpus.crops(rows, offsets, 640))
    with pytest.raises(MertError, match="dvc repro corpus"):
        StoredMusic(layout.teachers)


def test_published_weights_are_taken_unchanged(repository: Path, layout: Layout) -> None:
    state = encodec.EncodecModel.encodec_model_24khz(pretrained=False).state_dict()
    torch.save(state, layout.root / "encodec.th")
    named = ["threads=1", "teachers.acoustic.checkpoint=encodec.th"]
    with pytest.raises(MertError, match=r"entries 256 do not fit.*entries: 1024"):
        run(load_config(repository / "params.yaml", named), layout, NullTracker())
    record = run(
        load_config(repository / "params.yaml", [*named, "teachers.acoustic.entries=1024"]), layout, NullTracker()
    )
    assert record.facts == {"origin": "encodec_24khz"}
    teacher = load_acoustic(layout.teachers)
    assert (teacher.codebooks, teacher.entries) == (8, 1024)
    assert torch.equal(
        teacher.model.quantizer.vq.layers[31]._codebook.embed, state["quantizer.vq.layers.31._codebook.embed"]
    )
