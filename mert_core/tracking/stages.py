"""What a stage's run is labelled with: its parameters, the records it reads and the folder it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.records import read_record

if TYPE_CHECKING:
    from mert_core.config import Config

SECTIONS: dict[str, tuple[str, ...]] = {
    "corpus": ("corpus", "pieces"),
    "probe-set": ("probe_set", "pieces"),
    "teachers": ("teachers",),
    "targets": ("targets",),
    "probe": ("probe",),
    "report": ("report",),
    "sweep": ("sweep",),
}


@dataclass(frozen=True)
class StageFacts:
    """Parameters by dotted name, input folders by role, and the folder the stage writes (None: none of ours)."""

    params: dict[str, Any]
    inputs: dict[str, Path]
    output: Path | None


def stage_facts(config: Config, layout: Layout, stage: str, run: str | None) -> StageFacts:
    """Return what a stage's run is labelled with. An unknown stage has no more than seed and threads."""
    stage = stage.replace("_", "-")
    tree = config.model_dump(mode="json")
    params: dict[str, Any] = {"seed": config.seed, "threads": config.threads}
    params |= {name: tree[name] for name in SECTIONS.get(stage, ())}
    if stage == "pretrain" and run in config.runs:
        params["pretrain"] = config.run(run).model_dump(mode="json")
    return StageFacts(flatten(params), _inputs(config, layout, stage, run), _output(layout, stage, run))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def record_ids(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the record ids of those folders that hold a readable record."""
    found = {}
    for role, folder in folders.items():
        try:
            found[role] = read_record(folder).id
        except MertError:  # the stage itself says what is missing; a label is no reason to stop
            continue
    return found


def _inputs(config: Config, layout: Layout, stage: str, run: str | None) -> dict[str, Path]:
    corpus, teacher, targets = {"corpus": layout.corpus}, {"teacher": layout.teachers}, {"targets": layout.targets}
    if stage == "teachers":
        return corpus
    if stage == "targets":
        return corpus | teacher
    if stage in {"pretrain", "sweep"}:
        return corpus | teacher | targets
    if stage == "probe":
        checkpoint = {"checkpoint": layout.model(run)} if run in config.runs else {}
        return {"probe_set": layout.probe_set} | checkpoint
    if stage == "report":
        return corpus | targets | {f"scores/{name}": layout.scores(name) for name in config.report.runs}
    return {}


def _output(layout: Layout, stage: str, run: str | None) -> Path | None:
    plain = {
        "corpus": layout.corpus, "probe-set": layout.probe_set, "teachers": layout.teachers,
        "targets": layout.targets, "report": layout.report,
    }  # fmt: skip
    if stage in plain:
        return plain[stage]
    of_run = {"pretrain": layout.model, "probe": layout.scores}
    return of_run[stage](run) if run is not None and stage in of_run else None
