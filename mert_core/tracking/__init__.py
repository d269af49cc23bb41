"""The MLflow facade: what was seen, one run per stage, model and probe. Importing it imports no MLflow."""

from __future__ import annotations

from mert_core.tracking.run import NullTracker, RunTracker, Tracker, open_run

__all__ = ["NullTracker", "RunTracker", "Tracker", "open_run"]
