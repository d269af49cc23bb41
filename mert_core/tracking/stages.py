"""What a stage's run is labelled with: its parameters, the records it reads and the folder it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config

SECTIONS: dict[str, tuple[str, ...]] = {
    "corpus": ("corpus", "pieces"),
    "probe-set": ("probe_set", "pieces"),
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
    if stage == "teachers" and run is not None:
        params["teachers"] = {run: tree["teachers"].get(run) or {}}
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
    corpus = {"corpus": layout.corpus}
    if stage == "teachers":
        return corpus
    if stage == "targets" and run is not None:
        return corpus | {"teacher": layout.teacher(run)}
    if stage in {"pretrain", "sweep"}:
        name = config.sweep.run if stage == "sweep" else run
        return corpus | (_of_lessons(config, layout, name) if name in config.runs else {})
    if stage == "probe":
        checkpoint = {"checkpoint": layout.model(run)} if run in config.runs else {}
        return {"probe_set": layout.probe_set} | checkpoint
    if stage == "report":
        targets = {f"targets/{name}": layout.targets(name) for name in config.report.teachers}
        return corpus | targets | {f"scores/{name}": layout.scores(name) for name in config.report.runs}
    return {}


def _of_lessons(config: Config, layout: Layout, run: str) -> dict[str, Path]:
    terms = [term for term in config.run(run).teachers if term.weight]
    stored = {f"targets/{term.teacher}": layout.targets(term.teacher) for term in terms if term.targets == "stored"}
    return stored | {f"teacher/{term.teacher}": layout.teacher(term.teacher) for term in terms}


def _output(layout: Layout, stage: str, run: str | None) -> Path | None:
    plain = {"corpus": layout.corpus, "probe-set": layout.probe_set, "report": layout.report}
    if stage in plain:
        return plain[stage]
    of_run = {"teachers": layout.teacher, "targets": layout.targets, "pretrain": layout.model, "probe": layout.scores}
    return of_run[stage](run) if run is not None and stage in of_run else None
