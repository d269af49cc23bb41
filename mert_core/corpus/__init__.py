"""Where music comes from: a folder of files or performed scores, into PCM shards and a checked manifest.

`Corpus` reads what `mert_core.corpus.stage` wrote.
"""

from mert_core.corpus.store import Corpus

__all__ = ["Corpus"]
