from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import load_config
from mert_core.data.track import SourceTrack
from mert_core.experiments.sweep import apply_winner, read_sweep, run
from mert_core.paths import Layout
from mert_core.tracking import open_run
from mert_core.tracking.mlflow_store import tracking_uri
from tests.stored import write_codes, write_corpus

pytestmark = pytest.mark.integration

CHANGES = {
    "pretrain": {
        "crop_seconds": 0.5,
        "global_batch_size": 2,
        "mixture_seconds": [0.1, 0.3],
        "validate_batches": 1,
        "device": "cpu",
    },
    "sweep": {"trials": 2, "concurrent": 1, "max_steps": 2, "grace_steps": 1, "reduction": 2},
    "probe": {"hidden": 8, "bootstrap": 100},
}


def write_music(folder: Path, seconds: float, splits: dict[str, int], labelled: bool) -> None:
    """Write a corpus of random tones."""
    generator = np.random.default_rng(3)

    def track(split: Any, number: int) -> SourceTrack:
        frequency = 110 * 2 ** (generator.integers(0, 24) / 12)
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        wave = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * generator.standard_normal(len(time))
        labels = {"kind": "mix", "key": np.int16(number % 24), "composer": "a"} if labelled else None
        name = f"{split}-{number}"
        return SourceTrack(name, wave.astype("f4"), SAMPLE_RATE, name, name, name, split, "CC0-1.0", labels)

    write_corpus(folder, (track(split, number) for split, count in splits.items() for number in range(count)), 64)


def test_two_trials_end_nested_and_the_winner_can_be_taken_over(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERT_HOME", str(tmp_path / ".mert"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"
    tree = yaml.safe_load((repository / "params.yaml").read_text())
    for section, changes in CHANGES.items():
        tree[section] |= changes
    tree |= {"threads": 1, "runs": {"tiny": {}}, "heavy": []}
    params.write_text(yaml.safe_dump(tree))
    config, layout = load_config(params), Layout.at(tmp_path)
    write_music(layout.corpus, 2.0, {"train": 8, "valid": 2}, labelled=False)
    write_codes(layout)
    write_music(layout.probe_set, 1.0, {"train": 24, "valid": 12, "test": 2}, labelled=True)

    with open_run(config, layout, stage="sweep") as tracker:
        sweep = run(config, layout, tracker)
        parent, uri = tracker.run_id, tracking_uri(config, layout)

    assert len(sweep.trials) == 2
    assert not [trial.error for trial in sweep.trials if trial.error]
    assert max(trial.step for trial in sweep.trials) == 2
    present = {term.teacher: term.weight for term in config.run("tiny").teachers}
    assert sweep.trials[0].weights == present  # tried first
    assert read_sweep(layout, "latest") == sweep

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id])
    children = [item for item in runs if item.data.tags.get("mlflow.parentRunId") == parent]
    assert len(children) == 2
    assert {item.info.status for item in runs} == {"FINISHED"}
    for item in runs:
        assert item.data.tags["sweep.id"] == sweep.id
        assert item.data.params["swept_run"] == "tiny"
        assert item.data.params["preset"] == "mert-tiny"
    by_trial = {item.data.tags["ray.trial_id"]: item for item in children}
    for trial in sweep.trials:
        params_of = by_trial[trial.id].data.params
        assert {name: float(params_of[f"weights.{name}"]) for name in present} == trial.weights
        assert by_trial[trial.id].data.metrics["score"] == pytest.approx(trial.score)

    strays = [path for path in tmp_path.rglob("mlflow.db") if path != layout.state / "mlflow" / "mlflow.db"]
    assert not strays and not list(tmp_path.rglob("mlruns"))
    assert {path.name for path in tmp_path.iterdir()} == {".mert", "data", "params.yaml"}
    assert json.loads((layout.last_runs / "sweep.json").read_text())["mlflow_run_id"] == parent

    apply_winner(layout, params, sweep.id)
    applied = {term.teacher: term.weight for term in load_config(params).run("tiny").teachers}
    assert applied == pytest.approx(sweep.winner.weights, rel=1e-3)
