from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from mert_core.services.processes import tool
from tests.flow_checkout import ROOT, checkout, git, in_checkout

__all__ = ["checkout", "in_checkout"]
pytestmark = pytest.mark.integration
PATIENCE_SECONDS = 240.0
PAGES = [{"Origin": "http://evil.example"}, {"Host": "evil.example:4200"}, {"Sec-Fetch-Site": "same-site"}]
"""What the requests of foreign pages and names say; the gate's own test has them all."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [item for item in processes if item.is_running() and item.status() != psutil.STATUS_ZOMBIE]


def user_shell() -> dict[str, str]:
    """Return the environment of a user's shell that knows nothing of Prefect."""
    shell = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "MERT_"))}
    return shell | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def up(in_checkout: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Yield a starting ``mert up`` and its output."""
    log = in_checkout / ".mert" / "up.log"
    ports = ["--mlflow-port", str(free_port()), "--prefect-port", str(free_port())]
    with log.open("w") as stream:
        command, both = [sys.executable, "-m", "mert_core.cli", "up", *ports], {"stdout": stream, "stderr": stream}
        process = subprocess.Popen(command, cwd=in_checkout, env=user_shell(), text=True, **both)
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def prefect(shell: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [tool("prefect"), *arguments], cwd=folder, env=shell, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stage_processes(folder: Path) -> list[psutil.Process]:
    found = [psutil.Process(int(pid)) for pid in (folder / ".mert" / "pids").read_text().split()]
    assert len(alive(found)) == 2
    return found


def break_in(said: str) -> None:
    """Try what web pages and other users of this machine may try: to make Prefect's server run a command."""
    (mlflow, mlflow_secret), (server, secret) = (
        re.search(rf"^{name} +(http://127\S+)/open#(\S+)$", said, re.MULTILINE).groups()
        for name in ("MLflow", "Prefect")
    )
    owner = {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
    with httpx.Client(base_url=server) as client:
        (first, *_) = client.post("/api/deployments/filter", json={}, headers=owner).json()
        deployment = f"/api/deployments/{first['id']}"
        pull = {"pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/in"}}]}
        attacks: list[tuple[str, str, Any]] = [
            ("POST", "/api/deployments/filter", {}),
            ("PATCH", deployment, pull),
            ("POST", f"{deployment}/create_flow_run", {}),
        ]
        for method, path, body in attacks:
            assert client.request(method, path, json=body).status_code == 401
            for page in PAGES:
                assert client.request(method, path, json=body, headers=owner | page).status_code == 403
            asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": method}
            assert "access-control-allow-origin" not in client.options(path, headers=asked).headers
        (again,) = (
            item for item in client.post("/api/deployments/filter", json={}, headers=owner).json() if item == first
        )
        assert not again["pull_steps"]
        assert client.post("/api/flow_runs/filter", json={}, headers=owner).json() == []
        assert client.get("/", follow_redirects=True, headers={"Accept": "text/html"}).status_code == 200
    asyncio.run(listen(server.replace("http", "ws") + "/api/events/out", secret, server))
    with httpx.Client(base_url=mlflow) as client:
        delete = "/api/2.0/mlflow/experiments/delete"
        assert client.post(delete, json={"experiment_id": "0"}).status_code == 401
        assert client.get("/get-artifact?path=a&run_uuid=b").status_code == 401
        opened = client.post("/open", headers={"Authorization": f"Bearer {mlflow_secret}", "Origin": mlflow})
        assert opened.status_code == 200
        assert "<title>MLflow" in client.get("/").text  # the cookie is in the client now
        for page in PAGES:
            assert client.post(delete, json={"experiment_id": "0"}, headers=page).status_code == 403


async def listen(address: str, secret: str, own: str) -> None:
    async def first_answer(token: str, origin: str) -> str:
        async with websockets.connect(address, subprotocols=[Subprotocol("prefect")], origin=Origin(origin)) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token}))
            return str(json.loads(await socket.recv())["type"])

    assert await first_answer(secret, own) == "auth_success"
    with pytest.raises(ConnectionClosed):
        await first_answer("wrong", own)
    with pytest.raises(InvalidStatus):
        await first_answer(secret, "http://evil.example")


def nobody_else_sees(secret_lines: str, folder: Path, process: subprocess.Popen[str]) -> None:
    """Check that the secrets stand on no command line and in no file that others can read."""
    secrets = re.findall(r"/open#(\S+)", secret_lines)
    for child in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
        assert not any(secret in " ".join(child.cmdline()) for secret in secrets)
    for path in (item for item in folder.rglob("*") if item.is_file() and item.stat().st_mode & 0o077):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets), path


def test_a_whole_life(up: tuple[subprocess.Popen[str], Path], in_checkout: Path) -> None:
    process, log = up
    shell = user_shell()
    wait_for(lambda: "Ctrl-C stops everything" in log.read_text(), process, log)
    pids = in_checkout / ".mert" / "pids"
    for name in ("MLflow", "Prefect", "Deployments", "export PREFECT_API_URL=", "sweep/loss-weights"):
        assert name in log.read_text()

    break_in(log.read_text())
    nobody_else_sees(log.read_text(), in_checkout, process)

    # Without any setting, a shell in the repository root finds the server; overrides become an experiment.
    said = prefect(shell, in_checkout, "deployment", "run", "pretrain/330m", "-p", "max_steps=2", "--watch")
    assert "Completed" in said
    assert (in_checkout / ".mert" / "last-runs" / "pretrain@330m.json").exists()

    # Cancelling ends the stage and what it had started.
    said = prefect(shell, in_checkout, "deployment", "run", "pretrain/tiny")
    run_id = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", said)
    assert run_id is not None
    wait_for(pids.exists, process, log)
    stage = stage_processes(in_checkout)
    prefect(shell, in_checkout, "flow-run", "cancel", run_id.group())
    wait_for(lambda: not alive(stage), process, log)
    wait_for(lambda: "Cancelled" in prefect(shell, in_checkout, "flow-run", "inspect", run_id.group()), process, log)

    # SIGTERM ends everything, a running stage included.
    pids.unlink()
    prefect(shell, in_checkout, "deployment", "run", "pretrain/tiny")
    wait_for(pids.exists, process, log)
    everything = [*stage_processes(in_checkout), *psutil.Process(process.pid).children(recursive=True)]
    assert len(everything) >= 5
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert alive(everything) == []
    assert not (in_checkout / "prefect.toml").exists()
    assert git(in_checkout, "status", "--porcelain", "--", "params.yaml", "flows") == ""


def test_one_dying_brings_the_others_down(up: tuple[subprocess.Popen[str], Path], in_checkout: Path) -> None:
    process, log = up
    driver = psutil.Process(process.pid)
    wait_for(lambda: len(driver.children()) == 2, process, log)
    everything = driver.children(recursive=True)
    next(item for item in driver.children() if "mlflow" in " ".join(item.cmdline())).kill()
    assert process.wait(60) == 2
    assert alive(everything) == []
    said = log.read_text()
    assert "mlflow ended with status -9" in said
    assert str(in_checkout / ".mert" / "logs" / "mlflow.log") in said
