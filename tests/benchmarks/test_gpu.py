"""The GPU benchmark, tried on the CPU with the smallest student."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_it_measures_a_student(repository: Path, tmp_path: Path) -> None:
    to = tmp_path / "gpu.json"
    done = run(
        repository, *["--device", "cpu", "--students", "mert-tiny", "--most", "3", "--steps", "2", "--to"], str(to)
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(to.read_text())["mert-tiny"]
    assert found["clips"] == 3 and found["mfu"] is None
    assert found["audio_hours_per_second"] == pytest.approx(3 / 3.6 / found["milliseconds_per_update"])
    assert sum(found["share_of_kernel_time"].values()) == pytest.approx(1)
    assert 0 < found["relative_difference_from_cpu_fp32"]["weighted"] < 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(repository: Path) -> None:
    done = run(repository)
    assert done.returncode == 2 and "no CUDA device" in done.stderr
