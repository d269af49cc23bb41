"""``mert up``: the MLflow server, the Prefect server and the process that serves the deployments, as one."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
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
from mert_core.services import gate, processes
from mert_core.tracking.mlflow_store import artifacts_uri, move_artifacts, tracking_uri

HOST = "127.0.0.1"
MLFLOW_PORT = 5000
PREFECT_PORT = 4200
MLFLOW_PAGE = "MERT_MLFLOW_PAGE"  # environment variable: address of the MLflow page, for links from Prefect
START_SECONDS = 180.0
STOP_SECONDS = 25.0  # a flow in it gives its own stage some seconds first
POLL_SECONDS = 0.3
_MARK = "# Written by `mert up`, removed when it stops."


def _draw() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Session:
    """Folders, ports and secrets of one `mert up`.

    Attributes:
        layout: folders of the checkout.
        mlflow_port: port of the MLflow server.
        prefect_port: port of the Prefect server.
        prefect_secret: drawn by lot; known to the children, to ``prefect.toml`` and to who sees the output.
        mlflow_secret: likewise.
    """

    layout: Layout
    mlflow_port: int = MLFLOW_PORT
    prefect_port: int = PREFECT_PORT
    prefect_secret: str = field(default_factory=_draw, repr=False)
    mlflow_secret: str = field(default_factory=_draw, repr=False)

    @property
    def mlflow(self) -> str:
        """The MLflow page."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def prefect(self) -> str:
        """The Prefect page."""
        return f"http://{HOST}:{self.prefect_port}"

    def prefect_home(self) -> Path:
        """Return the folder of Prefect's database, storage and profiles, for nobody else to read."""
        home = self.layout.state / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        return home

    def announce(self) -> bool:
        """Write ``prefect.toml`` into the repository root, where Prefect's command line reads it; only its owner can.

        Returns:
            False when a ``prefect.toml`` of the user's own stands there; it is left alone.
        """
        path = self.layout.root / "prefect.toml"
        if path.exists() and not _is_ours(path):
            return False
        home = str(self.prefect_home()).replace("\\", "\\\\").replace('"', '\\"')
        path.unlink(missing_ok=True)  # a new file: one that stands there keeps its mode, and its readers
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(f'{_MARK}\nhome = "{home}"\n\n[api]\nurl = "{self.prefect}/api"\n')
            stream.write(f'auth_string = "{self.prefect_secret}"\n\n[server]\nanalytics_enabled = false\n')
        return True

    def withdraw(self) -> None:
        """Remove the ``prefect.toml`` that `announce` wrote, and no other."""
        path = self.layout.root / "prefect.toml"
        if path.exists() and _is_ours(path):
            path.unlink()


def _is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith(_MARK)


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


def up(config: Config, layout: Layout, *, mlflow_port: int = MLFLOW_PORT, prefect_port: int = PREFECT_PORT) -> int:
    """Start the three services on 127.0.0.1, print their addresses, and stop all of them when one is asked to end.

    An MLflow server that ``tracking.uri`` (or ``MLFLOW_TRACKING_URI``) names is used and not started.
    Logs lie in the state folder's ``logs``.

    Returns:
        0 after Ctrl-C or SIGTERM.

    Raises:
        MertError: a port is taken, a service does not come up, or one ends on its own. All others are stopped first.
    """
    session = Session(layout, mlflow_port, prefect_port)
    store = tracking_uri(config, layout)
    remote = store if store.startswith(("http://", "https://")) else None
    if mlflow_port == prefect_port:
        raise MertError(f"--mlflow-port and --prefect-port are both {mlflow_port}; choose two ports")
    if not (layout.root / "prefect.yaml").is_file():
        raise MertError(f"{layout.root} has no prefect.yaml. Run `mert up` in the repository root, or give --workdir.")
    if remote is None:
        require_free_port(mlflow_port, "--mlflow-port")
    require_free_port(prefect_port, "--prefect-port")

    with _alone(layout), _signals() as stopped, ExitStack() as running:
        print(f"starting (logs in {layout.state / 'logs'}) …", flush=True)
        servers = (
            [_prefect(session)] if remote else [_prefect(session), _mlflow(session, store, config.tracking.experiment)]
        )
        names = layout.state / "deployments.ready"  # written as soon as all of them are registered
        names.unlink(missing_ok=True)
        services: list[Service] = []
        for group in (servers, [_deployments(session, names, remote or session.mlflow)]):
            for service in group:
                service.start(layout.root)
                running.callback(service.stop)  # in reverse: flows end first and report it to a living server
                services.append(service)
            if not _wait(services, stopped):
                return 0
        running.callback(session.withdraw)
        announced = session.announce()
        output = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(output.st_mode) and output.st_uid == os.getuid():  # a file that will hold the secrets
            os.fchmod(sys.stdout.fileno(), stat.S_IMODE(output.st_mode) & 0o700)
        print(_greeting(session, remote, names.read_text(encoding="utf-8").split(), announced), flush=True)
        running.callback(print, "stopping …", flush=True)
        while not stopped.wait(POLL_SECONDS):
            for service in services:
                service.check()
    return 0


