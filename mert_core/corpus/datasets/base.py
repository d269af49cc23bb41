"""What every data set's adapter answers.

The adapters read the official layouts themselves. mirdata 1.0.0 does not serve: its package brings no index of any of
these sets, so its loaders work only after a download; and it knows neither GTZAN's fault-filtered division nor the
GiantSteps of the published figures, only revisions of it. For MagnaTagATune and Emomusic it has no loader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from mert_core.corpus.datasets.clips import ClipSet

State = Literal["missing", "incomplete", "complete"]


@dataclass(frozen=True)
class Survey:
    """What of a data set lies in its folder.

    Attributes:
        state: ``missing``: the folder, or a file without which nothing can be read, is not there.
        found: counts by what is counted, such as ``clips``; and how many there should be.
        notes: what is missing or damaged and what to do, one sentence each.
        damaged: number of files that are there, but not as they were published.
    """

    state: State
    found: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    damaged: int = 0


class Dataset(Protocol):
    """A labelled data set in its official layout.

    Attributes:
        name: in the registry, and of its folder by default.
        title: as its authors call it.
        licence: what may be done with it.
        source: where to ask for it, and the paper.
        questions: what can be asked of it.
    """

    name: str
    title: str
    licence: str
    source: str
    questions: tuple[str, ...]

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Look at what is there.

        Args:
            folder: where the set lies.
            quick: count files only; otherwise published checksums are compared, too.
        """

    def read(self, folder: Path, question: str) -> ClipSet:
        """Return the clips of one question in their official splits. Sound is not decoded here.

        Raises:
            MertError: the set is missing, or a file that says labels or splits is missing or not as expected.
        """
