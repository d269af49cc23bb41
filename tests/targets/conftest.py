from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mert_core.audio.frames import SAMPLE_RATE
from mert_core.config import Config, load_config
from mert_core.corpus.manifest import write_manifest
from mert_core.corpus.track import SourceTrack
from mert_core.corpus.writer import CorpusWriter
from mert_core.paths import Layout
from mert_core.records import write_record
from mert_core.teachers.acoustic import save_acoustic
from mert_core.teachers.conditioning import condition
from mert_core.teachers.rvqvae import Architecture, RvqVae

SECONDS = (3.0, 4.5, 3.2, 3.0, 5.0)


@pytest.fixture
def small(repository: Path) -> Config:
    """Parameters whose gate lets the little teacher below pass."""
    gate = "targets.gate={min_usage: 0.5, min_entropy_bits: 0.5, max_top_share: 0.95, max_drift_frames: 1}"
    return load_config(repository / "params.yaml", ["threads=1", gate])


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a corpus of five tracks in two shards, and a teacher that was never trained."""
    layout = Layout.at(tmp_path_factory.mktemp("music"))
    generator = np.random.default_rng(0)
    layout.corpus.mkdir(parents=True)
    with CorpusWriter(layout.corpus, shard_megabytes=0.55) as writer:
        for number, seconds in enumerate(SECONDS):
            noise = 0.1 * generator.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
            loudness = np.abs(np.sin(np.arange(len(noise)) * (number + 1) / 9000)).astype(np.float32)
            split = ("train", "train", "valid", "train", "test")[number]
            writer.add(SourceTrack(f"t{number}", noise * loudness, 24000, "s", f"p{number}", "a", split, "CC0"))  # type: ignore[arg-type]  # fmt: skip
        assert writer.tracks == len(SECONDS), writer.quarantine
        write_manifest(layout.corpus, writer.manifest())
    write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={}, facts={})

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RvqVae(Architecture(codebooks=3, entries=8, filters=4, dimension=8)).eval()
        waveform = torch.from_numpy(generator.standard_normal((4, 48_000)).astype(np.float32))
        waveform *= torch.linspace(0, 0.3, 48_000)
        condition(model, waveform.flatten(0, 1).unsqueeze(0)[:, :96_000])
        model.start_codebooks(model.encoder(waveform.unsqueeze(1)).detach())
    layout.teachers.mkdir(parents=True)
    save_acoustic(layout.teachers, model, codebooks=3, origin="trained")
    write_record(layout.teachers, stage="teachers", kind="teacher", inputs={}, params={}, facts={})
    return layout.root


@pytest.fixture
def layout(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A working directory of its own on the shared corpus and teacher."""
    monkeypatch.delenv("MERT_HOME", raising=False)
    (tmp_path / "data").mkdir()
    for name in ("corpus", "teachers"):
        (tmp_path / "data" / name).symlink_to(music / "data" / name)
    return Layout.at(tmp_path)
