"""Targets: the teacher's codes for a whole corpus, and the gate they must pass. `TargetStore` reads them."""

from mert_core.targets.store import TargetStore

__all__ = ["TargetStore"]
