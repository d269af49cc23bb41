"""A piece as compact notes, and how a score file becomes one: through music21, with a cache keyed by content."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast
from zipfile import BadZipFile

from pydantic import TypeAdapter

from mert_core.config import Split
from mert_core.errors import MertError
from mert_core.files import write_json

if TYPE_CHECKING:
    from music21.stream import Score, Stream


@dataclass(frozen=True)
class Candidate:
    """A score that may become a piece.

    Attributes:
        score: stable id: the path inside music21's corpus, with ``#number`` for one song of a collection.
        composer: composer or tradition.
        group: the work it belongs to, as far as path and header tell.
        number: of the song, 0 for a file with one score.
        path: absolute path, never written into any result.
    """

    score: str
    composer: str
    group: str
    number: int
    path: Path


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


PARSER_VERSION = 1  # part of the cache key: raise it when the notes of a score can come out differently

_PIECE = TypeAdapter(Piece)
_FEWEST_NOTES = 24
# SyntaxError: what the XML reader of Python's library raises on a file that is no XML.
_STUMBLES = (ArithmeticError, AssertionError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
_NEAR = 1e-4  # quarter notes
_SONG = re.compile(rb"^X:\s*(\d+)[^\n]*\n", re.MULTILINE)


class UnusableScoreError(MertError):
    """A score that cannot become a piece; the message says why."""


def split_songs(data: bytes) -> dict[int, bytes]:
    """Return the songs of an ABC collection by their reference numbers; of equal numbers the first counts."""
    data = data.replace(b"\r\n", b"\n")
    heads = list(_SONG.finditer(data))
    ends = [head.start() for head in heads[1:]] + [len(data)]
    songs: dict[int, bytes] = {}
    for head, end in zip(heads, ends, strict=True):
        songs.setdefault(int(head.group(1)), data[head.start() : end])
    return songs


def cache_path(candidate: Candidate, cache_folder: Path) -> Path:
    """Return where the cache keeps a score's notes: by its bytes and the versions of music21 and of this parser."""
    head = f"{PARSER_VERSION} {version('music21')} {candidate.path.suffix} ".encode()
    return cache_folder / "scores" / f"{hashlib.sha256(head + _read_bytes(candidate)).hexdigest()}.json"


def load_piece(candidate: Candidate, cache_folder: Path) -> Piece:
    """Return a piece from the cache, or parse it and fill the cache.

    Raises:
        UnusableScoreError: music21 cannot read it, or it has too few notes or no measures.
    """
    path = cache_path(candidate, cache_folder)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        entry = None
    if not isinstance(entry, dict) or not {"unusable", "parts"} & set(entry):  # absent or damaged: made again
        try:
            tree = asdict(_parse(candidate))
            entry = {name: tree[name] for name in ("parts", "bars", "keys", "quarters_per_minute")}
        except UnusableScoreError as error:
            entry = {"unusable": str(error)}
        write_json(path, entry)
    if "unusable" in entry:
        raise UnusableScoreError(f"{candidate.score}: {entry['unusable']}")
    piece = _PIECE.validate_python(entry)
    return replace(piece, score=candidate.score, composer=candidate.composer, group=candidate.group)


def _read_bytes(candidate: Candidate) -> bytes:
    """Return the bytes of a score: its file, or its song out of a collection."""
    data = candidate.path.read_bytes()
    if not candidate.number:
        return data
    songs = split_songs(data)
    if candidate.number not in songs:
        raise UnusableScoreError(f"{candidate.path} has no song {candidate.number}")
    return songs[candidate.number]


def _parse(candidate: Candidate) -> Piece:
    from music21 import converter, stream
    from music21.exceptions21 import Music21Exception

    try:
        if candidate.path.suffix == ".abc":
            score = converter.parseData(_read_bytes(candidate).decode("utf-8", "replace"), format="abc")
        else:
            score = converter.parse(str(candidate.path), forceSource=True, storePickle=False)
        if isinstance(score, stream.Opus):
            raise UnusableScoreError("holds several scores")
        return _compact(cast("Score", score))
    except UnusableScoreError:
        raise
    # music21 lets whatever its readers stumble over through: all of it means that this score is not for us.
    except (Music21Exception, BadZipFile, *_STUMBLES) as error:
        raise UnusableScoreError(f"music21 cannot read it ({type(error).__name__}: {str(error)[:200]})") from error


