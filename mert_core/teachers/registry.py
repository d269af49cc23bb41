"""All teachers by name, and their settings in ``params.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mert_core.config import Config, explain
from mert_core.errors import MertError
from mert_core.teachers.base import Teacher
from mert_core.teachers.beat_chroma import BeatChromaTeacher
from mert_core.teachers.encodec_published import EncodecTeacher
from mert_core.teachers.kmeans import ChromaKMeansTeacher, LogMelKMeansTeacher, MfccKMeansTeacher
from mert_core.teachers.mel_rvq import MelRvqTeacher
from mert_core.teachers.random_projection import RandomProjectionTeacher
from mert_core.teachers.rvqvae_trained import RvqVaeTeacher
from mert_core.teachers.spectra import ChromaTeacher, ConstantQTeacher, LogMelTeacher
from mert_core.teachers.student_kmeans import StudentKMeansTeacher

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
