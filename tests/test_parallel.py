from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mert_core.errors import MertError
from mert_core.parallel import PASSIVE, SPINNING, choose_device, choose_waiting, single_threads, thread_variables

BY_DEFAULT = {name: value for name, value in os.environ.items() if name not in PASSIVE}


def told(code: str, environment: dict[str, str], repository: Path) -> dict[str, Any]:
    """Return what a fresh process prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("said", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_a_command_says_how_threads_wait_before_a_library_with_threads_loads(
    said: dict[str, str], repository: Path
) -> None:
    code = f"""
import json, os, sys
from mert_core import cli
def see(threads):
    loaded = [name for name in ("torch", "numpy", "sklearn", "scipy") if name in sys.modules]
    waiting = {{name: os.environ.get(name) for name in {[*PASSIVE]}}}
    print(json.dumps({{"loaded": loaded, "threads": threads}} | waiting))
    sys.exit()
cli.set_threads = see
cli.main(["pretrain", "--run", "tiny", "-S", "threads=3", "-S", "pretrain.workers=0"])
"""
    found = told(code, BY_DEFAULT | said, repository)
    assert found.pop("loaded") == [] and found.pop("threads") == 3
    expected = [said] if said else [PASSIVE, SPINNING]  # as busy as the machine is at this moment
    assert found in [dict.fromkeys(PASSIVE) | waiting for waiting in expected]


@pytest.mark.parametrize(("percent", "waiting"), [(80.0, PASSIVE), (3.0, SPINNING)])
def test_threads_sleep_beside_others_and_spin_briefly_where_nobody_else_computes(
    percent: float, waiting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("psutil.cpu_percent", lambda seconds: percent)
    monkeypatch.setattr("psutil.cpu_count", lambda: 2)
    environment = dict(os.environ)
    monkeypatch.setattr(os, "environ", environment)
    choose_waiting()
    assert {name: environment.get(name) for name in PASSIVE} == dict.fromkeys(PASSIVE) | waiting


@pytest.mark.parametrize("module", ["tests.conftest", "benchmarks"])
def test_tests_and_benchmarks_say_so_before_torch_loads(module: str, repository: Path) -> None:
    code = f"import json, os, sys, {module}; print(json.dumps(dict(os.environ) | {{'torch': 'torch' in sys.modules}}))"
    found = told(code, BY_DEFAULT, repository)
    assert "GOMP_SPINCOUNT" in found and found["torch"] is False


def test_a_process_that_is_started_waits_as_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    threads = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert thread_variables(3) == threads | PASSIVE
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert thread_variables(3, processes=2) == threads | {"OMP_WAIT_POLICY": "ACTIVE"}
    assert thread_variables(3, processes=3) == threads | PASSIVE, "more threads than cores"


def test_the_device_is_what_torch_finds_and_cuda_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(wanted) for wanted in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(wanted) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(MertError, match=r"finds no GPU here\. Set pretrain\.device"):
        choose_device("cuda")


def test_as_many_workers_as_threads_each_of_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=30)

        def threads(_: int) -> int:
            meeting.wait()  # fails unless two run at the same time
            return torch.get_num_threads()

        with single_threads() as pool:
            assert list(pool.map(threads, range(4))) == [1, 1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_has_one_worker() -> None:
    with single_threads("cuda") as pool:
        names = set(pool.map(lambda _: threading.current_thread().name, range(8)))
    assert len(names) == 1


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    inputs = [torch.randn(300, 300, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with single_threads() as pool:
                found.append(list(pool.map(lambda matrix: matrix @ matrix, inputs)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
