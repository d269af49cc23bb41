"""Training runs in processes of their own, one for each worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import textwrap
import time
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mert_core.files import sha256_file

ROOT = Path(__file__).parents[2]
PRELOADED = ["torch._dynamo", "torch.distributed.fsdp", "pyarrow", "mert_core.training.run", "tests.training.music"]
"""Imported once, by the process that the workers are forked from: in each of them it would take four seconds."""

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from dataclasses import replace
    from datetime import timedelta
    from pathlib import Path
    from torch import distributed
    import mert_core.model.config as config
    from mert_core.training.run import work
    from mert_core.training.callbacks import SilentObserver
    from mert_core.training.worker import Worker as TrainingWorker
    from tests.training.music import health, job, params
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
    facts = work(job(run, out, states), TrainingWorker(rank, told["world"]), Told())
    if rank == 0:
        out.with_suffix(".json").write_text(json.dumps(facts))
    """
)


def _run(program: str, arguments: list[str], said: Connection, complaints: str) -> None:
    """Be one worker: run a program as ``python -c`` would, standard output and error redirected."""
    os.dup2(said.fileno(), 1)
    with open(complaints, "wb") as stream:
        os.dup2(stream.fileno(), 2)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<worker>", "exec"), {"__name__": "__main__"})


class Worker:
    """A started worker; ``stdout`` are the lines that it prints."""

    def __init__(self, program: str, *arguments: str) -> None:
        context = get_context("forkserver")
        reading, writing = context.Pipe(duplex=False)
        with tempfile.NamedTemporaryFile(delete=False) as complaints:
            self._complaints = Path(complaints.name)
        self._process = context.Process(target=_run, args=(program, list(arguments), writing, complaints.name))
        self._process.start()
        writing.close()
        self.stdout = os.fdopen(os.dup(reading.fileno()))
        reading.close()

    def kill(self) -> None:
        os.kill(self._process.pid or 0, signal.SIGKILL)

    def wait(self, seconds: float = 60) -> int | None:
        """Return its exit status, None if it still runs; what it wrote to standard error goes to ours."""
        self._process.join(seconds)
        sys.stderr.write(self._complaints.read_text(errors="replace"))
        self._complaints.unlink()
        return self._process.exitcode


def launch(program: str, world: int, *arguments: str) -> list[Worker]:
    """Start a program ``world`` times; its arguments are a rank and those given."""
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as environment:  # of the process that workers are forked from, and so of them
        for name, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}.items():
            environment.setenv(name, value)
        forkserver.ensure_running()
    return [Worker(program, str(rank), *arguments) for rank in range(world)]


def start(
    out: Path, states: Path | None = None, *, world: int = 1, shape: dict[str, Any] | None = None, **changes: Any
) -> list[Worker]:
    """Start a run's workers; they print each step, and put artefacts into ``out`` and the facts beside it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"out": str(out), "states": str(states) if states else None, "world": world, "port": port}
    return launch(PROGRAM, world, json.dumps({**told, "shape": shape or {}, "changes": changes}))


def finish(workers: list[Worker]) -> list[int]:
    """Wait for all workers and return the steps that were made."""
    assert [worker.wait(280) for worker in workers] == [0] * len(workers)
    printed = [worker.stdout.read() for worker in workers]
    return [int(line) for line in printed[0].split()]


def kill_after(workers: list[Worker], step: int, seconds: float) -> None:
    """Kill all workers a time after a step was made."""
    for line in workers[0].stdout:
        if int(line) >= step:
            break
    time.sleep(seconds)
    for worker in workers:
        worker.kill()
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
