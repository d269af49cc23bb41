"""All teachers by name, and their settings in ``params.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mert_core.audio.grid import FRAME_RATE
from mert_core.config import Config, explain
from mert_core.data.record import read_record
from mert_core.errors import MertError
from mert_core.files import atomic_path, write_json
from mert_core.teachers.base import Teacher
from mert_core.teachers.codec.encodec import EncodecTeacher
from mert_core.teachers.codec.train import RvqVaeTeacher
from mert_core.teachers.kmeans import ChromaKMeansTeacher, LogMelKMeansTeacher, MfccKMeansTeacher
from mert_core.teachers.mel_rvq import MelRvqTeacher
from mert_core.teachers.random_projection import RandomProjectionTeacher
from mert_core.teachers.spectra import BeatChromaTeacher, ChromaTeacher, ConstantQTeacher, LogMelTeacher
from mert_core.teachers.student_kmeans import StudentKMeansTeacher

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout


TEACHERS: dict[str, type[Teacher]] = {
    "encodec": EncodecTeacher,
    "rvqvae": RvqVaeTeacher,
    "logmel-kmeans": LogMelKMeansTeacher,
    "chroma-kmeans": ChromaKMeansTeacher,
    "mfcc-kmeans": MfccKMeansTeacher,
    "student-kmeans": StudentKMeansTeacher,
    "best-rq": RandomProjectionTeacher,
    "mel-rvq": MelRvqTeacher,
    "cqt": ConstantQTeacher,
    "logmel": LogMelTeacher,
    "chroma": ChromaTeacher,
    "beat-chroma": BeatChromaTeacher,
}


def teacher_class(name: str) -> type[Teacher]:
    """Return a teacher's class.

    Raises:
        MertError: there is none of that name; the message lists those there are.
    """
    if name not in TEACHERS:
        raise MertError(f"no teacher is named {name!r}; there are {', '.join(TEACHERS)} (`mert teachers list`)")
    return TEACHERS[name]


def new_teacher(name: str, settings: Mapping[str, Any] | None) -> Teacher:
    """Return a teacher with the given settings, not yet fitted.

    Raises:
        MertError: no such teacher, an unknown key or an impossible value.
    """
    kind = teacher_class(name)
    if kind.Settings is None:
        if settings:
            raise MertError(f"teachers.{name} has no settings, but {', '.join(settings)} is given; remove it")
        return kind()
    try:
        return kind(kind.Settings.model_validate(settings or {}))
    except ValidationError as error:
        raise MertError(explain(error, f"teachers.{name}")) from error


def check_teachers(config: Config) -> None:
    """Check the section ``teachers`` and what each run is to predict.

    Raises:
        MertError: an unknown teacher, key or value, named.
    """
    for name, settings in config.teachers.items():
        kind = teacher_class(name)
        if kind.Settings is not None:
            try:
                kind.Settings.model_validate(settings or {})
            except ValidationError as error:
                raise MertError(explain(error, f"teachers.{name}")) from error
        elif settings:
            raise MertError(f"teachers.{name} has no settings, but {', '.join(settings)} is given; remove it")
    for run in config.runs:
        for term in config.run(run).teachers:
            teacher_class(term.teacher)


_COLUMNS = ("teacher", "targets", "fitted on", "hears", "fitted here", "targets here", "what it is")
_NEEDS = {"nothing": "–", "music": "corpus", "weights": "weights file", "student": "a student"}


def listing(config: Config, layout: Layout) -> str:
    """Return a table of all teachers with the settings of ``params.yaml``.

    Raises:
        MertError: the section ``teachers`` is wrong.
    """
    check_teachers(config)
    rows = [_COLUMNS]
    for name, kind in TEACHERS.items():
        teacher = new_teacher(name, config.teachers.get(name))
        fitted = "–" if kind.needs == "nothing" else _state(layout.teacher(name))
        stored = _state(layout.targets(name))
        rows.append((name, str(teacher.kind), _NEEDS[kind.needs], _hears(teacher), fitted, stored, kind.title))
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
