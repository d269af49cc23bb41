"""The score library: which pieces of music21's corpus are performed, and in which split each of them is."""

from __future__ import annotations

import logging
import multiprocessing
import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mert_core.config import Config, Split
from mert_core.errors import MertError
from mert_core.synth.pieces import Candidate, Piece, UnusableScoreError, cache_path, load_piece, split_songs
from mert_core.synth.rng import generator

logger = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_MELODY_NOTES = 12
_WORTH_A_POOL = 12  # scores; music21 takes a process two seconds to import


@dataclass(frozen=True)
class ScoreCollection:
    """Where the scores of one composer or tradition lie in music21's corpus.

    Attributes:
        pattern: of paths in the corpus.
        work: regular expression on the path without suffix; its groups name the work that a movement belongs to.
        largest: in bytes; larger files take music21 too long.
        header: the work's name stands in this Humdrum record instead.
        skip: regular expression of paths to leave out.
        songs: each file holds many songs.
        genres: period and function, as tags.
    """

    pattern: str
    work: str
    largest: int = 150_000
    header: str = ""
    skip: str = r"$^"
    songs: bool = False
    genres: tuple[str, ...] = ()


# Haydn alone has two works there, too few for three splits: his quartets and Mozart's are one class.
COLLECTIONS: dict[str, ScoreCollection] = {
    "bach": ScoreCollection("bach/*.mxl", r"bach/(bwv\d+)", genres=("baroque", "sacred", "vocal")),
    "beethoven": ScoreCollection(
        "beethoven/**/*.mxl", r"beethoven/(opus\d+(?:no\d+)?)", 120_000, genres=("chamber", "classical")
    ),
    "essen": ScoreCollection(
        "essenFolksong/*.abc",
        r"essenFolksong/(.*)",
        400_000,
        skip=r"/(han|test|folkHaydn)",
        songs=True,
        genres=("folk", "vocal"),
    ),
    "haydn-mozart": ScoreCollection(
        "[hm]*/*/*.mxl", r"((?:haydn|mozart)/[^/]+)", skip=r"^(?!haydn|mozart)", genres=("chamber", "classical")
    ),
    "monteverdi": ScoreCollection(
        "monteverdi/*.mxl", r"monteverdi/(madrigal\.\d+\.\d+)", skip=r"_old", genres=("renaissance", "secular", "vocal")
    ),
    "palestrina": ScoreCollection(
        "palestrina/*.krn", r"palestrina/(.*)", 40_000, header="OPR", genres=("renaissance", "sacred", "vocal")
    ),
    "ryan": ScoreCollection("ryansMammoth/*.abc", r"ryansMammoth/(.*)", genres=("dance", "folk")),
    "trecento": ScoreCollection(
        "trecento/*.xml",
        r"trecento/(PMFC_\d+[-_](?:[A-Za-z]+[-_])?\d+|.*)",
        400_000,
        genres=("medieval", "secular", "vocal"),
    ),
}


@dataclass(frozen=True)
class Library:
    """Pieces with composer and split, and what could not be read."""

    pieces: tuple[Piece, ...]
    left_out: tuple[str, ...] = ()

    @property
    def composers(self) -> tuple[str, ...]:
        """Composers and traditions, sorted."""
        return tuple(sorted({piece.composer for piece in self.pieces}))

    def of(self, split: str, composer: str | None = None) -> list[Piece]:
        """Return the pieces of a split, of all composers or one."""
        return [piece for piece in self.pieces if piece.split == split and composer in (None, piece.composer)]


def corpus_folder() -> Path:
    """Return the folder of music21's corpus."""
    from music21 import common

    folder = Path(common.getCorpusFilePath())
    if not (folder / "bach").is_dir():
        raise MertError(f"{folder} has no scores: this music21 was installed without its corpus; run `make setup`")
    return folder


