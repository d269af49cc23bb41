"""Training runs in processes of their own, one for each worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mert_core.files import sha256_file

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    """
    import json, sys
    from dataclasses import replace
    from datetime import timedelta
    from pathlib import Path
    from torch import distributed
    import mert_core.model.config as config
    from mert_core.pretrain.job import Job, work
    from mert_core.pretrain.observe import SilentObserver
    from mert_core.pretrain.place import Place
    from tests.pretrain.music import Tones, health, params
    class Told(SilentObserver):
        def progress(self, step, loss, audio_hours_per_second):
            print(step, flush=True)
    rank, told = int(sys.argv[1]), json.loads(sys.argv[2])
    if told["world"] > 1:
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{told['port']}", rank=rank, world_size=told["world"],
            timeout=timedelta(seconds=200),
        )
    config.PRESETS["mert-tiny"] = replace(config.PRESETS["mert-tiny"], **told["shape"])
    run = params(**{**told["changes"], "health": health(**told["changes"].get("health", {}))})
    out, states = Path(told["out"]), told["states"] and Path(told["states"])
    out.mkdir(exist_ok=True)
    facts = work(Job(run, Tones(), 7, 1, out, states), Place(rank, told["world"]), Told())
    if rank == 0:
        out.with_suffix(".json").write_text(json.dumps(facts))
    """
)


def launch(program: str, world: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start a program ``world`` times; its arguments are a rank and those given."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), *arguments],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        )
        for rank in range(world)
    ]  # fmt: skip


def start(
    out: Path, states: Path | None = None, *, world: int = 1, shape: dict[str, Any] | None = None, **changes: Any
) -> list[subprocess.Popen[str]]:
    """Start a run's workers; they print each step, and put artefacts into ``out`` and the facts beside it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"out": str(out), "states": str(states) if states else None, "world": world, "port": port}
    return launch(PROGRAM, world, json.dumps({**told, "shape": shape or {}, "changes": changes}))


def finish(workers: list[subprocess.Popen[str]]) -> list[int]:
    """Wait for all workers and return the steps that were made."""
    printed = [worker.communicate(timeout=280)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return [int(line) for line in printed[0].split()]


def kill_after(workers: list[subprocess.Popen[str]], step: int, seconds: float) -> None:
    """Kill all workers a time after a step was made."""
    leader = workers[0]
    assert leader.stdout is not None
    for line in leader.stdout:
        if int(line) >= step:
            break
    time.sleep(seconds)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    assert [worker.wait() for worker in workers] == [-signal.SIGKILL] * len(workers)


def curve(out: Path) -> np.ndarray:
    """Return a run's training losses."""
    rows = pq.read_table(out / "curve.parquet").to_pandas()
    return rows[(rows.split == "train") & (rows.term == "loss")].value.to_numpy()


def facts(out: Path) -> dict[str, Any]:
    """Return what ``work`` returned."""
    return json.loads(out.with_suffix(".json").read_text())


def hashes(path: Path) -> dict[str, str]:
    """Return the hashes of a folder's files."""
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}
