"""A git and DVC repository with trivial stages, the real flows and the real parameters: what flows are tried on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mert_core.config import load_config
from mert_core.experiments.rendered import source_hash
from mert_core.paths import Layout

ROOT = Path(__file__).resolve().parents[1]
DVC = str(Path(sys.executable).parent / "dvc")

STAGES = """\
# source: {source}
stages:
  quick:
    cmd: python quick.py
    deps: [quick.py]
    params: [seed]
    outs: [quick.txt]
  broken:
    cmd: python -c "import sys; print('what went wrong'); sys.exit(3)"
  pretrain-tiny:
    cmd: python slow.py
"""
HEAVY = "stages:\n" + "".join(
    f"""\
  pretrain-{run}:
    wdir: ..
    cmd: python train.py {run}
    deps: [train.py, quick.txt]
    params: [seed, runs.{run}]
    outs: [{run}.txt]
"""
    for run in ("95m", "330m")
)
QUICK = "print('hello from the stage')\nopen('quick.txt', 'w').write('1')\n"
# Starts a child of its own and writes both process ids to MERT_HOME.
SLOW = """\
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path(os.environ["MERT_HOME"], "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(300)
"""
TRAIN = """\
import json, os, pathlib, sys, yaml
run = sys.argv[1]
chosen = yaml.safe_load(open("params.yaml"))["runs"][run]
notes = pathlib.Path(os.environ["MERT_HOME"], "last-runs")
notes.mkdir(parents=True, exist_ok=True)
note = {"mlflow_run_id": "abc", "mlflow_uri": os.environ["MLFLOW_TRACKING_URI"], "experiment_id": "7"}
(notes / f"pretrain@{run}.json").write_text(json.dumps(note))
(notes / "seen.json").write_text(json.dumps({"max_steps": chosen.get("max_steps"), "folder": os.getcwd()}))
pathlib.Path(f"{run}.txt").write_text(str(chosen.get("max_steps")))
"""
IGNORED = ".mert/\nprefect.toml\n__pycache__/\nquick.txt\n*m.txt\n"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    git(root, "init", "-q", "-b", "main")
    subprocess.run([DVC, "init", "-q"], cwd=root, check=True, capture_output=True)
    subprocess.run([DVC, "config", "core.analytics", "false"], cwd=root, check=True, capture_output=True)
    (root / "heavy").mkdir()
    source = source_hash(load_config(ROOT / "params.yaml"), Layout.at(ROOT))
    files = {
        "dvc.yaml": STAGES.format(source=source),
        "heavy/dvc.yaml": HEAVY,
        "quick.py": QUICK,
        "slow.py": SLOW,
        "train.py": TRAIN,
        "params.yaml": (ROOT / "params.yaml").read_text(),
        ".gitignore": IGNORED,
        "prefect.yaml": (ROOT / "prefect.yaml").read_text(),
    }
    for name, text in files.items():
        (root / name).write_text(text)
    shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    return root


@pytest.fixture
def in_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("MERT_HOME", str(checkout / ".mert"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.rmtree(checkout / ".mert", ignore_errors=True)
    (checkout / ".mert").mkdir()
    return checkout
