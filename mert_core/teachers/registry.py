"""All classes of teachers by name, the instances of ``params.yaml``, and fitted teachers on disk."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mert_core.audio.grid import FRAME_RATE
from mert_core.config import explain
from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.base import Teacher

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

TEACHERS = {
    "encodec": "codec.encodec:EncodecTeacher",
    "rvqvae": "codec.train:RvqVaeTeacher",
    "logmel-kmeans": "kmeans:LogMelKMeansTeacher",
    "chroma-kmeans": "kmeans:ChromaKMeansTeacher",
    "mfcc-kmeans": "kmeans:MfccKMeansTeacher",
    "student-kmeans": "student_kmeans:StudentKMeansTeacher",
    "best-rq": "random_projection:RandomProjectionTeacher",
    "mel-rvq": "mel_rvq:MelRvqTeacher",
    "cqt": "spectra:ConstantQTeacher",
    "logmel": "spectra:LogMelTeacher",
    "chroma": "spectra:ChromaTeacher",
    "beat-chroma": "spectra:BeatChromaTeacher",
}
"""Module and class of every kind of teacher, by name. A class is imported when it is asked for: each brings libraries
that the others do not need."""


def teacher_class(kind: str) -> type[Teacher]:
    """Return a class of teachers by its name.

    Raises:
        MertError: there is none of that name.
    """
    if kind not in TEACHERS:
        raise MertError(
            f"no class of teachers is named {kind!r}; there are {', '.join(TEACHERS)} (`mert teachers list`). "
            "A teacher of another name needs `class` in its section of `teachers`"
        )
    made: type[Teacher] = pkgutil.resolve_name(f"mert_core.teachers.{TEACHERS[kind]}")
    return made


def new_teacher(kind: str, settings: Mapping[str, Any] | None, instance: str | None = None) -> Teacher:
    """Return a teacher with the given settings, not yet fitted.

    Args:
        kind: name of its class.
        settings: what differs from the class's defaults.
        instance: its own name in ``params.yaml``; None: that of the class.

    Raises:
        MertError: no such class, an unknown key or an impossible value.
    """
    made = teacher_class(kind)
    instance = instance or kind
    if made.Settings is None:
        if settings:
            raise MertError(
                f"teachers.{instance}: {kind} has no settings, but {', '.join(settings)} is given; remove it"
            )
        teacher = made()
    else:
        try:
            teacher = made(made.Settings.model_validate(settings or {}))
        except ValidationError as error:
            raise MertError(explain(error, f"teachers.{instance}")) from error
    teacher.instance = instance
    return teacher


def configured_teacher(config: Config, name: str) -> Teacher:
    """Return an instance of ``teachers`` with its settings, not yet fitted.

    Raises:
        MertError: as `new_teacher`, or it is fitted on a run that there is not.
    """
    chosen = config.teacher(name)
    teacher = new_teacher(chosen.kind, chosen.settings, name)
    if teacher.run is not None and teacher.run not in config.runs:
        raise MertError(f"teachers.{name}.run is {teacher.run!r}; runs has {', '.join(sorted(config.runs))}")
    return teacher


def check_teachers(config: Config) -> None:
    """Check the section ``teachers`` and what each run is to predict.

    Raises:
        MertError: an unknown teacher, key or value, named.
    """
    names = [*config.teachers, *(term.teacher for run in config.runs for term in config.run(run).teachers)]
    for name in dict.fromkeys(names):
        configured_teacher(config, name)


def shown_teachers(config: Config) -> list[str]:
    """Return the teachers whose targets the report shows; published weights are shown only where a run uses them."""
    if config.report.teachers is not None:
        return list(config.report.teachers)
    used = {term.teacher for run in config.pipeline_runs for term in config.run(run).teachers if term.weight}
    names = dict.fromkeys((*config.teachers, *TEACHERS))
    needs = {name: teacher_class(config.teacher(name).kind).needs for name in names}
    return [
        name
        for name in names
        if name in used or needs[name] == "nothing" or (name in config.teachers and needs[name] != "weights")
    ]


_COLUMNS = ("teacher", "targets", "fitted on", "hears", "fitted here", "targets here", "what it is")
_NEEDS = {"nothing": "–", "music": "corpus", "weights": "weights file", "student": "a student"}


def listing(config: Config, layout: Layout) -> str:
    """Return a table of all classes and instances with the settings of ``params.yaml``.

    Raises:
        MertError: the section ``teachers`` is wrong.
    """
    check_teachers(config)
    rows = [_COLUMNS]
    for name in dict.fromkeys((*TEACHERS, *config.teachers)):
        teacher = configured_teacher(config, name)
        fitted = "–" if teacher.needs == "nothing" else _state(layout.teacher(name))
        stored = _state(layout.targets(name))
        title = teacher.title if name == teacher.name else f"{teacher.name}: {teacher.title}"
        rows.append((name, str(teacher.kind), _NEEDS[teacher.needs], _hears(teacher), fitted, stored, title))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = (
        f"All at {FRAME_RATE} frames per second. Fit one with `mert teachers fit NAME`, label the corpus with\n"
        "`mert targets NAME`, and name it under pretrain.teachers, or a run's teachers, in params.yaml."
    )
    return "\n".join([*lines, "", more])


def _hears(teacher: Teacher) -> str:
    if teacher.context_frames is not None:
        return f"± {teacher.context_frames / FRAME_RATE:.2f} s"
    first, track = 50_000, 100_000
    begin, end = teacher.context_span(first, 1, track)
    if begin > 0:
        return f"blocks of {(end - begin) / FRAME_RATE:.0f} s"
    return "the whole track" if end == track else "the track so far"


def _state(folder: Path) -> str:
    if not folder.exists():
        return "no"
    try:
        return read_record(folder).id[:8]
    except MertError:
        return "damaged"


CARD_NAME = "teacher.json"
WEIGHTS_NAME = "teacher.safetensors"


def save_teacher(folder: Path, teacher: Teacher) -> None:
    """Write ``teacher.json`` and ``teacher.safetensors``, byte-stable."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in teacher.state_dict().items()}
    with atomic_path(folder / WEIGHTS_NAME) as path:
        save_file(state, path)
    write_json(folder / CARD_NAME, {"name": teacher.name, "settings": teacher.kept_settings()})


def load_teacher(folder: Path) -> Teacher:
    """Load what `save_teacher` wrote, frozen.

    Raises:
        MertError: a file is missing, or weights and settings do not fit together.
    """
    again = f"mert teachers fit {folder.name}"
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        teacher = new_teacher(card["name"], card["settings"])
        teacher.load_state_dict(load_file(folder / WEIGHTS_NAME))
        return teacher.freeze()
    except FileNotFoundError as error:
        raise MertError(f"{error.filename or folder} is missing: there is no teacher here. Run `{again}`.") from error
    except (KeyError, TypeError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise MertError(f"{folder} does not hold a teacher ({error}). Remove it and run `{again}`.") from error
