"""Teachers: what the student learns to predict, behind one interface. `registry` lists their classes."""

from mert_core.data.target_kinds import Codes, Spectrum
from mert_core.features.cqt import ConstantQ
from mert_core.teachers.base import Teacher

__all__ = ["Codes", "ConstantQ", "Spectrum", "Teacher"]
