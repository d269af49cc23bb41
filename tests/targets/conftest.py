from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config, load_config
from mert_core.data.record import Record, write_record
from mert_core.data.track import SourceTrack
from mert_core.files import sha256_file
from mert_core.paths import Layout
from mert_core.targets.stage import run
from mert_core.teachers.codec.model import RvqVae
from mert_core.teachers.codec.train import RvqVaeSettings, RvqVaeTeacher, condition
from mert_core.teachers.registry import save_teacher
from mert_core.tracking import NullTracker
from tests.stored import write_corpus

SECONDS = (3.0, 4.5, 3.2, 3.0, 5.0)
SPLIT_OF = ("train", "train", "valid", "train", "test")
LENIENT = ["targets.gate.min_usage=0.5", "targets.gate.min_entropy_bits=0.5", "targets.gate.max_top_share=0.95"]


@pytest.fixture
def small(repository: Path) -> Config:
    """Parameters whose gate lets the little teacher below pass."""
    return load_config(repository / "params.yaml", ["threads=1", *LENIENT])


def music_of(number: int) -> np.ndarray:
    """Noise that swells and fades, of a track's length."""
    generator = np.random.default_rng(number)
    noise = 0.1 * generator.standard_normal(int(SECONDS[number % 5] * SAMPLE_RATE)).astype(np.float32)
    return noise * np.abs(np.sin(np.arange(len(noise)) * (number + 1) / 9000)).astype(np.float32)


def make_corpus(folder: Path, tracks: int = len(SECONDS), splits: dict[int, str] | None = None) -> None:
    """Write a corpus of so many tracks, in shards of at most 7.7 seconds."""

    def track(number: int) -> SourceTrack:
        split: Any = (splits or {}).get(number, SPLIT_OF[number % 5])
        return SourceTrack(f"t{number}", music_of(number), 24000, "s", f"p{number}", "a", split, "CC0")

    writer = write_corpus(folder, map(track, range(tracks)), shard_megabytes=0.37)
    assert writer.tracks == tracks, writer.quarantine


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a corpus of five tracks in three shards, and a teacher that was never trained."""
    layout = Layout.at(tmp_path_factory.mktemp("music"))
    make_corpus(layout.corpus)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = RvqVaeTeacher(RvqVaeSettings(codebooks=3, entries=8, filters=4, dimension=8))
        model = RvqVae(teacher.model.architecture).eval()
        waveform = torch.randn(4, 48_000) * torch.linspace(0, 0.3, 48_000)
        condition(model, waveform.flatten(0, 1).unsqueeze(0)[:, :96_000])
        model.start_codebooks(model.encoder(waveform.unsqueeze(1)).detach())
    save_teacher(layout.teacher("rvqvae"), teacher.adopt(model))
    write_record(
        layout.teacher("rvqvae"), stage="teachers", kind="teacher", run="rvqvae", inputs={}, params={}, facts={}
    )
    return layout.root


@pytest.fixture
def layout(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A working directory of its own on the shared corpus and teacher."""
    monkeypatch.delenv("MERT_HOME", raising=False)
    (tmp_path / "data").mkdir()
    for name in ("corpus", "teachers"):
        (tmp_path / "data" / name).symlink_to(music / "data" / name)
    return Layout.at(tmp_path)


Label = Callable[..., Record]


@pytest.fixture
def label(small: Config, layout: Layout) -> Label:
    """Run the stage: label the corpus with a teacher."""

    def label(name: str = "rvqvae", **sections: object) -> Record:
        return run(small.model_copy(update=sections), layout, NullTracker(), name)

    return label


def hashes(layout: Layout) -> dict[str, str]:
    """Return the SHA-256 of every file of the targets."""
    folder = layout.targets("rvqvae")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}
