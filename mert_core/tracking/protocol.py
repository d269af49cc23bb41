"""What a stage may say about its run: the one interface that stages see. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """A run that records what was seen.

    Calls are buffered and never raise because a server is away: a stage's outputs do not depend on tracking.

    Attributes:
        run_id: the MLflow run, or None when nothing is recorded there.
        uri: the MLflow tracking URI, or None.
    """

    @property
    def run_id(self) -> str | None:
        """The run's id at the tracking server."""

    @property
    def uri(self) -> str | None:
        """The tracking server's address."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name, at an optimiser step if there is one. Names may hold ``/``."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record what was chosen. Nested mappings become dotted names."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record labels to find the run by."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file, in ``folder`` of the run's artifacts."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep a table of equal-keyed rows as ``<name>.json``."""

    def child(self, name: str, tags: Mapping[str, Any]) -> AbstractContextManager[Tracker]:
        """Open a run below this one, such as one task's below its model's."""


class NullTracker:
    """Records nothing: for tests and for callers that want none."""

    @property
    def run_id(self) -> str | None:
        """No run."""
        return None

    @property
    def uri(self) -> str | None:
        """No server."""
        return None

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Drop the figures."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Drop the parameters."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Drop the tags."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Drop the file."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Drop the table."""

    def child(self, name: str, tags: Mapping[str, Any]) -> AbstractContextManager[NullTracker]:
        """Record nothing there either."""
        return nullcontext(self)
