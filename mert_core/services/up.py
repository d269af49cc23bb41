"""``mert up``: the MLflow server, the Prefect server and the process that serves the deployments, as one."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.services import local, processes
from mert_core.services.local import HOST, Addresses
from mert_core.tracking.store import tracking_uri

START_SECONDS = 180.0
STOP_SECONDS = 25.0  # a flow in it gives its own stage some seconds first
POLL_SECONDS = 0.3


class _Stopped(Exception):
    """Somebody asked to stop while the services were starting."""


@dataclass
class Service:
    """One child of ``mert up``.

    Attributes:
        name: what it is called in messages and in its log's file name.
        command: how it is started.
        variables: what its environment has beside ours.
        ready: tells whether it answers.
        log: where its output goes.
        process: the running child.
    """

    name: str
    command: list[str]
    variables: dict[str, str]
    ready: Callable[[], bool]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self, cwd: Path) -> None:
        """Start it in a process group of its own, its output in its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as stream:
            environment = processes.environment(self.variables)
            self.process = processes.start(self.command, cwd=cwd, env=environment, stdout=stream.fileno())

    def check(self) -> None:
        """Raise `MertError` when it has ended."""
        if self.process is not None and processes.has_ended(self.process):
            status = processes.stop(self.process)
            tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            raise MertError(
                f"{self.name} ended with status {status}; its log is {self.log}\n"
                + "\n".join(f"  {line}" for line in tail)
            )

    def stop(self) -> None:
        """End it and all its descendants."""
        if self.process is not None:
            processes.stop(self.process, STOP_SECONDS)


def answers(address: str) -> bool:
    """Tell whether a GET of an address gives status 200."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _mlflow(layout: Layout, addresses: Addresses, store: str) -> Service:
    artifacts = layout.state / "mlflow" / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [
        processes.tool("mlflow"),
        "server",
        "--host",
        HOST,
        "--port",
        str(addresses.mlflow_port),
        "--workers",
        "1",
        "--backend-store-uri",
        store,
        # Stages write to this store directly, so that they need no server: the server must not proxy artifacts.
        "--default-artifact-root",
        artifacts.as_uri(),
        "--no-serve-artifacts",
    ]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    ready = f"{addresses.mlflow}/health"
    return Service("mlflow", command, variables, lambda: answers(ready), layout.state / "logs" / "mlflow.log")


def _prefect(layout: Layout, addresses: Addresses) -> Service:
    local.prefect_home(layout).mkdir(parents=True, exist_ok=True)
    command = [processes.tool("prefect"), "server", "start", "--host", HOST, "--port", str(addresses.prefect_port)]
    variables = local.prefect_environment(layout, addresses)
    ready = f"{addresses.prefect_api}/health"
    return Service("prefect", command, variables, lambda: answers(ready), layout.state / "logs" / "prefect.log")


def _deployments(layout: Layout, addresses: Addresses, mlflow_page: str) -> Service:
    mark = layout.state / "deployments.ready"
    mark.unlink(missing_ok=True)
    serve = [sys.executable, "-m", "mert_core.services.serve"]
    command = [*serve, "--file", str(layout.root / "prefect.yaml"), "--ready", str(mark)]
    variables = local.prefect_environment(layout, addresses)
    variables |= {local.MLFLOW_PAGE: mlflow_page, "MERT_HOME": str(layout.state)}
    return Service("deployments", command, variables, mark.exists, layout.state / "logs" / "deployments.log")


def _wait(services: list[Service], stopped: threading.Event) -> None:
    """Wait until all services answer, with one of them dying, a signal or a time limit as the other ends."""
    waited = 0.0
    while not all(service.ready() for service in services):
        for service in services:
            service.check()
        if stopped.wait(POLL_SECONDS):
            raise _Stopped
        waited += POLL_SECONDS
        if waited > START_SECONDS:
            slow = [service for service in services if not service.ready()]
            names = ", ".join(item.name for item in slow)
            raise MertError(f"{names} did not answer within {START_SECONDS:.0f} s; see {slow[0].log}")


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Hold the state folder's lock: two sets of services on one store would fight over it."""
    layout.state.mkdir(parents=True, exist_ok=True)
    with (layout.state / "up.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MertError(f"`mert up` runs already on {layout.state}; stop it first (Ctrl-C where it runs)") from None
        yield


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set."""
    stopped = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stopped.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(addresses: Addresses, mlflow_page: str, names: list[str], announced: bool) -> str:
    export = f"export PREFECT_API_URL={addresses.prefect_api}"
    hint = "in the repository root prefect.toml says it already" if announced else "needed: prefect.toml is your own"
    return "\n".join(
        [
            f"MLflow       {mlflow_page}",
            f"Prefect      {addresses.prefect}",
            f"Deployments  {', '.join(names)}",
            "",
            f"In another shell: {export}   ({hint})",
            "Then, for example: prefect deployment run reproduce/demo",
            "Ctrl-C stops everything.",
        ]
    )


def up(
    config: Config, layout: Layout, *, mlflow_port: int = local.MLFLOW_PORT, prefect_port: int = local.PREFECT_PORT
) -> int:
    """Start the three services on 127.0.0.1, print their addresses, and stop all of them when one is asked to end.

    An MLflow server that ``tracking.uri`` (or ``MLFLOW_TRACKING_URI``) names is used and not started.
    Logs lie in the state folder's ``logs``.

    Returns:
        0 after Ctrl-C or SIGTERM.

    Raises:
        MertError: a port is taken, a service does not come up, or one ends on its own. All others are stopped first.
    """
    addresses = Addresses(mlflow_port, prefect_port)
    store = tracking_uri(config, layout)
    remote = store if store.startswith(("http://", "https://")) else None
    if mlflow_port == prefect_port:
        raise MertError(f"--mlflow-port and --prefect-port are both {mlflow_port}; choose two ports")
    if not (layout.root / "prefect.yaml").is_file():
        raise MertError(f"{layout.root} has no prefect.yaml. Run `mert up` in the repository root, or give --workdir.")
    if remote is None:
        local.require_free_port(mlflow_port, "--mlflow-port")
    local.require_free_port(prefect_port, "--prefect-port")

    page = remote or addresses.mlflow
    services: list[Service] = []
    with _alone(layout), _signals() as stopped:
        try:
            print(f"starting (logs in {layout.state / 'logs'}) …", flush=True)
            if remote is None:
                services.append(_mlflow(layout, addresses, store))
            services.append(_prefect(layout, addresses))
            for service in services:
                service.start(layout.root)
            _wait(services, stopped)
            services.append(_deployments(layout, addresses, page))
            services[-1].start(layout.root)
            _wait(services, stopped)
            names = (layout.state / "deployments.ready").read_text(encoding="utf-8").split()
            print(_greeting(addresses, page, names, local.announce(layout, addresses)), flush=True)
            while not stopped.wait(POLL_SECONDS):
                for service in services:
                    service.check()
        except _Stopped:
            pass
        finally:
            local.withdraw(layout)
            print("stopping …", flush=True)
            for service in reversed(services):  # flows first: they report their end to a living server
                service.stop()
    return 0