def _compact(score: Score) -> Piece:
    from music21 import stream

    streams: list[Stream] = list(score.getElementsByClass(stream.Part)) or [score]
    parts = [part for part in (_part(one) for one in streams) if part.onsets]
    if sum(len(part.onsets) for part in parts) < _FEWEST_NOTES:
        raise UnusableScoreError(f"has fewer than {_FEWEST_NOTES} notes")
    bars = max((_bars(one) for one in streams), key=lambda bars: bars[-1].onset if bars else -1)
    if len(bars) < 2:
        raise UnusableScoreError("has no measures")
    last = max(onset + duration for part in parts for onset, duration in zip(part.onsets, part.durations, strict=True))
    if last > bars[-1].onset + bars[-1].length:  # a last note longer than its measure
        bars[-1] = replace(bars[-1], length=round(last - bars[-1].onset, 6))
    return Piece(tuple(parts), tuple(bars), tuple(_keys(streams)), _quarters_per_minute(score))


def _part(part: Stream) -> Part:
    """Merge ties; leave out grace notes (they have no length), unpitched percussion and chord symbols."""
    from music21 import chord, harmony, note

    if any(instrument.transposition is not None for instrument in part.recurse().getElementsByClass("Instrument")):
        part = part.toSoundingPitch(inPlace=False)
    rows: list[list[float]] = []
    tied: dict[int, int] = {}
    for element in part.flatten().notes:
        duration = float(element.quarterLength)
        if duration <= _NEAR or element.duration.isGrace or isinstance(element, harmony.Harmony):
            continue
        heads = element.notes if isinstance(element, chord.Chord) else (element,)
        for head in heads:
            if not isinstance(head, note.Note):
                continue
            onset, pitch = float(element.offset), int(head.pitch.midi)
            kind = head.tie.type if head.tie is not None else None
            row = tied.pop(pitch, None)
            if kind in ("stop", "continue") and row is not None and abs(sum(rows[row][:2]) - onset) < _NEAR:
                rows[row][1] += duration
            else:
                row = len(rows)
                rows.append([onset, duration, pitch])
            if kind in ("start", "continue"):
                tied[pitch] = row
    rows.sort()
    return Part(
        onsets=tuple(round(row[0], 6) for row in rows),
        durations=tuple(round(row[1], 6) for row in rows),
        pitches=tuple(int(row[2]) for row in rows),
    )


def _bars(part: Stream) -> list[Bar]:
    """Return the measures. A first one that is too short is an upbeat; two short ones that make a whole are one bar."""
    from music21 import stream

    bars: list[Bar] = []
    whole, beat, before = 4.0, 1.0, 0.0  # `before`: how much of a split bar has already sounded
    for measure in part.getElementsByClass(stream.Measure):
        if measure.timeSignature is not None:
            whole = float(measure.timeSignature.barDuration.quarterLength)
            beat = float(measure.timeSignature.beatDuration.quarterLength)
            before = 0.0
        length, onset = float(measure.duration.quarterLength), float(measure.offset)
        if length <= _NEAR:
            continue
        short = length < whole - _NEAR
        if short and not bars:
            before = whole - length
        elif not short or before + length > whole + _NEAR:
            before = 0.0
        first = -before % beat
        count = max(int((length - first - _NEAR) // beat) + 1, 0) if length - first > _NEAR else 0
        beats = tuple(round(onset + first + beat * index, 6) for index in range(count))
        bars.append(Bar(round(onset, 6), round(length, 6), beats, before <= _NEAR and bool(beats)))
        before = (before + length) % whole if short and len(bars) > 1 else 0.0
    return bars


def _keys(parts: list[Stream]) -> list[KeySignature]:
    """Return the key signatures all parts share; from where they differ on, one with unknown sharps."""
    per_part = [
        [
            (round(float(signature.offset), 6), signature.sharps, getattr(signature, "mode", None))
            for signature in part.flatten().getElementsByClass("KeySignature")
        ]
        for part in parts
    ]
    onsets = sorted({0.0, *(onset for signatures in per_part for onset, _, _ in signatures)})
    keys = []
    for onset in onsets:
        now = {next((row[1:] for row in reversed(rows) if row[0] <= onset), (0, None)) for rows in per_part}
        sharps, mode = (values.pop() if len(values) == 1 else None for values in map(set, zip(*now, strict=True)))
        keys.append(KeySignature(onset, sharps, mode))
    return keys


def _quarters_per_minute(score: Score) -> float | None:
    for mark in score.recurse().getElementsByClass("MetronomeMark"):
        tempo = mark.getQuarterBPM()
        if tempo and 20 <= tempo <= 400:
            return round(float(tempo), 3)
    return None
