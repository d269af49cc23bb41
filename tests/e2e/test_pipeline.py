"""The whole pipeline, tiny: reproducible, idempotent, clean, and the same for a user's own folder of music."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.e2e.tiny import TASKS, clone, commit, run, set_parameters

pytestmark = pytest.mark.e2e
RUNS = {"tiny", "random-weights", "mel-statistics"}


@pytest.fixture(scope="module")
def pipeline(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `dvc repro` has run once and whose result is committed."""
    folder = clone(repository, tmp_path_factory.mktemp("pipeline"))
    run(folder, "dvc", "repro")
    commit(folder, "the pipeline has run")
    return folder


def test_every_stage_left_what_it_promises(pipeline: Path) -> None:
    metrics = json.loads((pipeline / "metrics.json").read_text())
    assert set(metrics["probe"]) == RUNS
    for run_scores in metrics["probe"].values():
        assert set(run_scores) == set(TASKS)
        for task in run_scores.values():
            for score in task.values():
                assert score["low"] <= score["value"] <= score["high"]
        assert set(run_scores["demo/mtg_mood"]) == {"roc_auc", "ap"}
        assert "sdr_vocals" in run_scores["demo/musdb18"]
    assert "MagnaTagATune is not here" in (pipeline / "data/probe/tiny/scores.json").read_text()
    curve = pq.read_table(pipeline / "data/pretrain/tiny/curve.parquet").to_pandas()
    assert np.isfinite(curve["value"]).all()
    assert curve["step"].max() == 12
    assert len(list((pipeline / "report/figures").glob("*.png"))) >= 5


def test_the_report_stands_alone(pipeline: Path) -> None:
    page = (pipeline / "report/report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert 'src="http' not in page and 'href="http' not in page
    assert str(pipeline) not in page


def test_a_second_run_does_nothing_and_everything_is_clean(pipeline: Path) -> None:
    cache = pipeline / "mert_core" / "audio" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "frames.cpython-311.pyc").write_bytes(b"bytecode")
    assert "Data and pipelines are up to date" in run(pipeline, "dvc", "repro")
    assert "up to date" in run(pipeline, "dvc", "status", "dvc.yaml")
    assert run(pipeline, "git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "stage", ["corpus", "teacher-rvqvae", "targets-rvqvae", "pretrain-tiny", "probe-tiny", "report"]
)
def test_forcing_a_stage_leaves_the_lock_as_it_was(pipeline: Path, stage: str) -> None:
    before = (pipeline / "dvc.lock").read_text()
    run(pipeline, "dvc", "repro", "--force", "--single-item", stage)
    assert (pipeline / "dvc.lock").read_text() == before
    assert run(pipeline, "git", "status", "--porcelain") == ""


def test_four_lines_are_an_experiment_and_only_what_follows_from_a_change_is_stale(
    pipeline: Path, tmp_path: Path
) -> None:
    """HuBERT's two iterations: a run on a teacher's targets, clusters of its student, and a second run on those."""
    checkout = tmp_path / "checkout"
    shutil.copytree(pipeline, checkout, symlinks=True)
    first = {"teachers": [{"teacher": "mfcc-kmeans", "weight": 1.0}], "max_steps": 4, "workers": 0}
    second = {**first, "teachers": [{"teacher": "hubert-1-kmeans", "weight": 1.0}]}
    kmeans = {"class": "student-kmeans", "run": "hubert-1", "layer": 1}
    kmeans |= {"clusters": 16, "fit_frames": 2000, "iterations": 3}
    set_parameters(checkout, {"runs.hubert-1": first, "runs.hubert-2": second, "teachers.hubert-1-kmeans": kmeans})
    assert "older than" in run(checkout, "mert", "config", "--run", "hubert-2")
    run(checkout, "mert", "plan")
    assert {path for path in run(checkout, "git", "diff", "--name-only").split()} == {"dvc.yaml", "params.yaml"}
    output = run(checkout, "dvc", "repro")
    for kept in ("pretrain-tiny", "teacher-mfcc-kmeans", "targets-mfcc-kmeans", "probe-tiny", "probe-mel-statistics"):
        assert f"Stage '{kept}' didn't change" in output
    metrics = json.loads((checkout / "metrics.json").read_text())
    assert set(metrics["probe"]) == RUNS | {"hubert-1", "hubert-2"}
    assert "hubert-2" in (checkout / "report/report.html").read_text(encoding="utf-8")
    assert "up to date" in run(checkout, "dvc", "status", "dvc.yaml")

    set_parameters(checkout, {"teachers.mfcc-kmeans.iterations": 49})
    run(checkout, "mert", "plan", "--check")
    status = json.loads(run(checkout, "dvc", "status", "--json", "dvc.yaml"))
    assert list(status) == ["teacher-mfcc-kmeans"], "all else follows from what that stage makes"
    run(checkout, "dvc", "repro", "--single-item", "teacher-mfcc-kmeans")
    assert list(json.loads(run(checkout, "dvc", "status", "--json", "dvc.yaml"))) == ["targets-mfcc-kmeans"]


