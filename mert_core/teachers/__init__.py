"""Teachers: what the student learns to predict. Acoustic: codes of an RVQ-VAE. Musical: the constant-Q transform."""

from mert_core.audio.cqt import ConstantQ
from mert_core.teachers.acoustic import AcousticTeacher, load_acoustic

__all__ = ["AcousticTeacher", "ConstantQ", "load_acoustic"]
