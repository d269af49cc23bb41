"""The stage ``teachers``: fit one teacher and keep it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from mert_core.config import Config
from mert_core.data.corpus import Corpus
from mert_core.data.record import Record, read_record, write_record
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_json
from mert_core.paths import Layout
from mert_core.teachers.base import Sources, Teacher
from mert_core.teachers.registry import configured_teacher, load_teacher, save_teacher, teacher_class


class Metrics(Protocol):
    """The part of a tracker that this stage uses."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name."""


def run(config: Config, layout: Layout, tracker: Metrics, name: str) -> Record:
    """Fit a teacher; one that was fitted on a corpus from which the present one has grown stays as it is.

    So new music does not make all targets anew. An interrupted fit goes on from its last state when the same settings
    and music come again.

    Raises:
        MertError: no such teacher, or what it needs is missing.
    """
    torch.set_num_threads(config.threads)
    teacher = configured_teacher(config, name)
    inputs = _inputs(layout, teacher)
    params: dict[str, Any] = {"settings": teacher.kept_settings()}
    if inputs:
        params |= {"seed": config.seed, "threads": config.threads}
    if staying := _staying(layout, name, inputs, params):
        print(
            f"teachers: {name} was fitted before music was added, and stays: targets of the other music hold. "
            f"To fit it on all, remove {layout.teacher(name)} and run again.",
            file=sys.stderr,
        )
        return staying
    states = layout.resume / f"teacher-{name}-{sha256_json({'params': params, 'inputs': inputs})[:16]}"
    music = Corpus.open(layout.corpus) if "corpus" in inputs else None
    facts = teacher.fit(Sources(music, layout.root, states, config.seed, tracker.metrics))
    teacher.freeze()
    with atomic_folder(layout.teacher(name)) as folder:
        save_teacher(folder, teacher)
        record = write_record(
            folder,
            stage="teachers",
            kind="teacher",
            run=name,
            inputs=inputs,
            params=params,
            facts={"name": name, "kind": str(teacher.kind), **facts},
        )
    shutil.rmtree(states, ignore_errors=True)
    return record


def _staying(layout: Layout, name: str, inputs: dict[str, str], params: dict[str, Any]) -> Record | None:
    """Return the record of the teacher that lies there, if all that has changed is that the corpus grew."""
    if "corpus" not in inputs or not layout.teacher(name).exists():
        return None
    try:
        record = read_record(layout.teacher(name))
        load_teacher(layout.teacher(name))
    except MertError:  # damaged: fitted anew
        return None
    grown = record.inputs.get("corpus") in read_record(layout.corpus).facts.get("grown_from", [])
    before, now = (
        [{**each, "corpus": ""}, chosen] for each, chosen in ((record.inputs, record.params), (inputs, params))
    )
    return record if grown and sha256_json(before) == sha256_json(now) else None


def _inputs(layout: Layout, teacher: Teacher) -> dict[str, str]:
    inputs = {}
    if teacher.needs in {"music", "student"}:
        inputs["corpus"] = read_record(layout.corpus).id
    if teacher.needs == "student":
        inputs["checkpoint"] = read_record(teacher.student_folder(layout)).id
    return inputs


def open_teacher(config: Config, layout: Layout, name: str) -> tuple[Teacher, str]:
    """Return a teacher that is ready for use, and its id.

    One that needs no fitting is made from its settings, unless it lies there.

    Raises:
        MertError: it must be fitted first.
    """
    folder = layout.teacher(name)
    if folder.exists():
        return load_teacher(folder), read_record(folder).id
    if teacher_class(config.teacher(name).kind).needs != "nothing":
        raise MertError(
            f"the teacher {name} has not been fitted here ({folder} is missing); run `mert teachers fit {name}`"
        )
    teacher = configured_teacher(config, name).freeze()
    return teacher, sha256_json({"name": name, "settings": teacher.kept_settings()})
