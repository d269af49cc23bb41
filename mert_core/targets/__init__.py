"""Targets: what a teacher says of a whole corpus, and the gate that it must pass. `TargetStore` reads them."""

from mert_core.targets.store import TargetStore

__all__ = ["TargetStore"]
