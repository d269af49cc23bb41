"""MERT's experiment platform: pre-train, probe, compare and export models of musical sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mert_core.model.mert import MertModel

__all__ = ["MertModel"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch is imported on first use, so that importing the package costs nothing.
    if name == "MertModel":
        from mert_core.model.mert import MertModel

        return MertModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
