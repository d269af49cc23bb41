"""Where music comes from: a folder of files or performed scores, into PCM shards and a checked manifest.

`Corpus` reads what `mert_core.corpus.stage` wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mert_core.corpus.store import Corpus

__all__ = ["Corpus"]


def __getattr__(name: str) -> Any:
    if name == "Corpus":  # brings Arrow with it, which whoever asks for a list of keys need not have
        from mert_core.corpus.store import Corpus

        return Corpus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
