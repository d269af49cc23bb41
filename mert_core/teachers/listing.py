"""``mert teachers list``: every teacher, what it gives, what it needs, and whether it is here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.audio.frames import FRAME_RATE
from mert_core.errors import MertError
from mert_core.records import read_record
from mert_core.teachers.base import Teacher
from mert_core.teachers.registry import TEACHERS, check_teachers, new_teacher

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

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
    begin, end = teacher.hears(first, 1, track)
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
