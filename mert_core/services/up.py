"""``mert up``: the MLflow server, the Prefect server and the process that serves the deployments, as one."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.services import gate, local, processes
from mert_core.services.local import HOST, Addresses, Secrets
from mert_core.tracking.mlflow_store import artifacts_uri, move_artifacts, tracking_uri

START_SECONDS = 180.0
STOP_SECONDS = 25.0  # a flow in it gives its own stage some seconds first
POLL_SECONDS = 0.3


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
            said = "\n".join(f"  {line}" for line in tail)
            raise MertError(f"{self.name} ended with status {status}; its log is {self.log}\n{said}")

    def stop(self) -> None:
        """End it and all its descendants."""
        if self.process is not None:
            processes.stop(self.process, STOP_SECONDS)


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
    addresses, drawn = Addresses(mlflow_port, prefect_port), Secrets()
    store = tracking_uri(config, layout)
    remote = store if store.startswith(("http://", "https://")) else None
    if mlflow_port == prefect_port:
        raise MertError(f"--mlflow-port and --prefect-port are both {mlflow_port}; choose two ports")
    if not (layout.root / "prefect.yaml").is_file():
        raise MertError(f"{layout.root} has no prefect.yaml. Run `mert up` in the repository root, or give --workdir.")
    if remote is None:
        local.require_free_port(mlflow_port, "--mlflow-port")
    local.require_free_port(prefect_port, "--prefect-port")

    with _alone(layout), _signals() as stopped, ExitStack() as running:
        print(f"starting (logs in {layout.state / 'logs'}) …", flush=True)
        servers = [_prefect(layout, addresses, drawn)]
        if remote is None:
            servers.append(_mlflow(layout, addresses, drawn, store))
        deployments = _deployments(layout, addresses, drawn, remote or addresses.mlflow)
        services: list[Service] = []
        for group in (servers, [deployments]):
            for service in group:
                service.start(layout.root)
                running.callback(service.stop)  # in reverse: flows end first and report it to a living server
                services.append(service)
            if not _wait(services, stopped):
                return 0
        running.callback(local.withdraw, layout)
        announced = local.announce(layout, addresses, drawn)
        names = _ready_mark(layout).read_text(encoding="utf-8").split()
        _keep_output_private()
        print(_greeting(addresses, drawn, remote, names, announced), flush=True)
        running.callback(print, "stopping …", flush=True)
        while not stopped.wait(POLL_SECONDS):
            for service in services:
                service.check()
    return 0


def _mlflow(layout: Layout, addresses: Addresses, drawn: Secrets, store: str) -> Service:
    move_artifacts(layout)
    variables = {
        gate.MLFLOW_STORE: store,
        gate.MLFLOW_ARTIFACTS: artifacts_uri(layout),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return _server("mlflow", addresses.mlflow_port, f"{addresses.mlflow}/health", layout, drawn, variables)


def _prefect(layout: Layout, addresses: Addresses, drawn: Secrets) -> Service:
    variables = local.prefect_environment(layout, addresses, drawn) | {
        "PREFECT_SERVER_API_AUTH_STRING": drawn.prefect,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": addresses.prefect,
        "PREFECT_SERVER_UI_API_URL": addresses.prefect_api,
        "PREFECT_SERVER_API_PORT": str(addresses.prefect_port),
    }
    return _server("prefect", addresses.prefect_port, f"{addresses.prefect_api}/health", layout, drawn, variables)


def _server(name: str, port: int, ready: str, layout: Layout, drawn: Secrets, variables: dict[str, str]) -> Service:
    """Return one of the two servers, behind its `gate`."""
    command = [sys.executable, "-m", "uvicorn", "--factory", f"mert_core.services.gate:{name}"]
    command += ["--host", HOST, "--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "5"]
    variables |= {gate.OPEN_SECRET: getattr(drawn, name), gate.MLFLOW_SECRET: drawn.mlflow}
    return Service(name, command, variables, lambda: _answers(ready), layout.state / "logs" / f"{name}.log")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _deployments(layout: Layout, addresses: Addresses, drawn: Secrets, mlflow_page: str) -> Service:
    mark = _ready_mark(layout)
    mark.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mert_core.services.serve", str(layout.root / "prefect.yaml"), str(mark)]
    variables = local.prefect_environment(layout, addresses, drawn)
    variables |= {local.MLFLOW_PAGE: mlflow_page, "MERT_HOME": str(layout.state)}
    return Service("deployments", command, variables, mark.exists, layout.state / "logs" / "deployments.log")


def _ready_mark(layout: Layout) -> Path:
    """Names of the deployments, written as soon as all of them are registered."""
    return layout.state / "deployments.ready"


def _wait(services: list[Service], stopped: threading.Event) -> bool:
    """Wait until all services answer; return False when a signal asks to stop before.

    Raises:
        MertError: one of them ended, or the time is up.
    """
    for _ in range(round(START_SECONDS / POLL_SECONDS)):
        slow = [service for service in services if not service.ready()]
        if not slow:
            return True
        for service in services:
            service.check()
        if stopped.wait(POLL_SECONDS):
            return False
    names = ", ".join(service.name for service in slow)
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
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_output_private() -> None:
    """Take a file that the output goes to away from other users: it will hold the secrets."""
    output = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(output.st_mode) and output.st_uid == os.getuid():
        os.fchmod(sys.stdout.fileno(), stat.S_IMODE(output.st_mode) & 0o700)


def _greeting(addresses: Addresses, drawn: Secrets, remote: str | None, names: list[str], announced: bool) -> str:
    hint = "in the repository root prefect.toml says it already" if announced else "needed: prefect.toml is your own"
    return "\n".join(
        [
            f"MLflow       {remote or f'{addresses.mlflow}{gate.OPEN_PATH}#{drawn.mlflow}'}",
            f"Prefect      {addresses.prefect}{gate.OPEN_PATH}#{drawn.prefect}",
            f"Deployments  {', '.join(names)}",
            "",
            f"In another shell ({hint}):",
            f"  export PREFECT_API_URL={addresses.prefect_api} PREFECT_API_AUTH_STRING={drawn.prefect}",
            "Then, for example: prefect deployment run reproduce/demo",
            "Who has these lines may run commands here: do not pass them on. Ctrl-C stops everything.",
        ]
    )
