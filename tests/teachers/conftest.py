"""A little corpus with chords and noise, a little student, and every teacher of the registry fitted on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
from mert_core.data.corpus import Corpus
from mert_core.data.record import write_record
from mert_core.data.track import SourceTrack
from mert_core.model.config import MertConfig
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.teachers.base import Sources, Teacher
from mert_core.teachers.codec import encodec
from mert_core.teachers.codec.encodec import FILE_NAME
from mert_core.teachers.codec.model import Architecture, RvqVae
from mert_core.teachers.codec.train import condition
from mert_core.teachers.registry import TEACHERS, new_teacher
from tests.stored import write_corpus

SMALL_PUBLISHED = Architecture(codebooks=8, entries=16, filters=2, dimension=8)
"""EnCodec's shape for tests: the published one is right but takes seconds per pass."""
_CLUSTERS = {"clusters": 32, "fit_frames": 600, "iterations": 5}
SMALL: dict[str, dict[str, Any]] = {
    "encodec": {"checkpoint": FILE_NAME},
    "rvqvae": {
        "codebooks": 2,
        "entries": 8,
        "filters": 2,
        "dimension": 8,
        "crop_seconds": 0.2,
        "batch_clips": 2,
        "steps": 4,
        "learning_rate": 1e-3,
    },
    "logmel-kmeans": _CLUSTERS,
    "chroma-kmeans": _CLUSTERS,
    "mfcc-kmeans": _CLUSTERS,
    "student-kmeans": {**_CLUSTERS, "student": "student", "layer": 1, "block_seconds": 1.2},
    "best-rq": {"entries": 128, "codebooks": 2, "stacked_frames": 2, "fit_frames": 600},
    "mel-rvq": {"codebooks": 3, "entries": 32, "fit_frames": 600, "batch_frames": 64, "steps": 6},
}
"""Settings that fit in a moment. A teacher that is not listed is tested with its defaults."""


def performance(seconds: float, seed: int) -> np.ndarray:
    """Return float32 (samples,): a chord every quarter of a second over some noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.01 * generator.standard_normal(len(time))
    for start in np.arange(0.0, seconds, 0.25):
        there = (time >= start) & (time < start + 0.25)
        for pitch in generator.integers(40, 80, size=3):
            hertz = 440.0 * 2.0 ** ((pitch - 69) / 12)
            since = time[there] - start
            wave[there] += 0.15 * np.exp(-6.0 * since) * np.sin(2 * np.pi * hertz * since)
    return wave.astype(np.float32)


def tracks() -> list[torch.Tensor]:
    """Return three tracks of whole frames, (samples,) each, that no teacher was fitted on."""
    lengths = (360, 431, 503)
    found = [torch.from_numpy(performance(7.0, seed)) for seed in range(20, 23)]
    return [track[: frames * HOP_SAMPLES] for track, frames in zip(found, lengths, strict=True)]


def make_corpus(layout: Layout) -> None:
    def track(number: int, split: Any) -> SourceTrack:
        return SourceTrack(f"t{number}", performance(3.1 + number, number), 24000, "s", f"p{number}", "a", split, "CC0")

    splits = ("train", "train", "valid", "train")
    write_corpus(layout.corpus, (track(*item) for item in enumerate(splits)), shard_megabytes=0.4)


def write_student(folder: Path) -> None:
    config = MertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        do_stable_layer_norm=True,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feature_extractor_cqt=True,
    )
    MertModel(config, seed=3).save_pretrained(folder)
    write_record(folder, stage="pretrain", kind="checkpoint", run="small", inputs={}, params={}, facts={})


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A working directory with a corpus of four tracks in two shards."""
    monkeypatch.delenv("MERT_HOME", raising=False)
    layout = Layout.at(tmp_path)
    make_corpus(layout)
    return layout


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """What every teacher can be fitted on."""
    layout = Layout.at(tmp_path_factory.mktemp("sources"))
    make_corpus(layout)
    write_student(layout.root / "student")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        published = RvqVae(SMALL_PUBLISHED)
        waves = torch.from_numpy(performance(3.0, 9))[None]
        condition(published, waves)
        with torch.no_grad():
            published.start_codebooks(published.encoder(waves[:, None]))
        torch.save(published.state_dict(), layout.root / FILE_NAME)
    return Sources(Corpus.open(layout.corpus), layout.root, None, 1337, lambda values, step: None)


@pytest.fixture(scope="session")
def fitted(sources: Sources) -> Callable[[str], Teacher]:
    """A teacher by name, fitted once."""
    made: dict[str, Teacher] = {}

    def get(name: str) -> Teacher:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(encodec, "PUBLISHED", SMALL_PUBLISHED)
                made[name] = new_teacher(name, SMALL.get(name))
                made[name].fit(sources)
            made[name].freeze()
        return made[name]

    assert SMALL.keys() <= TEACHERS.keys()
    return get
