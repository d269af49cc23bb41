"""MagnaTagATune: 25,863 clips of 29 s with tags that players of a game agreed on (Law et al., ISMIR 2009)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mert_core.config import Split
from mert_core.datasets.base import Clip, Dataset, Survey
from mert_core.datasets.reading import count_sound, read_rows, usable
from mert_core.datasets.sounds import FileSound
from mert_core.errors import MertError

ANNOTATIONS = "annotations_final.csv"
CLIPS = 25_863
PUBLISHED_EMPTY = frozenset({"35644", "55753", "57881"})
"""Clips whose mp3 has no bytes as published; nothing can be done about them."""

_TAGS = 50
_WHAT = f"MagnaTagATune's {ANNOTATIONS}: tab-separated and quoted, a header clip_id, one column per tag, mp3_path"


@dataclass(frozen=True)
class _Row:
    clip_id: str
    tags: frozenset[str]
    mp3: str


class MagnaTagATune(Dataset):
    """MagnaTagATune with its fifty commonest tags, divided by folder: 0–b train, c valid, d–f test.

    As in MARBLE, tags are counted over all rows, and clips that none of the fifty applies to stay in. Tags that are
    equally common stand in the order of their names.
    """

    name = "mtt"
    title = "MagnaTagATune"
    licence = "Creative Commons BY-NC-SA (music of Magnatune); for research"
    source = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset; Law et al., ISMIR 2009"
    questions: tuple[str, ...] = ("tags",)

    def survey(self, folder: Path, quick: bool = False) -> Survey:
        """Count rows and mp3 files. No checksum of single files is published, so ``quick`` makes no difference."""
        if not (folder / ANNOTATIONS).is_file():
            return Survey("missing", notes=(f"{folder / ANNOTATIONS} is not there.",))
        _, rows = _read(folder / ANNOTATIONS)
        wanted = [row for row in rows if row.clip_id not in PUBLISHED_EMPTY]
        present, empty = count_sound(_audio_folder(folder) / row.mp3 for row in wanted)
        expected = CLIPS - len(PUBLISHED_EMPTY)
        notes = [f"{empty} mp3 file(s) have no bytes; unpack mp3.zip again."] if empty else []
        if present + empty < expected:
            notes.append("mp3 files are missing; unpack mp3.zip.001–003, joined, into the folder or into its mp3.")
        return Survey.of({"clips": (present, expected), "rows": (len(rows), CLIPS)}, notes, empty)

    def _clips(self, folder: Path, question: str, left_out: Counter[str]) -> tuple[list[Clip], tuple[str, ...]]:
        """Return all clips with those of the fifty tags that apply to each."""
        names, rows = _read(folder / ANNOTATIONS)
        counts = Counter(tag for row in rows for tag in row.tags)
        classes = tuple(sorted(names, key=lambda tag: (-counts[tag], tag))[:_TAGS])
        audio = _audio_folder(folder)
        clips = []
        for row in rows:
            if usable(audio / row.mp3, left_out):
                label = tuple(tag for tag in classes if tag in row.tags)
                clips.append(Clip(row.clip_id, _split(row.mp3), FileSound(audio / row.mp3), label))
        return clips, classes


def _read(path: Path) -> tuple[list[str], list[_Row]]:
    """Return the names of all tags, and for every clip which of them apply."""
    (_, header), *lines = read_rows(path, _WHAT, "\t")
    if len(header) < _TAGS + 2 or header[0] != "clip_id" or header[-1] != "mp3_path":
        raise MertError(f"{path} has {len(header)} columns from {header[0]!r} to {header[-1]!r}; expected {_WHAT}")
    names, rows = header[1:-1], []
    for line, row in lines:
        if len(row) != len(header) or not set(row[1:-1]) <= {"0", "1"}:
            raise MertError(f"{path}, line {line}: expected {len(header)} cells, all tags 0 or 1; {_WHAT}")
        tags = frozenset(tag for tag, cell in zip(names, row[1:-1], strict=True) if cell == "1")
        rows.append(_Row(row[0], tags, row[-1]))
        if row[-1][:1] not in set("0123456789abcdef") or row[-1][1:2] != "/":
            raise MertError(f"{path}, line {line}: mp3_path is {row[-1]!r}; expected a folder 0 to f first")
    return names, rows


def _audio_folder(folder: Path) -> Path:
    """Return where the folders 0 to f lie."""
    return folder / "mp3" if (folder / "mp3").is_dir() else folder


def _split(mp3: str) -> Split:
    number = int(mp3[0], 16)
    return "train" if number < 12 else "valid" if number == 12 else "test"
