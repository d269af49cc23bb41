"""Facts of the local services: ports, addresses, environment, and how another shell finds the Prefect server."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from mert_core.errors import MertError
from mert_core.files import write_text
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


def prefect_home(layout: Layout) -> Path:
    """Return Prefect's home: its database, storage and profiles."""
    return layout.state / "prefect"


def prefect_environment(layout: Layout, addresses: Addresses | None = None) -> dict[str, str]:
    """Return the variables that keep Prefect inside the state folder and, with addresses, point it at the server."""
    variables = {
        "PREFECT_HOME": str(prefect_home(layout)),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }
    if addresses is not None:
        variables |= {"PREFECT_API_URL": addresses.prefect_api, MLFLOW_PAGE: addresses.mlflow}
    return variables


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


def announce(layout: Layout, addresses: Addresses) -> bool:
    """Write ``prefect.toml`` into the repository root, which Prefect's command line reads from the current folder.

    Returns:
        False when a ``prefect.toml`` of the user's own stands there; it is left alone.
    """
    path = layout.root / "prefect.toml"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(_MARK):
        return False
    home = str(prefect_home(layout)).replace("\\", "\\\\").replace('"', '\\"')
    write_text(
        path,
        f'{_MARK}\nhome = "{home}"\n\n[api]\nurl = "{addresses.prefect_api}"\n\n[server]\nanalytics_enabled = false\n',
    )
    return True


def withdraw(layout: Layout) -> None:
    """Remove the ``prefect.toml`` that `announce` wrote, and no other."""
    path = layout.root / "prefect.toml"
    if path.exists() and path.read_text(encoding="utf-8").startswith(_MARK):
        path.unlink()
