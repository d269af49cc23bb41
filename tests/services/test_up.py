from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.services import up
from mert_core.services.up import Session


def test_a_taken_port_is_named_with_its_flag() -> None:
    with socket.socket() as listener:
        listener.bind((up.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(MertError, match=rf"port {port} .*--mlflow-port"):
            up.require_free_port(port, "--mlflow-port")
    up.require_free_port(port, "--mlflow-port")
    with pytest.raises(MertError, match="--prefect-port 70000"):
        up.require_free_port(70000, "--prefect-port")


def test_prefect_finds_the_announced_server_without_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MERT_HOME", raising=False)
    (tmp_path / "prefect.toml").write_text(up._MARK)  # left by a `mert up` that was killed, for all to read
    session = Session(Layout.at(tmp_path), prefect_port=4321)
    assert session.announce()
    assert stat.S_IMODE((tmp_path / "prefect.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".mert" / "prefect").stat().st_mode) == 0o700
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    code = (
        "from prefect.settings import get_current_settings; s = get_current_settings()\n"
        "print(s.api.url, s.home, s.api.auth_string.get_secret_value())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "http://127.0.0.1:4321/api",
        str(tmp_path / ".mert" / "prefect"),
        session.prefect_secret,
    ]
    session.withdraw()
    assert not (tmp_path / "prefect.toml").exists()


def test_the_users_own_prefect_toml_is_left_alone(tmp_path: Path) -> None:
    session = Session(Layout.at(tmp_path))
    (tmp_path / "prefect.toml").write_text("[api]\nurl = 'http://elsewhere/api'\n")
    assert not session.announce()
    session.withdraw()
    assert "elsewhere" in (tmp_path / "prefect.toml").read_text()


def test_secrets_are_new_each_time_and_not_shown(tmp_path: Path) -> None:
    first, second = Session(Layout.at(tmp_path)), Session(Layout.at(tmp_path))
    drawn = {first.prefect_secret, first.mlflow_secret, second.prefect_secret, second.mlflow_secret}
    assert len(drawn) == 4 and not any(secret in repr(first) for secret in drawn)
