"""Probing: what a frozen encoder knows, by MARBLE's fourteen tasks and their stand-ins, beside two floors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mert_core.probing.tasks import FLOORS, TASKS

if TYPE_CHECKING:
    from mert_core.probing.validation_score import quick_score

__all__ = ["FLOORS", "TASKS", "quick_score"]


def __getattr__(name: str) -> Any:
    if name == "quick_score":  # brings torch with it, which whoever asks for the names of the floors need not wait for
        from mert_core.probing.validation_score import quick_score

        return quick_score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
