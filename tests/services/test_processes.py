from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mert_core.errors import MertError
from mert_core.services import processes

# Prints its own id and that of two children: one in its group, one in a session of its own (as Ray starts workers).
TREE = """\
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
near = subprocess.Popen(sleep)
far = subprocess.Popen(sleep, start_new_session=True)
print(os.getpid(), near.pid, far.pid, flush=True)
"""
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(300)\n"
)


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def start(code: str) -> subprocess.Popen[bytes]:
    command, here = [sys.executable, "-c", code], Path.cwd()
    return processes.start(command, cwd=here, env=processes.environment(), stdout=subprocess.PIPE)


def stream(code: str, emit) -> int:
    return processes.stream([sys.executable, "-c", code], cwd=Path.cwd(), env=processes.environment(), emit=emit)


def test_stop_ends_the_group_and_sessions_below_it() -> None:
    process = start(TREE + "time.sleep(300)")
    pids = [int(text) for text in process.stdout.readline().split()]
    assert alive(pids) == pids
    processes.stop(process)
    assert alive(pids) == []
    process.stdout.close()


def test_stop_kills_what_ignores_sigterm() -> None:
    process = start(STUBBORN)
    process.stdout.readline()
    began = time.monotonic()
    assert processes.stop(process, grace_seconds=0.3) == -9
    assert time.monotonic() - began < 5
    assert processes.stop(process) == -9  # again: harmless
    process.stdout.close()


def test_stop_ends_what_a_finished_leader_left() -> None:
    process = start(
        "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']).pid)\n"
    )
    child = int(process.stdout.readline())
    while not processes.has_ended(process):
        time.sleep(0.02)
    assert alive([child]) == [child]
    assert processes.stop(process) == 0
    assert alive([child]) == []
    process.stdout.close()


def test_stream_gives_lines_and_status_and_leaves_no_thread() -> None:
    lines, threads = list[str](), threading.active_count()
    code = "import sys; print('out'); print('err', file=sys.stderr); print('ünï', end=''); sys.exit(4)"
    assert stream(code, lines.append) == 4
    assert lines == ["out", "err", "ünï"] and threading.active_count() == threads


def test_stream_thins_a_progress_bar_out() -> None:
    lines: list[str] = []
    code = "import sys\nfor i in range(500): sys.stdout.write(f'\\rstep {i}'); sys.stdout.flush()\nprint('\\nend')"
    stream(code, lines.append)
    assert lines[-2:] == ["step 499", "end"] and len(lines) <= 4


def test_stream_is_live() -> None:
    seen: list[float] = []
    stream("import time; print('a'); time.sleep(0.8); print('b')", lambda line: seen.append(time.monotonic()))
    assert seen[1] - seen[0] > 0.5


def test_stream_does_not_wait_for_a_leftover_child() -> None:
    lines: list[str] = []
    began = time.monotonic()
    assert stream(TREE, lines.append) == 0
    assert time.monotonic() - began < 20
    assert alive([int(text) for text in lines[0].split()][:2]) == []
    far = int(lines[0].split()[2])  # its parent is gone and its session is its own: out of reach, so end it here
    for pid in alive([far]):
        os.kill(pid, 9)


def test_an_error_while_streaming_ends_the_group() -> None:
    pids: list[int] = []

    def cancel(line: str) -> None:
        pids.extend(int(text) for text in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(TREE + "time.sleep(300)", cancel)
    assert len(pids) == 3
    assert alive(pids) == []


def test_tool_is_the_one_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert processes.tool("dvc") == str(Path(sys.executable).parent / "dvc")
    assert processes.environment()["PATH"].startswith(str(Path(sys.executable).parent))
    with pytest.raises(MertError, match="make setup"):
        processes.tool("no-such-tool")
