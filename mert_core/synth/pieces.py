"""A piece as compact notes: what parsing leaves of a score, and what performing needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mert_core.config import Split


@dataclass(frozen=True)
class Candidate:
    """A score that may become a piece.

    Attributes:
        score: stable id: the path inside music21's corpus, with ``#number`` for one song of a collection.
        composer: composer or tradition.
        group: the work it belongs to, as far as path and header tell.
        suffix: file kind.
        number: of the song, 0 for a file with one score.
        path: absolute path, never written into any result.
    """

    score: str
    composer: str
    group: str
    suffix: str
    number: int
    path: str


@dataclass(frozen=True)
class Part:
    """Notes of one part; onsets and durations in quarter notes, pitches as MIDI keys, ties merged."""

    onsets: tuple[float, ...]
    durations: tuple[float, ...]
    pitches: tuple[int, ...]


@dataclass(frozen=True)
class Bar:
    """A measure in quarter notes: where it starts, how long it is, its beats, and whether the first is a downbeat."""

    onset: float
    length: float
    beats: tuple[float, ...]
    downbeat: bool


@dataclass(frozen=True)
class KeySignature:
    """A key signature from an onset on; ``sharps`` is None where the parts disagree, ``mode`` where none is written."""

    onset: float
    sharps: int | None
    mode: str | None


@dataclass(frozen=True)
class Piece:
    """A parsed score; composer, group and split come from the library, not from the notes."""

    parts: tuple[Part, ...]
    bars: tuple[Bar, ...]
    keys: tuple[KeySignature, ...]
    quarters_per_minute: float | None
    score: str = ""
    composer: str = ""
    group: str = ""
    split: Split = "train"

    @property
    def length(self) -> float:
        """Length in quarter notes."""
        return self.bars[-1].onset + self.bars[-1].length

    def placed(self, candidate: Candidate) -> Piece:
        """Return the piece under its name in the library."""
        return replace(self, score=candidate.score, composer=candidate.composer, group=candidate.group)


def piece_to_json(piece: Piece) -> dict[str, Any]:
    """Return the notes of a piece, without its place in the library, as JSON."""
    tree = asdict(piece)
    return {name: tree[name] for name in ("parts", "bars", "keys", "quarters_per_minute")}


def piece_from_json(tree: dict[str, Any]) -> Piece:
    """Return the piece that `piece_to_json` wrote.

    Raises:
        KeyError, TypeError: the tree is something else.
    """
    return Piece(
        parts=tuple(
            Part(tuple(part["onsets"]), tuple(part["durations"]), tuple(part["pitches"])) for part in tree["parts"]
        ),
        bars=tuple(Bar(bar["onset"], bar["length"], tuple(bar["beats"]), bar["downbeat"]) for bar in tree["bars"]),
        keys=tuple(KeySignature(**key) for key in tree["keys"]),
        quarters_per_minute=tree["quarters_per_minute"],
    )
