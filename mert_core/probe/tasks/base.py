"""The declaration of a task: which question, in what pieces, by which metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Pooling = Literal["mean", "frames"]


class Kind(StrEnum):
    """What the answer to a task's question is; see `mert_core.corpus.datasets.clips.Label`."""

    SINGLE = "single"
    MULTI = "multi"
    REGRESSION = "regression"
    BEATS = "beats"
    STEMS = "stems"


@dataclass(frozen=True)
class Chunking:
    """How a clip is cut before it is embedded: windows side by side, without overlap.

    A last window shorter than half of ``seconds`` is left out, unless it is the only one. Nothing is padded.

    Attributes:
        seconds: length of a window; None: the whole clip.
        limit_seconds: what follows is left out; None: all is used.
    """

    seconds: float | None = None
    limit_seconds: float | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as tables and files call it; a stand-in's begins with ``demo/``.
        title: for people.
        dataset: name in `mert_core.corpus.datasets.registry`.
        question: one of the data set's.
        kind: of the answer.
        metrics: names in the tables. The first selects on validation; ``r2`` and ``sdr`` stand for one figure per
            class of the clip set (``r2_valence``) and select by their mean.
        chunking: how clips are cut.
        pooling: ``mean``: one vector per window and hidden state; ``frames``: time is kept.
        max_epochs: published limit.
    """

    name: str
    title: str
    dataset: str
    question: str
    kind: Kind
    metrics: tuple[str, ...]
    chunking: Chunking = Chunking()
    pooling: Pooling = "mean"
    max_epochs: int = 100

    @property
    def is_demo(self) -> bool:
        """Whether this is a stand-in from performed scores, never to stand beside published figures."""
        return self.name.startswith("demo/")
