"""What a run is called and labelled with: parameters, records, code, engine, machine."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from mert_core.config import load_config
from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config

# A stage's sections of the parameters; teachers and runs are looked up by name.
SECTIONS: dict[str, tuple[str, ...]] = {
    "corpus": ("corpus", "pieces"),
    "probe-set": ("probe_set", "pieces"),
    "targets": ("targets",),
    "probe": ("probe",),
    "report": ("report",),
    "sweep": ("sweep",),
}
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
EXPERIMENT_TAG = "mert.experiment"
_CHANGES_SHOWN = 3


class StageFacts(NamedTuple):
    """Parameters by dotted name, input folders by role, and the folder the stage writes (None: none of ours)."""

    params: dict[str, Any]
    inputs: dict[str, Path]
    output: Path | None


def stage_facts(config: Config, layout: Layout, stage: str, run: str | None) -> StageFacts:
    """Return what a stage's run is labelled with. An unknown stage has no more than seed and threads."""
    stage = stage.replace("_", "-")
    outputs = {"corpus": layout.corpus, "probe-set": layout.probe_set, "report": layout.report}
    if run is not None:
        outputs |= {"teachers": layout.teacher(run), "targets": layout.targets(run)}
        outputs |= {"pretrain": layout.model(run), "probe": layout.scores(run)}
    return StageFacts(_params(config, stage, run), _inputs(config, layout, stage, run), outputs.get(stage))


def _params(config: Config, stage: str, run: str | None) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    params: dict[str, Any] = {"seed": config.seed, "threads": config.threads}
    params |= {name: tree[name] for name in SECTIONS.get(stage, ())}
    if stage == "teachers" and run is not None:
        params["teachers"] = {run: tree["teachers"].get(run) or {}}
    if stage == "pretrain" and run in config.runs:
        params["pretrain"] = config.run(run).model_dump(mode="json")
    return flatten(params)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def changes(config: Config, layout: Layout, stage: str, run: str | None) -> dict[str, Any]:
    """Return the stage's parameters that differ from the committed ``params.yaml``, by their shortest plain name.

    Nothing differs where there is no commit to compare with, or none that this code can read.
    """
    committed = _output(["git", "-C", str(layout.root), "show", "HEAD:./params.yaml"])
    if committed is None:
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as stream:
        stream.write(committed)
        stream.flush()
        try:
            other = load_config(Path(stream.name))
        except MertError:
            return {}
    if run in config.runs and run not in other.runs:
        return {}  # a new run is no experiment on an old one
    before, now = (_params(tree, stage.replace("_", "-"), run) for tree in (other, config))
    return {key.partition(".")[2] or key: value for key, value in now.items() if before.get(key) != value}


def run_name(stage: str, run: str | None, changed: Mapping[str, Any]) -> str:
    """Return a run's name: stage, named run and what an experiment changed of it: ``pretrain/tiny max_steps=20``."""
    texts = {key: str(value) for key, value in changed.items()}
    shown = [f"{key}={text if len(text) <= 24 else f'{text[:23]}…'}" for key, text in texts.items()][:_CHANGES_SHOWN]
    more = [f"+{len(texts) - _CHANGES_SHOWN}"] if len(texts) > _CHANGES_SHOWN else []
    return " ".join([f"{stage}/{run}" if run else stage, *shown, *more])


def record_ids(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the record ids of those folders that hold a readable record."""
    identities = {}
    for role, folder in folders.items():
        try:
            identities[role] = read_record(folder).id
        except MertError:  # the stage itself says what is missing; a label is no reason to stop
            continue
    return identities


def _inputs(config: Config, layout: Layout, stage: str, run: str | None) -> dict[str, Path]:
    inputs = {"corpus": layout.corpus}
    if stage == "targets" and run is not None:
        inputs["teacher"] = layout.teacher(run)
    elif stage in {"pretrain", "sweep"}:
        name = config.sweep.run if stage == "sweep" else run
        terms = [term for term in config.run(name).teachers if term.weight] if name in config.runs else []
        inputs |= {f"targets/{x.teacher}": layout.targets(x.teacher) for x in terms if x.targets == "stored"}
        inputs |= {f"teacher/{x.teacher}": layout.teacher(x.teacher) for x in terms}
    elif stage == "probe":
        inputs = {"probe_set": layout.probe_set} | ({"checkpoint": layout.model(run)} if run in config.runs else {})
    elif stage == "report":
        inputs |= {f"targets/{name}": layout.targets(name) for name in config.teachers}
        inputs |= {f"scores/{name}": layout.scores(name) for name in config.shown_runs}
    elif stage != "teachers":
        inputs = {}
    return inputs


def run_tags(
    config: Config, layout: Layout, stage: str, run: str | None, facts: StageFacts, changed: Mapping[str, Any]
) -> dict[str, str]:
    """Return all tags of a run, each only where there is something to say."""
    tags: dict[str, str | None] = {
        "mert.stage": stage,
        "mert.run": run,
        "seed": str(config.seed),
        "params.sha256": sha256_json(facts.params),
        EXPERIMENT_TAG: " ".join(f"{key}={value}" for key, value in changed.items()),
        **{f"input.{role}": identity for role, identity in record_ids(facts.inputs).items()},
        "hardware.host": platform.node(),
        "hardware.cpu": _processor(),
        "hardware.cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "hardware.gpu": _accelerators(),
        "mlflow.source.name": f"mert {stage}",
        "mlflow.source.type": "LOCAL",
    }
    for name, variables in ENVIRONMENT.items():
        tags[name] = next((os.environ[key] for key in variables if os.environ.get(key)), None)
    git = ["git", "-C", str(layout.root)]
    if commit := _output([*git, "rev-parse", "HEAD"]):
        edited = _output([*git, "status", "--porcelain", "--untracked-files=no"])
        tags |= {"mlflow.source.git.commit": commit, "git.dirty": "true" if edited else "false"}
        tags["mlflow.source.git.branch"] = _output([*git, "rev-parse", "--abbrev-ref", "HEAD"])
    with suppress(KeyError, OSError):  # a container whose user has no name
        tags["mlflow.user"] = getpass.getuser()
    return {key: value for key, value in tags.items() if value}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
