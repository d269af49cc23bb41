"""The tags of every run: which code, which data, which engine started it, on what machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from mert_core.files import sha256_json
from mert_core.paths import Layout
from mert_core.tracking.stages import StageFacts, record_ids

# What the engines tell the stage's process; `MERT_*` is set by the flows, since a stage imports no engine.
ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "dvc.stage": ("DVC_STAGE",),
    "dvc.root": ("DVC_ROOT",),
    "dvc.experiment": ("DVC_EXP_NAME",),
    "prefect.flow_run_id": ("MERT_PREFECT_FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID"),
    "prefect.deployment": ("MERT_PREFECT_DEPLOYMENT",),
    "ray.trial_id": ("MERT_RAY_TRIAL_ID",),
    "sweep.id": ("MERT_SWEEP_ID",),
}


def run_tags(layout: Layout, stage: str, run: str | None, seed: int, facts: StageFacts) -> dict[str, str]:
    """Return all tags of a run, each only where there is something to say."""
    tags = {"mert.stage": stage, "mert.run": run, "seed": str(seed), "params.sha256": sha256_json(facts.params)}
    tags |= {f"input.{role}": identity for role, identity in record_ids(facts.inputs).items()}
    for name, variables in ENVIRONMENT.items():
        tags[name] = next((os.environ[key] for key in variables if os.environ.get(key)), None)
    tags |= git_tags(layout.root) | hardware_tags()
    tags |= {"mlflow.source.name": f"mert {stage}", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    return {key: value for key, value in tags.items() if value}


def git_tags(root: Path) -> dict[str, str | None]:
    """Return the commit and whether the working tree differs from it; nothing outside a repository."""
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if commit is None:
        return {}
    changes = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    branch = _output(["git", "-C", str(root), "rev-parse", "--abbrev-ref", "HEAD"])
    dirty = "true" if changes else "false"
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.branch": branch, "git.dirty": dirty}


def hardware_tags() -> dict[str, str | None]:
    """Return processor, cores this process may use, memory and accelerators."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware.host": platform.node(),
        "hardware.cpu": _processor(),
        "hardware.cores": str(cores),
        "hardware.memory_gib": _memory_gib(),
        "hardware.gpu": _accelerators(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> str | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f}"


def _accelerators() -> str | None:
    torch = sys.modules.get("torch")  # a stage that needs no torch should not pay for its import
    if torch is not None:
        if not torch.cuda.is_available():
            return None
        return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    if shutil.which("nvidia-smi") is None:
        return None
    listed = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return ", ".join(listed.splitlines()) if listed else None


def _user() -> str | None:
    return os.environ.get("USER") or os.environ.get("LOGNAME")


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
