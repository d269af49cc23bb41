"""What a corpus is made from: a folder of audio files, or scores that are performed.

The stage asks a source for tracks and writes them; which source it is decides the parameters in the record, the splits
and the data card. Only a folder knows the corpus that was made from it before, and hands unchanged tracks on.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mert_core.config import Config
from mert_core.corpus.folder import list_folder, read_folder
from mert_core.corpus.incremental import PreviousCorpus, reuse_tracks, unchanged_tracks
from mert_core.corpus.writer import CorpusWriter
from mert_core.data.hashes import FileHashes
from mert_core.data.statistics import folder_card
from mert_core.data.tables import read_table
from mert_core.data.track import Rejected, SourceTrack
from mert_core.errors import MertError
from mert_core.paths import Layout

CorpusKind = Literal["corpus", "probe_set"]


class Source(ABC):
    """Where tracks come from, and what the record says of them.

    Attributes:
        total: number of tracks and rejected files together, for the progress bar.
        description: the source's name in error messages.
        params: all that the result depends on, without paths.
        facts: figures that the manifest does not hold.
    """

    total: int
    description: str
    params: dict[str, Any]
    facts: dict[str, Any]

    def reuse(self, writer: CorpusWriter) -> int:
        """Begin the new corpus with the unchanged tracks of the one at the target; return their number."""
        return 0

    @abstractmethod
    def tracks(self) -> Iterable[SourceTrack | Rejected]:
        """Yield the remaining tracks in a stable order, and the files that could not become one."""

    @abstractmethod
    def splits(self, rows: Path) -> tuple[pa.ChunkedArray | None, dict[str, Any]]:
        """Return the split of every manifest row (None: as written) and facts about the splits."""

    def lineage(self, writer: CorpusWriter) -> dict[str, Any]:
        """Return facts about the corpora that the finished one continues; empty if there are none."""
        return {}

    @abstractmethod
    def card(self, facts: dict[str, Any]) -> str:
        """Return the data card."""


class FolderSource(Source):
    """A tree of audio files. Tracks whose file has not changed since the last run are not decoded again."""

    def __init__(self, config: Config, layout: Layout) -> None:
        assert config.corpus.folder is not None  # checked by the config
        self._config, self._layout = config, layout
        self._listing = list_folder(layout.root / Path(config.corpus.folder).expanduser())
        self._files: list[str] = self._listing.files  # those to read
        self._previous: PreviousCorpus | None = None
        self.total = len(self._listing.files) + len(self._listing.rejected)
        self.description = f"the folder {self._listing.root}"
        self.params = {"seed": config.seed, **config.corpus.model_dump(mode="json", exclude={"folder", "scores"})}
        self.facts = {"ignored_files": dict(sorted(self._listing.ignored.items()))}

    def reuse(self, writer: CorpusWriter) -> int:
        """Begin the new corpus with the tracks whose files are what they were; return their number."""
        self._previous = PreviousCorpus.find(self._layout.corpus, self.params)
        if self._previous is None:
            return 0
        with closing(self._hashes()) as hashes:
            unchanged, self._files = unchanged_tracks(self._listing, self._previous, hashes, self._config.threads)
        if unchanged.any():
            reuse_tracks(self._previous, unchanged, writer)
        return int(unchanged.sum())

    def tracks(self) -> Iterator[SourceTrack | Rejected]:
        """Yield the files that are new or changed, decoded, and what cannot be used."""
        with closing(self._hashes()) as hashes:
            yield from read_folder(self._listing, self._files, hashes, self._config)

    def splits(self, rows: Path) -> tuple[pa.ChunkedArray, dict[str, Any]]:
        """Return a split by artist, or by piece if there is a single artist."""
        assigned, split_by = assign_splits(rows, self._config.seed, self._config.corpus.valid_fraction)
        return assigned, {"split_by": split_by}

    def lineage(self, writer: CorpusWriter) -> dict[str, Any]:
        """Return the ids of the corpora that this one has grown from, oldest first."""
        ids = self._previous.lineage(writer.tracks, len(writer.reused_files)) if self._previous else []
        return {"grown_from": ids} if ids else {}

    def card(self, facts: dict[str, Any]) -> str:
        """Return the data card."""
        return folder_card(facts)

    def _hashes(self) -> FileHashes:
        return FileHashes(self._layout.caches, self._listing.root)


class ScoreSource(Source):
    """Scores performed by `mert_core.synth`: the demo corpus, or the labelled probe set. Always made as a whole."""

    def __init__(self, config: Config, layout: Layout, kind: CorpusKind) -> None:
        from mert_core import synth  # brings music21 and the SoundFont, which a folder does not need

        self._config, self._layout, self._kind, self._synth = config, layout, kind, synth
        own = {"scores": config.corpus.scores} if kind == "corpus" else {"probe_set": config.probe_set}
        sections = {name: section.model_dump(mode="json") for name, section in {**own, "pieces": config.pieces}.items()}
        self.total = synth.count_corpus(config) if kind == "corpus" else synth.count_probe_set(config)
        self.description = "the score library"
        self.params = {
            "seed": config.seed,
            "shard_megabytes": config.corpus.shard_megabytes,
            "source": "scores",
            **sections,
        }
        self.facts: dict[str, Any] = {}

    def tracks(self) -> Iterable[SourceTrack]:
        """Yield the performances."""
        perform = self._synth.perform_corpus if self._kind == "corpus" else self._synth.perform_probe_set
        return perform(self._config, self._layout.caches)

    def splits(self, rows: Path) -> tuple[None, dict[str, Any]]:
        """Return no splits: every performance has its piece's."""
        return None, {"split_by": "piece"}

    def card(self, facts: dict[str, Any]) -> str:
        """Return the data card."""
        return self._synth.data_card(self._config, self._kind, facts)


def assign_splits(rows: Path, seed: int, valid_fraction: float) -> tuple[pa.ChunkedArray, str]:
    """Divide a manifest's tracks into train and valid.

    Whole artists go to one side; only if there is a single artist, whole pieces do. They are walked in the order of
    a hash of (seed, name), and those that still fit into ``valid_fraction`` of the music are held out; if none
    fits, the shortest is. So the seed decides, a new artist moves few of the old, and one huge artist never
    becomes the validation split.

    Args:
        rows: file of the manifest's rows; memory is that of its artists, not of its tracks.
        seed: decides who is held out.
        valid_fraction: share of the samples to hold out.

    Returns:
        The split of every row, and the column that it goes by (``artist`` or ``piece``).

    Raises:
        MertError: there is only one piece, so nothing can be held out.
    """
    for column in ("artist", "piece"):
        table = read_table(rows, column, "samples")
        grouped = table.group_by(column).aggregate([("samples", "sum")])
        if len(grouped) > 1:
            break
    else:
        raise MertError(
            f"the only usable piece is {read_table(rows, 'source')['source'][0].as_py()!r}; at least two are needed, "
            "because one is held out for validation. Add a file, or cut this one in two."
        )
    # names in the order of their hashes, until the share is full
    names, samples = grouped[column], grouped["samples_sum"].to_numpy()
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names.to_pylist()]
    order = np.argsort(np.frombuffer(b"".join(digests), dtype="S32"))
    room, held_out = valid_fraction * int(samples.sum()), []
    for number in order.tolist():
        if samples[number] <= room:
            held_out.append(number)
            room -= int(samples[number])
    if not held_out or len(held_out) == len(samples):
        held_out = [int(order[samples[order].argmin()])]
    is_valid = pc.is_in(table[column], value_set=names.combine_chunks().take(pa.array(held_out)))
    return pc.if_else(is_valid, "valid", "train"), column
