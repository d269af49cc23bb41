"""The rendered ``dvc.yaml`` from outside: what its stages are called, and whether it is as old as ``params.yaml``."""

from __future__ import annotations

import re

from mert_core.config import Config
from mert_core.config.config import read_params
from mert_core.files import sha256_json
from mert_core.paths import PARAMS_NAME, Layout

PIPELINE_NAME = "dvc.yaml"
HEAVY_NAME = "heavy/dvc.yaml"
STAMP = "# source: "


def stage_name(command: str, name: str | None = None) -> str:
    """Return what DVC calls a stage: that of ``mert pretrain --run tiny`` is ``pretrain-tiny``."""
    prefix = {"teachers": "teacher", "probe-set": "probe_set"}.get(command, command)
    return prefix if name is None else f"{prefix}-{name}"


def command_of(stage: str) -> tuple[str, str | None]:
    """Return the command and the name that a DVC stage is of: ``pretrain-tiny`` is ``("pretrain", "tiny")``."""
    prefix, _, name = stage.rpartition(":")[2].partition("-")
    return {"teacher": "teachers", "probe_set": "probe-set"}.get(prefix, prefix), name or None


def outdated(config: Config, layout: Layout) -> str | None:
    """Return one line if ``dvc.yaml`` was rendered from other runs, teachers or lists than ``params.yaml`` has now.

    A change of the code's imports shows only in ``mert plan --check``, which renders anew and compares.
    """
    rendered = layout.root / PIPELINE_NAME
    if not rendered.exists():
        return None
    match = re.search(rf"^{STAMP}(\S+)$", rendered.read_text(encoding="utf-8"), re.M)
    return None if match and match[1] == source_hash(config, layout) else OUTDATED


OUTDATED = f"{PIPELINE_NAME} is older than {PARAMS_NAME} or the code; run `mert plan`"


def source_hash(config: Config, layout: Layout) -> str:
    """Return a hash of what the parameters say of the DAG: which stages there are, and what each reads."""
    file = read_params(layout.params)
    runs = {
        name: [config.bases(name), [(t.teacher, t.targets, bool(t.weight)) for t in config.run(name).teachers]]
        for name in config.runs
    }
    teachers = {name: [config.teacher(name).kind, config.teacher(name).settings.get("run")] for name in config.teachers}
    return sha256_json(
        {
            "runs": runs,
            "teachers": teachers,
            "heavy": config.heavy,
            "shown": config.shown_runs,
            "report": config.report.teachers,
            "baseline": config.probe.baseline_run,
            "keys": {key: sorted(value) if isinstance(value, dict) else None for key, value in file.items()},
        }
    )[:16]
