"""Training learns, stops when it must, and passes over damaged states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.model.mert import MertModel
from mert_core.tracking import NullTracker
from mert_core.training.callbacks import BarObserver, JournalObserver, SilentObserver, follow
from mert_core.training.checkpoint import StateStore
from mert_core.training.run import Job, work
from mert_core.training.trainer import StopTraining
from mert_core.training.worker import Worker
from tests.training.music import Tones, params


def job(out: Path | None, resume: Path | None = None, **changes: object) -> Job:
    return Job(params(**changes), Tones(), seed=7, threads=1, out_folder=out, resume_folder=resume)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def hashes(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


def test_the_loss_falls_and_artefacts_are_whole(tmp_path: Path) -> None:
    out = folder(tmp_path / "out")
    facts = work(
        job(out, max_steps=30, warmup_steps=10, schedule_steps=1000, validate_every=15), Worker(), SilentObserver()
    )
    curve = pq.read_table(out / "curve.parquet").to_pandas()
    valid = curve[(curve.split == "valid") & (curve.term == "tones")].value.to_numpy()
    assert valid[-1] < valid[0]
    assert facts["steps"] == 30 and facts["valid"]["tones"] == valid[-1]
    assert 0 < facts["unigram_cross_entropy"]["tones"] <= 2 * np.log(16)
    assert {"loss", "tones", "cqt", "feature_penalty", "accuracy", "accuracy_tones_1"} <= set(facts["valid"])
    assert MertModel.from_pretrained(out).config.feature_extractor_cqt
    example = np.load(out / "example.npz")
    assert example["true_cqt"].shape == example["predicted_cqt"].shape == (len(example["mask"]), 336)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        work(job(folder(tmp_path / name)), Worker(), SilentObserver())
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_a_damaged_state_is_passed_over(tmp_path: Path) -> None:
    states = tmp_path / "states"
    work(job(None, states), Worker(), SilentObserver())
    assert StateStore(states, 2).steps() == [2, 4]
    (states / "step-00000004" / "state.pt").write_bytes(b"torn")
    notes: list[str] = []

    class Listener(SilentObserver):
        def note(self, text: str) -> None:
            notes.append(text)

    for name, resume in (("resumed", states), ("fresh", tmp_path / "other")):
        work(job(folder(tmp_path / name), resume), Worker(), Listener())
    assert "step 4 is damaged" in notes[0] and "step 2" in notes[1]
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "fresh")


def test_divergence_is_an_error_and_the_state_intact(tmp_path: Path) -> None:
    with pytest.raises(MertError, match="training stopped at update"):
        work(job(None, tmp_path, learning_rate=1e18, warmup_steps=3, max_steps=40), Worker(), SilentObserver())
    assert StateStore(tmp_path, 2).newest()[0] is not None


def test_a_report_can_stop_the_run(tmp_path: Path) -> None:
    seen = []

    def report(step: int, metrics: dict[str, float], encoder: MertModel) -> None:
        assert encoder.config.hidden_size == 128
        seen.append((step, metrics["tones"]))
        raise StopTraining

    facts = work(job(None, max_steps=50), Worker(), SilentObserver(), report)
    assert facts["steps"] == 4 and len(seen) == 1


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    work(job(None, max_steps=1), Worker(), SilentObserver())
    assert torch.equal(torch.rand(3), expected)


def test_a_journal_tells_another_process_everything(tmp_path: Path) -> None:
    import threading

    seen: dict[int, dict[str, float]] = {}

    class Recorder(NullTracker):
        def metrics(self, values: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
            seen.setdefault(step or 0, {}).update(values)

    work(job(None, log_every=1), Worker(), JournalObserver(tmp_path / "journal", seconds_between=0))
    finished = threading.Event()
    finished.set()
    with BarObserver(Recorder(), "test", 6) as observer:
        follow(tmp_path / "journal", observer, finished)
    assert set(seen) == set(range(1, 7))
    names = {
        "train/loss",
        "train/gradient_norm",
        "train/learning_rate",
        "speed/steps_per_second",
        "speed/data_wait_share",
    }
    assert names <= set(seen[1]) and "valid/loss" in seen[6]