def list_candidates(composer: str, seed: int) -> list[Candidate]:
    """Return all scores of a composer that are quick to parse, in the order that the seed gives."""
    folder = corpus_folder()
    source = COLLECTIONS[composer]
    candidates = []
    for path in sorted(folder.glob(source.pattern), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.stat().st_size > source.largest or re.search(source.skip, name):
            continue
        numbers = sorted(split_songs(path.read_bytes())) if source.songs else [0]
        heading = source.header and re.search(
            rf"^!!!{source.header}:\s*(.+)$", path.read_text(encoding="latin-1"), re.MULTILINE
        )
        match = heading or re.match(source.work, str(Path(name).with_suffix("")))
        work = match.group(1).strip() if match else name
        for number in numbers:
            song = f"#{number}" if number else ""
            candidates.append(Candidate(name + song, composer, f"{composer}/{work}{song}", number, path))
    order = generator(seed, "library", composer).permutation(len(candidates))
    return [candidates[index] for index in order]


def load_library(config: Config, cache_folder: Path, composers: Iterable[str] | None = None) -> Library:
    """Choose, parse (or take from the cache) and split the pieces.

    A score that cannot be read is logged, and the composer's next one takes its place, so the same
    seed gives the same library whatever fails.

    Raises:
        MertError: a composer has too few readable works for three splits.
    """
    names = sorted(composers or COLLECTIONS)
    queues = {name: list_candidates(name, config.seed) for name in names}
    pieces: dict[str, list[Piece]] = {name: [] for name in names}
    left_out: list[str] = []
    bar = tqdm(desc="scores", unit=" scores", dynamic_ncols=True)
    pool = ProcessPoolExecutor(config.threads, multiprocessing.get_context("spawn"))  # starts processes when it is used
    try:
        while True:
            batch: list[Candidate] = []
            for name, queue in queues.items():
                lacking = config.pieces.per_composer - len(pieces[name])
                batch += queue[:lacking]
                del queue[:lacking]
            if not batch:
                break
            bar.total = bar.n + len(batch)
            missing = [one for one in batch if not cache_path(one, cache_folder).exists()]
            parse_ahead = config.threads > 1 and len(missing) >= _WORTH_A_POOL
            if parse_ahead:
                missing.sort(key=_weight, reverse=True)
                for future in as_completed([pool.submit(_fill_cache, one, cache_folder) for one in missing]):
                    future.result()
                    bar.update()
            for candidate in batch:
                try:
                    pieces[candidate.composer].append(load_piece(candidate, cache_folder))
                except UnusableScoreError as error:
                    left_out.append(str(error))
                    logger.warning("scores: left out %s", error)
                bar.update(not parse_ahead)
            bar.update(bar.total - bar.n)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    chosen = [piece for name in names for piece in assign_splits(pieces[name], config)]
    return Library(tuple(chosen), tuple(left_out))


def _fill_cache(candidate: Candidate, cache_folder: Path) -> None:
    """Parse a score in another process; pieces come back through the cache, not through pickles."""
    with suppress(UnusableScoreError):  # the cache says so, too
        load_piece(candidate, cache_folder)


def _weight(candidate: Candidate) -> float:
    """Return roughly how long music21 takes, in kilobytes of compressed MusicXML."""
    if candidate.number:
        return 1.0
    return candidate.path.stat().st_size / 1000 * {".xml": 0.06, ".krn": 2.0}.get(candidate.path.suffix, 1.0)


def assign_splits(pieces: list[Piece], config: Config) -> list[Piece]:
    """Give every piece of one composer a split, whole works at a time, the shares as near as works allow.

    Works that begin with the same melody, in whatever transposition, count as one.
    """
    if not pieces:
        return []
    composer = pieces[0].composer
    works = _join_same_melodies(pieces)
    if len(works) < len(SPLITS):
        raise MertError(f"{composer} has {len(works)} works that can be read; three splits need three at least")
    order = generator(config.seed, "splits", composer).permutation(len(works))
    ranked = sorted((works[index] for index in order), key=len, reverse=True)
    shares = {"train": config.pieces.train, "valid": config.pieces.valid}
    shares["test"] = 1 - shares["train"] - shares["valid"]
    members: dict[Split, list[list[Piece]]] = {split: [] for split in SPLITS}
    for work in ranked:
        sizes = {split: sum(map(len, members[split])) for split in SPLITS}
        members[max(SPLITS, key=lambda split: shares[split] * len(pieces) - sizes[split])].append(work)
    for split in SPLITS:  # with very few works a small share can have come out empty
        if not members[split]:
            richest = max(SPLITS, key=lambda other: len(members[other]))
            members[split].append(members[richest].pop())
    placed = [replace(one, split=split) for split in SPLITS for work in members[split] for one in work]
    return sorted(placed, key=lambda piece: piece.score)


def _join_same_melodies(pieces: list[Piece]) -> list[list[Piece]]:
    label = {piece.score: piece.group for piece in pieces}
    by_melody: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for piece in pieces:
        steps = np.diff(piece.parts[0].pitches)
        by_melody[tuple(steps[steps != 0][:_MELODY_NOTES].tolist())].add(piece.group)
    for groups in by_melody.values():
        now = {label[piece.score] for piece in pieces if piece.group in groups}
        for piece in pieces:
            if label[piece.score] in now:
                label[piece.score] = min(now)
    works: dict[str, list[Piece]] = defaultdict(list)
    for piece in sorted(pieces, key=lambda piece: piece.score):
        works[label[piece.score]].append(replace(piece, group=label[piece.score]))
    return [works[name] for name in sorted(works)]
