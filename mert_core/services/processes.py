"""Child processes in groups of their own, which end completely: a stopped stage leaves no training behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from mert_core.errors import MertError

GRACE_SECONDS = 10.0
PROGRESS_SECONDS = 10.0  # a progress bar redraws many times a second; a log wants it now and then


def tool(name: str) -> str:
    """Return the path of a command that is installed beside the running interpreter, ``PATH`` or not.

    Raises:
        MertError: it is not there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise MertError(f"no {name!r} beside {sys.executable}. Run `make setup`, then use .venv/bin/python.")
    return str(path)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment for a child: our own commands first on ``PATH``, no telemetry, unbuffered."""
    commands = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        "PATH": path if path.split(os.pathsep)[0] == commands else commands + os.pathsep + path,
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        **(extra or {}),
    }


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a new session and process group; stderr joins stdout (a file descriptor)."""
    return subprocess.Popen(
        list(command),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether the leader has ended, without reaping it: unreaped, it keeps its group id from being reused."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def stop(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> int:
    """End a process, its group and every descendant, also those in sessions of their own (Ray's workers).

    The group gets SIGTERM; when it has ended, so do the other sessions below it; what is left after ``grace_seconds``
    gets SIGKILL. Safe to call on a process that has ended already.

    Returns:
        The exit status of the leader, negative for a signal.
    """
    if process.returncode is not None:  # reaped: its id may belong to another by now
        return process.returncode
    try:
        descendants = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        descendants = []
    deadline = time.monotonic() + grace_seconds
    for living in (lambda: _group(process.pid), lambda: _living(descendants)):
        _send(living(), signal.SIGTERM)
        while living() and time.monotonic() < deadline:
            time.sleep(0.05)
    while stubborn := [*_group(process.pid), *_living(descendants)]:
        _send(stubborn, signal.SIGKILL)  # cannot be refused, but takes a moment
        time.sleep(0.02)
    return process.wait()


def _group(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                members.append(process)
    return _living(members)


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    living = []
    for item in processes:
        with suppress(psutil.NoSuchProcess):
            if item.is_running() and item.status() != psutil.STATUS_ZOMBIE:
                living.append(item)
    return living


def _send(processes: Iterable[psutil.Process], number: int) -> None:
    for item in processes:
        with suppress(psutil.NoSuchProcess):
            item.send_signal(number)  # checks that the id is still the same process


def stream(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    emit: Callable[[str], None],
    grace_seconds: float = GRACE_SECONDS,
) -> int:
    """Run a command in its own process group, handing over its output line by line as it comes.

    Of a progress bar one line in ten seconds is handed over. However the block is left (end, error, cancellation),
    nothing of the group is alive afterwards.

    Args:
        command: the command and its arguments.
        cwd: working directory.
        env: the whole environment; see `environment`.
        emit: called with each line, without its end.
        grace_seconds: time between SIGTERM and SIGKILL.

    Returns:
        The exit status, negative for a signal.
    """
    rest, bar_shown = b"", 0.0

    def say(line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip():
            emit(text)

    process = start(command, cwd=cwd, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.fileno()
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=0.5):
                    if not (chunk := os.read(output, 65536)):
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        say(line.rstrip(b"\r").split(b"\r")[-1])
                    *bar, rest = rest.split(b"\r")  # a progress bar is redrawn with carriage returns
                    if bar and bar[-1].strip() and time.monotonic() - bar_shown >= PROGRESS_SECONDS:
                        bar_shown = time.monotonic()
                        say(bar[-1])
                elif has_ended(process):  # a leftover child may hold the pipe open for ever
                    break
        say(rest)
        while not has_ended(process):
            time.sleep(0.02)
    finally:
        status = stop(process, grace_seconds)
        process.stdout.close()
    return status
