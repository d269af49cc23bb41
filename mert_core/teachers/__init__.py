"""Teachers: what the student learns to predict, behind one interface. `registry.TEACHERS` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mert_core.data.target_kinds import Codes, Spectrum
from mert_core.features.cqt import ConstantQ
from mert_core.teachers.base import Teacher

if TYPE_CHECKING:
    from mert_core.teachers.registry import TEACHERS, load_teacher

__all__ = ["TEACHERS", "Codes", "ConstantQ", "Spectrum", "Teacher", "load_teacher"]


def __getattr__(name: str) -> Any:
    # The registry brings every teacher's libraries; a bare machine has none of them.
    if name == "TEACHERS":
        from mert_core.teachers.registry import TEACHERS

        return TEACHERS
    if name == "load_teacher":
        from mert_core.teachers.registry import load_teacher

        return load_teacher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
