"""Facts of the local services: ports, addresses, secrets, and how another shell finds the Prefect server."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from mert_core.errors import MertError
from mert_core.paths import Layout

HOST = "127.0.0.1"
MLFLOW_PORT = 5000
PREFECT_PORT = 4200
MLFLOW_PAGE = "MERT_MLFLOW_PAGE"  # environment variable: address of the MLflow page, for links from Prefect
_MARK = "# Written by `mert up`, removed when it stops."


@dataclass(frozen=True)
class Addresses:
    """Where the local services listen."""

    mlflow_port: int = MLFLOW_PORT
    prefect_port: int = PREFECT_PORT

    @property
    def mlflow(self) -> str:
        """The MLflow page."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def prefect(self) -> str:
        """The Prefect page."""
        return f"http://{HOST}:{self.prefect_port}"

    @property
    def prefect_api(self) -> str:
        """The Prefect API, for ``PREFECT_API_URL``."""
        return f"{self.prefect}/api"


@dataclass(frozen=True)
class Secrets:
    """What one `mert up` drew by lot: known to its children, to ``prefect.toml`` and to who sees its output."""

    prefect: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    mlflow: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


def prefect_environment(layout: Layout, addresses: Addresses, drawn: Secrets) -> dict[str, str]:
    """Return the variables that keep Prefect inside the state folder and let a client in at the server."""
    return {
        "PREFECT_HOME": str(_prefect_home(layout)),
        "PREFECT_API_URL": addresses.prefect_api,
        "PREFECT_API_AUTH_STRING": drawn.prefect,
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }


def _prefect_home(layout: Layout) -> Path:
    """Prefect's database, storage and profiles, for nobody else to read."""
    home = layout.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    return home


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


def announce(layout: Layout, addresses: Addresses, drawn: Secrets) -> bool:
    """Write ``prefect.toml`` into the repository root, where Prefect's command line reads it; only its owner can.

    Returns:
        False when a ``prefect.toml`` of the user's own stands there; it is left alone.
    """
    path = layout.root / "prefect.toml"
    if path.exists() and not _is_ours(path):
        return False
    home = str(_prefect_home(layout)).replace("\\", "\\\\").replace('"', '\\"')
    path.unlink(missing_ok=True)  # a new file: one that stands there keeps its mode, and its readers
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(
            f'{_MARK}\nhome = "{home}"\n\n[api]\nurl = "{addresses.prefect_api}"\nauth_string = "{drawn.prefect}"\n\n'
            "[server]\nanalytics_enabled = false\n"
        )
    return True


def withdraw(layout: Layout) -> None:
    """Remove the ``prefect.toml`` that `announce` wrote, and no other."""
    path = layout.root / "prefect.toml"
    if path.exists() and _is_ours(path):
        path.unlink()


def _is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith(_MARK)