def test_lineage_leads_from_a_score_to_the_corpus(pipeline: Path) -> None:
    text = run(pipeline, "mert", "lineage", "tiny/demo/gs_key")
    for folder in ("data/pretrain/tiny", "data/targets/rvqvae", "data/teachers/rvqvae", "data/corpus"):
        identity = json.loads((pipeline / folder / "record.json").read_text())["id"]
        assert identity[:12] in text, folder
    assert "zzzz" in run(pipeline, "mert", "lineage", "zzzz", status=2)


def test_mlflow_has_one_run_per_stage_and_probe(pipeline: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{pipeline}/.mert/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("mert")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    names = [found.info.run_name for found in runs]
    stages = "corpus", "teachers/rvqvae", "targets/mfcc-kmeans", "pretrain/tiny", "probe/tiny", "report"
    for expected in (*stages, "probe/random-weights", *(f"probe-task/tiny/{task}" for task in TASKS)):
        assert expected in names
    tasks = [found for found in runs if found.info.run_name.startswith("probe-task/tiny")]
    parents = {found.data.tags.get("mlflow.parentRunId") for found in tasks}
    assert parents == {found.info.run_id for found in runs if found.info.run_name == "probe/tiny"}
    assert {found.info.status for found in runs} == {"FINISHED"}
    training = next(found for found in runs if found.info.run_name == "pretrain/tiny")
    assert training.data.tags["dvc.stage"] == "pretrain-tiny"
    kept = {item.path for folder in (None, "figures") for item in client.list_artifacts(training.info.run_id, folder)}
    assert {"card.md", "figures/loss.png"} <= kept
    assert any("cqt" in path for path in kept)


def _music(path: Path, rate: int, channels: int, seconds: float, pitch: float) -> None:
    time = np.arange(int(rate * seconds)) / rate
    tone = sum(np.sin(2 * math.pi * pitch * k * time * (1 + 0.2 * np.floor(time * 2) % 3)) / k for k in (1, 2, 3)) * 0.2
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1).astype(np.float32), rate)


@pytest.fixture(scope="module")
def music_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    kinds = [("wav", 44100, 2), ("flac", 48000, 1), ("ogg", 22050, 2)]
    kinds += [("mp3", 44100, 2), ("flac", 96000, 6), ("wav", 8000, 1)]
    for number, (ending, rate, channels) in enumerate(2 * kinds):
        path = folder / f"artist {number % 4}" / f"song {number}.{ending}"
        _music(path, rate, channels, 6 + number % 3, 110 * 2 ** (number / 12))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("not audio at all")
    whole = (folder / "artist 0" / "song 0.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "silent.wav", np.zeros(24000 * 5), 24000)
    soundfile.write(folder / "nan.wav", np.full(24000 * 5, np.nan, dtype=np.float32), 24000, subtype="FLOAT")
    _music(folder / "short.wav", 24000, 1, 1.0, 220)
    return folder


def test_a_folder_of_good_and_bad_files_runs_to_the_report(pipeline: Path, music_folder: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(pipeline, checkout, symlinks=True)
    changes = {"corpus.source": "folder", "corpus.folder": str(music_folder), "corpus.valid_fraction": 0.3}
    set_parameters(checkout, {**changes, "pretrain.workers": 0})  # the pipeline itself has trained on Ray
    output = run(checkout, "dvc", "repro")
    assert "6" in output and "quarantine" in output
    quarantined = {row["path"] for row in pq.read_table(checkout / "data/corpus/quarantine.parquet").to_pylist()}
    assert quarantined == {"empty.wav", "text.wav", "truncated.wav", "silent.wav", "nan.wav", "short.wav"}
    tracks = pq.read_table(checkout / "data/corpus/manifest.parquet").to_pandas()
    assert len(tracks) == 12
    assert set(tracks["source_rate"]) == {8000, 22050, 44100, 48000, 96000}
    assert set(json.loads((checkout / "metrics.json").read_text())["probe"]) == RUNS


def test_no_usable_file_at_all_leaves_everything_as_it_was(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_text("no audio")
    before = (pipeline / "data/corpus/record.json").read_text()
    folder = "-S", "corpus.source=folder", "-S", f"corpus.folder={tmp_path / 'music'}"
    output = run(pipeline, "mert", "corpus", *folder, status=2)
    assert "a.wav" in output or "no usable" in output.lower()
    assert "Traceback" not in output
    assert (pipeline / "data/corpus/record.json").read_text() == before
