"""Teachers: what the student learns to predict, behind one interface. `registry.TEACHERS` lists their classes."""

from mert_core.data.target_kinds import Codes, Spectrum
from mert_core.features.cqt import ConstantQ
from mert_core.teachers.base import Teacher
from mert_core.teachers.registry import TEACHERS, load_teacher

__all__ = ["TEACHERS", "Codes", "ConstantQ", "Spectrum", "Teacher", "load_teacher"]
