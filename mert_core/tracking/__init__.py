"""The MLflow facade: what was seen, one run per stage, model and probe. Importing it imports no MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mert_core.tracking.protocol import NullTracker, Tracker

if TYPE_CHECKING:
    from mert_core.tracking.facade import attach_run, open_run

__all__ = ["NullTracker", "Tracker", "attach_run", "open_run"]


def __getattr__(name: str) -> Any:
    if name in {"attach_run", "open_run"}:
        from mert_core.tracking import facade

        return getattr(facade, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
