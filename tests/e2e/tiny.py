"""A temporary checkout with parameters small enough to run the whole pipeline in a minute or two."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from mert_core.config import load_config

BIN = Path(sys.executable).parent

TASKS = ("demo/gs_key", "demo/mtg_mood", "demo/emo", "demo/nsynth_pitch", "demo/gtzan_rhythm", "demo/musdb18")
SMALL = {
    "seed": 1,  # which draws short scores: parsing them is most of the stage
    "corpus.scores.minutes": 3,
    "corpus.scores.track_seconds": 8,
    "probe_set.mixes": {"train": 40, "valid": 20, "test": 24},
    "probe_set.notes": {"train": 60, "valid": 30, "test": 30},
    "probe_set.rhythms": {"train": 4, "valid": 2, "test": 3},
    "probe_set.phrases": {"train": 32, "valid": 16, "test": 16},
    "probe_set.stems": {"train": 3, "valid": 1, "test": 2},
    "probe_set.mix_seconds": 3.0,
    "probe_set.rhythm_seconds": 6.0,
    "probe_set.stem_seconds": 3.0,
    "pieces.per_composer": 4,
    "pieces.train": 0.5,
    "pieces.valid": 0.25,
    "teachers.rvqvae.steps": 12,
    "teachers.rvqvae.batch_clips": 4,
    "targets.gate.min_usage": 0.0,
    "targets.gate.min_entropy_bits": 0.0,
    "targets.gate.max_top_share": 1.0,
    "pretrain.max_steps": 12,
    "pretrain.warmup_steps": 2,
    "pretrain.global_batch_size": 4,
    "pretrain.crop_seconds": 1.0,
    "pretrain.mixture_seconds": [0.3, 0.5],
    "pretrain.checkpoint_every": 5,
    "pretrain.validate_every": 6,
    "pretrain.validate_batches": 1,
    "pretrain.log_every": 2,
    "probe.tasks": [*TASKS, "mtt"],  # of the fourteen none is here: it is skipped
    "probe.robustness": {"tasks": ["demo/gs_key"], "clips": 4},
    "probe.demo.rates": [1.0e-3],
    "probe.demo.max_epochs": 4,
    "probe.demo.separation.hidden": 8,
    "probe.demo.separation.mixes_per_track": 2,
    "probe.demo.separation.max_epochs": 2,
    "probe.bootstrap": 100,
}


TEACHERS = ("rvqvae", "mfcc-kmeans")  # the demo's others are alike, and each has its own tests


def set_parameters(folder: Path, changes: dict[str, object]) -> None:
    """Change parameters of a checkout by dotted name; None takes a key out."""
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        if value is None:
            del node[leaf]
        else:
            node[leaf] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def environment() -> dict[str, str]:
    """A clean environment with our commands on the path and no server in sight."""
    others = "MLFLOW_", "MERT_", "PREFECT_", "DVC_"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "DO_NOT_TRACK": "1"}


def run(folder: Path, *command: str, status: int | None = 0, timeout: float = 600) -> str:
    """Run a command in a checkout and return what it printed; an unexpected exit status fails the test."""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, env=environment(), text=True, timeout=timeout, **both)
    said = f"{' '.join(command)} → {done.returncode}\n{done.stdout[-6000:]}"
    assert status is None or done.returncode == status, said
    return done.stdout


def clone(repository: Path, folder: Path) -> Path:
    """Copy what git would carry (uncommitted edits too) into a new repository with one commit."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=repository, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)  # it belongs to the committed parameters
    run(folder, "git", "init", "-q", "-b", "main")
    others = {f"teachers.{name}": None for name in load_config(folder / "params.yaml").teachers if name not in TEACHERS}
    set_parameters(folder, {**SMALL, **others})
    run(folder, "mert", "plan")
    commit(folder, "clone")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit everything that git does not ignore."""
    run(folder, "git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run(folder, "git", *who, "commit", "-q", "--allow-empty", "-m", message)