def require_free_port(port: int, flag: str) -> None:
    """Check that a port of this machine can be listened on.

    Raises:
        MertError: it is taken, forbidden or no port number; the message names the flag that changes it.
    """
    if not 1 <= port <= 65535:
        raise MertError(f"{flag} {port}: expected a port between 1 and 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise MertError(
                f"port {port} on {HOST} cannot be used ({error.strerror}). Stop what listens there, "
                f"or choose another with {flag} PORT."
            ) from error


def answers(address: str, seconds: float = 2) -> bool:
    """Tell whether a server answers at an address with status 200 within some seconds."""
    try:
        with urllib.request.urlopen(address, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _mlflow(session: Session, store: str, experiment: str) -> Service:
    move_artifacts(session.layout)
    variables = {
        gate.MLFLOW_STORE: store,
        gate.MLFLOW_EXPERIMENT: experiment,
        gate.MLFLOW_ARTIFACTS: artifacts_uri(session.layout),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        gate.OPEN_SECRET: session.mlflow_secret,
    }
    return _server(session, "mlflow", session.mlflow_port, f"{session.mlflow}/health", variables)


def _prefect(session: Session) -> Service:
    variables = _prefect_client(session) | {
        "PREFECT_SERVER_API_AUTH_STRING": session.prefect_secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": session.prefect,
        "PREFECT_SERVER_UI_API_URL": f"{session.prefect}/api",
        "PREFECT_SERVER_API_PORT": str(session.prefect_port),
        gate.OPEN_SECRET: session.prefect_secret,
    }
    return _server(session, "prefect", session.prefect_port, f"{session.prefect}/api/health", variables)


def _prefect_client(session: Session) -> dict[str, str]:
    """Return the variables that keep Prefect inside the state folder and let a client in at the server."""
    return {
        "PREFECT_HOME": str(session.prefect_home()),
        "PREFECT_API_URL": f"{session.prefect}/api",
        "PREFECT_API_AUTH_STRING": session.prefect_secret,
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }


def _server(session: Session, name: str, port: int, ready: str, variables: dict[str, str]) -> Service:
    """Return one of the two servers, behind its `gate`."""
    command = [sys.executable, "-m", "uvicorn", "--factory", f"mert_core.services.gate:{name}"]
    command += ["--host", HOST, "--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "5"]
    variables |= {gate.MLFLOW_SECRET: session.mlflow_secret}
    return Service(name, command, variables, lambda: answers(ready), session.layout.state / "logs" / f"{name}.log")


def _deployments(session: Session, names: Path, mlflow_page: str) -> Service:
    layout = session.layout
    command = [sys.executable, "-m", "mert_core.services.serve", str(layout.root / "prefect.yaml"), str(names)]
    variables = _prefect_client(session) | {MLFLOW_PAGE: mlflow_page, "MERT_HOME": str(layout.state)}
    return Service("deployments", command, variables, names.exists, layout.state / "logs" / "deployments.log")


def _wait(services: list[Service], stopped: threading.Event) -> bool:
    """Wait until all services answer; return False when a signal asks to stop before."""
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


def _greeting(session: Session, remote: str | None, names: list[str], announced: bool) -> str:
    hint = "in the repository root prefect.toml says it already" if announced else "needed: prefect.toml is your own"
    return f"""\
MLflow       {remote or f"{session.mlflow}{gate.OPEN_PATH}#{session.mlflow_secret}"}
Prefect      {session.prefect}{gate.OPEN_PATH}#{session.prefect_secret}
Deployments  {", ".join(names)}

In another shell ({hint}):
  export PREFECT_API_URL={session.prefect}/api PREFECT_API_AUTH_STRING={session.prefect_secret}
Then, for example: prefect deployment run reproduce/demo
Who has these lines may run commands here: do not pass them on. Ctrl-C stops everything."""
