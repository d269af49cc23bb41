"""``mert doctor``: is this machine, its packages and this checkout fit for the pipeline?"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import psutil
from packaging.requirements import Requirement

from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.experiments.rendered import outdated, stage_name
from mert_core.services.up import MLFLOW_PORT, PREFECT_PORT, answers, require_free_port

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

GIB = 2**30
STACK = ("torch", "torchaudio", "encodec", "dvc", "prefect", "ray", "mlflow", "sqlalchemy")
LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 3.0  # one Ray worker beside the driver, both with torch

Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and for a problem what to do."""

    level: Level
    topic: str
    text: str


def _look(topic: str, text: str, fault: str | None = None, level: Level = "problem") -> Finding:
    """Return a finding that is ok, or of a level where there is a fault, which its text then ends with."""
    return Finding(level, topic, f"{text}: {fault}") if fault else Finding("ok", topic, text)


def examine(config: Config, layout: Layout) -> int:
    """Print what was found, problems last.

    Returns:
        0, or 1 when there is a problem that keeps the pipeline from running.
    """
    findings = [
        *packages(layout),
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
    """Compare what is installed with ``pyproject.toml``, and look for the programs that flows and services start."""
    fits = sys.version_info[:2] == (3, 11)
    version = ".".join(map(str, sys.version_info[:3]))
    yield _look("python", version, None if fits else "expected 3.11; run `make setup`")
    path = layout.root / "pyproject.toml"
    if path.exists():
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        wanted = [Requirement(text) for text in project["dependencies"]]
        wrong = 0
        for requirement in wanted:
            present = _installed(requirement.name)
            if present is None or not requirement.specifier.contains(present, prereleases=True):
                wrong += 1
                expected = str(requirement.specifier) or "any version"
                yield _look(requirement.name, present or "missing", f"expected {expected}; run `make setup`")
        yield Finding(
            "note" if wrong else "ok", "packages", f"{len(wanted) - wrong} of {len(wanted)} fit pyproject.toml"
        )
        yield Finding("ok", "stack", ", ".join(f"{name} {_installed(name) or '–'}" for name in STACK))
    else:
        yield Finding("note", "packages", f"{layout.root} has no pyproject.toml to compare with")
    beside = Path(sys.executable).parent
    missing = [name for name in ("dvc", "prefect", "mlflow", "mert") if not (beside / name).is_file()]
    if missing:
        yield Finding("problem", "commands", f"{', '.join(missing)} not in {beside}; run `make setup`")
    else:
        yield Finding("ok", "commands", f"dvc, prefect, mlflow, mert in {beside}")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(config: Config) -> Iterator[Finding]:
    """Look at processors and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slow = "more threads than cores is slow, but the outputs stay the same" if config.threads > cores else None
    yield _look("cores", f"{cores} usable, threads: {config.threads}", slow, "note")
    memory = psutil.virtual_memory()
    advice = f"under {LEAST_MEMORY_GIB:g} GiB; close something, or set pretrain.workers to 0"
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    yield _look("memory", text, advice if memory.available < LEAST_MEMORY_GIB * GIB else None, "note")


def disk(layout: Layout) -> Iterator[Finding]:
    """Look at the room for data and for local state."""
    for topic, place in (("disk", layout.root), ("state disk", layout.state)):
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(existing).free / GIB
        advice = f"under {LEAST_DISK_GIB:g} GiB; make room (`dvc gc -w` drops old results)"
        yield _look(topic, f"{free:.1f} GiB free at {place}", advice if free < LEAST_DISK_GIB else None)


def accelerator(config: Config) -> Iterator[Finding]:
    """Look at the GPUs, and at runs that insist on one."""
    try:
        import torch
    except ImportError as error:
        yield Finding("problem", "gpu", f"torch cannot be imported: {error}; run `make setup`")
        return
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    insisting = [name for name in config.runs if config.run(name).device == "cuda"]
    if torch.cuda.is_available():
        yield Finding("ok", "gpu", ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB)" for gpu in gpus))
    elif insisting:
        yield Finding("problem", "gpu", f"none, but device is cuda for {', '.join(insisting)}; set device: auto")
    else:
        yield Finding("ok", "gpu", "none: training runs on the processor")


def state(layout: Layout) -> Iterator[Finding]:
    """Try to write into the state folder."""
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=layout.state):
            yield Finding("ok", "state", f"{layout.state} is writable")
    except OSError as error:
        text = f"{layout.state} cannot be written ({error.strerror or error}); set MERT_HOME to a folder that can"
        yield Finding("problem", "state", text)


def services(config: Config, layout: Layout) -> Iterator[Finding]:
    """Look at the MLflow store and at the ports of ``mert up``."""
    from mert_core.tracking.mlflow_store import tracking_uri

    try:
        uri = tracking_uri(config, layout)
    except MertError as error:
        yield Finding("problem", "mlflow", str(error))
        return
    if uri.startswith(("http://", "https://")) and not answers(f"{uri.rstrip('/')}/health", seconds=5):
        yield Finding("note", "mlflow", f"{uri} does not answer: runs are kept here and sent when it does")
    else:
        yield Finding("ok", "mlflow", uri.rpartition("@")[2])  # without user and password
    for port, flag in ((MLFLOW_PORT, "--mlflow-port"), (PREFECT_PORT, "--prefect-port")):
        try:
            require_free_port(port, flag)
        except MertError as error:
            yield Finding("note", "ports", f"`mert up`: {error}")


def checkout(layout: Layout) -> Iterator[Finding]:
    """Look at git and DVC."""
    if shutil.which("git") is None:
        yield Finding("problem", "git", "not installed; DVC needs it")
        return
    if _git(layout, "rev-parse", "--show-toplevel") is None:
        text = f"{layout.root} is in no git repository; DVC needs one (`git init`, then commit)"
        yield Finding("problem", "git", text)
        return
    commit = _git(layout, "rev-parse", "--short", "HEAD")
    changed = len((_git(layout, "status", "--porcelain") or "").splitlines())
    if commit is None:
        yield Finding("note", "git", "no commit yet: flows with changed parameters need one")
    else:
        yield Finding("ok", "git", f"{commit}, " + (f"{changed} changed file(s)" if changed else "clean"))
    missing = [name for name in (".dvc", "dvc.yaml") if not (layout.root / name).exists()]
    if missing:
        text = f"{', '.join(missing)} missing in {layout.root}; run this in the repository root"
        yield Finding("problem", "dvc", text)
    else:
        lock = "dvc.lock is there" if (layout.root / "dvc.lock").exists() else "no dvc.lock: nothing was reproduced yet"
        yield Finding("ok", "dvc", lock)


def _git(layout: Layout, *arguments: str) -> str | None:
    command = ["git", "-C", str(layout.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def source(config: Config, layout: Layout) -> Iterator[Finding]:
    """Look at the folder of music and at the published weights, where parameters name them."""
    from mert_core.teachers.registry import check_teachers

    if config.corpus.source == "folder" and config.corpus.folder:
        folder = layout.root / config.corpus.folder
        yield _look("music", f"{folder}", None if folder.is_dir() else "no such folder (corpus.folder)")
    try:
        check_teachers(config)
        yield Finding("ok", "teachers", "settings and runs name known ones; `mert teachers list` shows all")
    except MertError as error:
        yield Finding("problem", "teachers", str(error))
    if checkpoint := config.teacher("encodec").settings.get("checkpoint"):
        path = layout.root / checkpoint
        yield _look("teacher", f"{path}", None if path.is_file() else "no such file (teachers.encodec.checkpoint)")


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
    yield Finding("ok", "stages", ", ".join(present) or "none has run here; `dvc repro` runs the pipeline")
