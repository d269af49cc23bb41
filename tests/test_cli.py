from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


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
