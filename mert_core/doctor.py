"""``mert doctor``: is this machine, its packages and this checkout fit for the line?"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from packaging.requirements import Requirement

from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.experiments.rendered import outdated, stage_name
from mert_core.services import local

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

GIB = 2**30
STACK = ("torch", "torchaudio", "encodec", "dvc", "prefect", "ray", "mlflow", "sqlalchemy")
LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 3.0  # one Ray worker beside the driver, both with torch

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and for a problem what to do."""

    level: Level
    topic: str
    text: str


def examine(config: Config, layout: Layout) -> int:
    """Print what was found, problems last.

    Returns:
        0, or 1 when there is a problem that keeps the line from running.
    """
    findings = [
        *packages(layout),
        *commands(),
        *machine(config),
        *disk(layout),
        *accelerator(config),
        *state(layout),
        *services(config, layout),
        *checkout(layout),
        *source(config, layout),
        *stages(config, layout),
    ]
    findings.sort(key=lambda item: item.level == "problem")  # stable: the rest keeps its order
    width = max(len(item.topic) for item in findings)
    for item in findings:
        print(f"{item.level:8}{item.topic:{width}}  {item.text}")
    problems = sum(item.level == "problem" for item in findings)
    print(f"{problems} problem(s)" if problems else "no problem")
    return 1 if problems else 0


def packages(layout: Layout) -> Iterator[Finding]:
    """Compare what is installed with the requirements of ``pyproject.toml``."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info[:2] == (3, 11)
    yield Finding(
        "ok" if fits else "problem", "python", version + ("" if fits else ": expected 3.11; run `make setup`")
    )
    path = layout.root / "pyproject.toml"
    if not path.exists():
        yield Finding("note", "packages", f"{layout.root} has no pyproject.toml to compare with")
        return
    wanted = [Requirement(text) for text in tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]]
    wrong = 0
    for requirement in wanted:
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            wrong += 1
            expected = str(requirement.specifier) or "any version"
            yield Finding("problem", requirement.name, f"{found or 'missing'}: expected {expected}; run `make setup`")
    yield Finding(
        "ok" if not wrong else "note", "packages", f"{len(wanted) - wrong} of {len(wanted)} fit pyproject.toml"
    )
    yield Finding("ok", "stack", ", ".join(f"{name} {installed(name) or '–'}" for name in STACK))


def installed(name: str) -> str | None:
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commands() -> Iterator[Finding]:
    """Look for the programs that flows and services start."""
    beside = Path(sys.executable).parent
    missing = [name for name in ("dvc", "prefect", "mlflow", "mert") if not (beside / name).is_file()]
    if missing:
        yield Finding("problem", "commands", f"{', '.join(missing)} not in {beside}; run `make setup`")
    else:
        yield Finding("ok", "commands", f"dvc, prefect, mlflow, mert in {beside}")


def machine(config: Config) -> Iterator[Finding]:
    """Look at processors and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{cores} usable, threads: {config.threads}"
    if config.threads > cores:
        yield Finding("note", "cores", f"{text}: more threads than cores is slow, but the outputs stay the same")
    else:
        yield Finding("ok", "cores", text)
    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    little = memory.available < LEAST_MEMORY_GIB * GIB
    advice = f": under {LEAST_MEMORY_GIB:g} GiB; close something, or set pretrain.workers to 0" if little else ""
    yield Finding("note" if little else "ok", "memory", text + advice)


def disk(layout: Layout) -> Iterator[Finding]:
    """Look at the room for data and for local state."""
    for topic, place in (("disk", layout.root), ("state disk", layout.state)):
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(existing).free / GIB
        text = f"{free:.1f} GiB free at {place}"
        if free < LEAST_DISK_GIB:
            yield Finding(
                "problem", topic, f"{text}: under {LEAST_DISK_GIB:g} GiB; make room (`dvc gc -w` drops old results)"
            )
        else:
            yield Finding("ok", topic, text)


def accelerator(config: Config) -> Iterator[Finding]:
    """Look at the GPUs, and at runs that insist on one."""
    try:
        import torch
    except ImportError as error:
        yield Finding("problem", "gpu", f"torch cannot be imported: {error}; run `make setup`")
        return
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        yield Finding("ok", "gpu", ", ".join(f"{item.name} ({item.total_memory / GIB:.0f} GiB)" for item in found))
        return
    insisting = [name for name in config.runs if config.run(name).device == "cuda"]
    if insisting:
        yield Finding("problem", "gpu", f"none, but device is cuda for {', '.join(insisting)}; set device: auto")
    else:
        yield Finding("ok", "gpu", "none: training runs on the processor")


