from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mert_core.config import Start
from mert_core.model.checkpoint import fingerprint
from mert_core.paths import Layout
from tests.trained_run import write_trained_run


def _mert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mert_core.cli", *arguments], cwd=cwd, capture_output=True, text=True)


def test_an_unknown_key_stops_before_any_work(repository: Path, tmp_path: Path) -> None:
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("temperature:", "temprature:"), encoding="utf-8")
    found = _mert("corpus", cwd=tmp_path)
    assert found.returncode == 2
    assert "pretrain.temprature: unknown key" in found.stderr
    assert "Traceback" not in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_input_names_the_command_to_run(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    found = _mert("targets", "-S", "catalog.url=null", cwd=tmp_path)
    assert found.returncode == 2
    assert "dvc repro" in found.stderr
    assert not (tmp_path / "data" / "targets").exists()


@pytest.mark.parametrize("command", ["corpus", "probe", "embed", "lineage", "up", "sweep"])
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    found = _mert(command, "--help", cwd=tmp_path)
    assert found.returncode == 0
    assert "usage: mert" in found.stdout


@pytest.fixture
def trained(repository: Path, tmp_path: Path) -> Path:
    """A working directory with a trained run."""
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    write_trained_run(Layout.at(tmp_path))
    return tmp_path


def test_export_import_and_embed_from_the_command_line(trained: Path) -> None:
    exported = _mert("export", "--run", "95m", "--to", "out", cwd=trained)
    assert exported.returncode == 0, exported.stderr
    names = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in (trained / "out").iterdir()} == names
    card = (trained / "out" / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["library_name"] == "transformers"
    facts = "1,234", "12.25", "8 codebooks of 16", "c" * 64, "## Cost\n\nNot known here", "not been probed"
    assert all(fact in body for fact in facts)
    assert "{" not in body.replace("`{", "").split("Loss weights")[0]

    imported = _mert("import", "data/pretrain/95m", "--to", "taken", cwd=trained)
    assert imported.returncode == 0, imported.stderr
    line = imported.stdout.strip().splitlines()[-1]
    start = yaml.safe_load(line)["start"]
    assert Start(**start).heads == "stored" and start["sha256"] == fingerprint(trained / "taken")

    soundfile.write(trained / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24000), 24000)
    embedded = _mert("embed", "a.wav", "--model", "taken", cwd=trained)
    assert embedded.returncode == 0, embedded.stderr
    assert np.load(trained / "a.npy").shape == (4, 74, 48)
    (trained / "bad.wav").write_bytes(b"no music")
    bad = _mert("embed", "bad.wav", "--model", "taken", cwd=trained)
    assert bad.returncode == 2 and "bad.wav cannot be used" in bad.stderr
    assert ".." not in bad.stderr and "Traceback" not in bad.stderr
    damaged = _mert("import", "bad.wav", "--to", "nothing", cwd=trained)
    assert damaged.returncode == 2 and "bad.wav" in damaged.stderr and not (trained / "nothing").exists()