def state(layout: Layout) -> Iterator[Finding]:
    """Try to write into the state folder."""
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=layout.state):
            pass
    except OSError as error:
        reason = error.strerror or error
        yield Finding(
            "problem", "state", f"{layout.state} cannot be written ({reason}); set MERT_HOME to a folder that can"
        )
    else:
        yield Finding("ok", "state", f"{layout.state} is writable")


def services(config: Config, layout: Layout) -> Iterator[Finding]:
    """Look at the MLflow store and at the ports of ``mert up``."""
    from mert_core.tracking.mlflow_store import tracking_uri

    try:
        uri = tracking_uri(config, layout)
    except MertError as error:
        yield Finding("problem", "mlflow", str(error))
        return
    if uri.startswith(("http://", "https://")) and not _answers(f"{uri.rstrip('/')}/health"):
        yield Finding("note", "mlflow", f"{uri} does not answer: runs are kept here and sent when it does")
    else:
        yield Finding("ok", "mlflow", uri.rpartition("@")[2])  # without user and password
    for port, flag in ((local.MLFLOW_PORT, "--mlflow-port"), (local.PREFECT_PORT, "--prefect-port")):
        try:
            local.require_free_port(port, flag)
        except MertError as error:
            yield Finding("note", "ports", f"`mert up`: {error}")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def checkout(layout: Layout) -> Iterator[Finding]:
    """Look at git and DVC."""
    if shutil.which("git") is None:
        yield Finding("problem", "git", "not installed; DVC needs it")
        return
    top = _git(layout, "rev-parse", "--show-toplevel")
    if top is None:
        yield Finding(
            "problem", "git", f"{layout.root} is in no git repository; DVC needs one (`git init`, then commit)"
        )
        return
    commit = _git(layout, "rev-parse", "--short", "HEAD")
    changed = (_git(layout, "status", "--porcelain") or "").splitlines()
    if commit is None:
        yield Finding("note", "git", "no commit yet: flows with changed parameters need one")
    else:
        yield Finding("ok", "git", f"{commit}, " + (f"{len(changed)} changed file(s)" if changed else "clean"))
    missing = [name for name in (".dvc", "dvc.yaml") if not (layout.root / name).exists()]
    if missing:
        yield Finding(
            "problem", "dvc", f"{', '.join(missing)} missing in {layout.root}; run this in the repository root"
        )
    else:
        lock = "dvc.lock is there" if (layout.root / "dvc.lock").exists() else "no dvc.lock: nothing was reproduced yet"
        yield Finding("ok", "dvc", lock)


def _git(layout: Layout, *arguments: str) -> str | None:
    command = ["git", "-C", str(layout.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def source(config: Config, layout: Layout) -> Iterator[Finding]:
    """Look at the folder of music and at the published weights, where parameters name them."""
    if config.corpus.source == "folder" and config.corpus.folder:
        folder = layout.root / config.corpus.folder
        found = folder.is_dir()
        yield Finding(
            "ok" if found else "problem", "music", f"{folder}" + ("" if found else ": no such folder (corpus.folder)")
        )
    try:
        from mert_core.teachers.registry import check_teachers

        check_teachers(config)
        yield Finding("ok", "teachers", "settings and runs name known ones; `mert teachers list` shows all")
    except MertError as error:
        yield Finding("problem", "teachers", str(error))
    checkpoint = config.teacher("encodec").settings.get("checkpoint")
    if checkpoint is not None:
        path = layout.root / checkpoint
        text = f"{path}" + ("" if path.is_file() else ": no such file (teachers.encodec.checkpoint)")
        yield Finding("ok" if path.is_file() else "problem", "teacher", text)


def stages(config: Config, layout: Layout) -> Iterator[Finding]:
    """Say which stages have left a result here; a missing one is no problem, a damaged one or an old plan is."""
    if line := outdated(config, layout):
        yield Finding("problem", "plan", line)
    folders = {
        "corpus": layout.corpus,
        "probe_set": layout.probe_set,
        **{stage_name("teachers", name): layout.teacher(name) for name in config.teachers},
        **{stage_name("targets", name): layout.targets(name) for name in config.teachers},
        **{stage_name("pretrain", run): layout.model(run) for run in config.runs},
        **{stage_name("probe", run): layout.scores(run) for run in config.runs},
        "report": layout.report,
    }
    present = []
    for name, folder in folders.items():
        if not folder.exists():
            continue
        try:
            present.append(f"{name} {read_record(folder).id[:8]}")
        except MertError as error:
            yield Finding("problem", "stages", f"{name}: {error}")
    yield Finding("ok", "stages", ", ".join(present) if present else "none has run here; `dvc repro` runs the line")
