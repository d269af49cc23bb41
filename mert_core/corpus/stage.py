"""The stages ``corpus`` and ``probe_set``: from a source to shards, manifest, quarantine, data card and record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config
from mert_core.corpus.folder import list_folder, read_folder
from mert_core.corpus.incremental import Previous, unchanged_tracks
from mert_core.corpus.incremental import take_over as take_over_tracks
from mert_core.corpus.splits import assign_splits
from mert_core.corpus.writer import CorpusWriter
from mert_core.data.hashes import FileHashes
from mert_core.data.manifest import MANIFEST_NAME, write_manifest
from mert_core.data.record import Record, write_record
from mert_core.data.statistics import flat_metrics, folder_card, manifest_facts
from mert_core.data.track import Rejected, SourceTrack
from mert_core.errors import MertError
from mert_core.files import atomic_folder, write_text
from mert_core.paths import Layout
from mert_core.tracking import Tracker

_TABLE_ROWS = 1000  # of the quarantine, in the tracker; the whole is in the corpus


@dataclass(frozen=True)
class _Source:
    """Where tracks come from, and what the record says of it.

    Attributes:
        take_over: begins the new corpus with what is kept of the one that lies there; returns how many tracks.
        grown_from: once all is written, the ids of the corpora that this one continues, if there are any.
        tracks: then gives the other tracks, in a stable order, and what could not become one.
        total: how many there are in all, for the progress bar.
        where: what to name in an error.
        params: all that the result depends on, without paths.
        facts: figures that the manifest does not know.
        splits: from the manifest's file, the split of every row (None: as it is there) and more facts.
        card: the data card from the facts.
    """

    take_over: Callable[[CorpusWriter], int]
    grown_from: Callable[[CorpusWriter], dict[str, Any]]
    tracks: Callable[[], Iterable[SourceTrack | Rejected]]
    total: int
    where: str
    params: dict[str, Any]
    facts: dict[str, Any]
    splits: Callable[[Path], tuple[pa.ChunkedArray | None, dict[str, Any]]]
    card: Callable[[dict[str, Any]], str]


def run(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Make the corpus to pre-train on.

    Raises:
        MertError: the source has no usable audio; what stood at the output before still stands there.
    """
    source = _folder(config, layout) if config.corpus.source == "folder" else _scores(config, layout, "corpus")
    return _build(source, "corpus", layout.corpus, config.corpus.shard_megabytes, tracker)


def run_probe_set(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Make the labelled music to probe on; always from scores, because labels are needed."""
    source = _scores(config, layout, "probe_set")
    return _build(source, "probe_set", layout.probe_set, config.corpus.shard_megabytes, tracker)


def _folder(config: Config, layout: Layout) -> _Source:
    corpus = config.corpus
    assert corpus.folder is not None  # checked by the config
    listing = list_folder(layout.root / Path(corpus.folder).expanduser())
    params = {"seed": config.seed, **corpus.model_dump(mode="json", exclude={"folder", "scores"})}
    files = listing.files
    previous: Previous | None = None

    def take_over(writer: CorpusWriter) -> int:
        nonlocal files, previous
        previous = Previous.at(layout.corpus, params)
        if previous is None:
            return 0
        with closing(FileHashes(layout.caches, listing.root)) as hashes:
            kept, files = unchanged_tracks(listing, previous, hashes, config.threads)
        if kept.any():
            take_over_tracks(previous, kept, writer)
        return int(kept.sum())

    def tracks() -> Iterator[SourceTrack | Rejected]:
        with closing(FileHashes(layout.caches, listing.root)) as hashes:
            yield from read_folder(
                listing, files, hashes, licence=corpus.licence, min_seconds=corpus.min_seconds, threads=config.threads
            )

    def splits(rows: Path) -> tuple[pa.ChunkedArray, dict[str, Any]]:
        assigned, split_by = assign_splits(rows, config.seed, corpus.valid_fraction)
        return assigned, {"split_by": split_by}

    def grown_from(writer: CorpusWriter) -> dict[str, Any]:
        lineage = previous.lineage(writer.tracks, len(writer.known)) if previous else []
        return {"grown_from": lineage} if lineage else {}

    return _Source(
        take_over=take_over,
        grown_from=grown_from,
        tracks=tracks,
        total=len(listing.files) + len(listing.rejected),
        where=f"the folder {listing.root}",
        params=params,
        facts={"ignored_files": dict(sorted(listing.ignored.items()))},
        splits=splits,
        card=folder_card,
    )


def _scores(config: Config, layout: Layout, kind: str) -> _Source:
    from mert_core import synth  # brings music21 and the SoundFont, which a folder does not need

    corpus = kind == "corpus"
    perform, count = (
        (synth.perform_corpus, synth.count_corpus) if corpus else (synth.perform_probe_set, synth.count_probe_set)
    )
    own = {"scores": config.corpus.scores} if corpus else {"probe_set": config.probe_set}
    sections = {name: section.model_dump(mode="json") for name, section in {**own, "pieces": config.pieces}.items()}
    return _Source(
        take_over=lambda writer: 0,
        grown_from=lambda writer: {},
        tracks=lambda: perform(config, layout.caches),
        total=count(config),
        where="the score library",
        params={"seed": config.seed, "shard_megabytes": config.corpus.shard_megabytes, "source": "scores", **sections},
        facts={},
        splits=lambda rows: (None, {"split_by": "piece"}),
        card=lambda facts: synth.data_card(config, kind, facts),
    )


def _build(source: _Source, kind: str, target: Path, shard_megabytes: float, tracker: Tracker) -> Record:
    tracker.params({kind: source.params})
    with atomic_folder(target) as folder:
        with CorpusWriter(folder, shard_megabytes) as writer:
            kept = source.take_over(writer)
            bar = tqdm(source.tracks(), desc=kind, total=source.total, initial=kept, unit=" tracks", dynamic_ncols=True)
            for item in bar:
                writer.add(item)
                hours = writer.samples / SAMPLE_RATE / 3600
                bar.set_postfix_str(f"{hours:.2f} h, {len(writer.quarantine.rows)} left out", refresh=False)
        if not writer.tracks:
            raise MertError(_nothing(source, writer))
        splits, split_facts = source.splits(writer.rows())
        write_manifest(folder, writer.rows(), splits)
        writer.quarantine.write(folder)
        facts = {
            **manifest_facts(folder / MANIFEST_NAME),
            **source.facts,
            **split_facts,
            "shards": writer.shards,
            "clipped_samples": writer.clipped_samples,
            "quarantined": writer.quarantine.counts(),
            **source.grown_from(writer),
        }
        write_text(folder / "DATACARD.md", source.card(facts))
        record = write_record(
            folder, stage=kind, kind=kind, inputs={}, params=source.params, facts=facts, known=writer.known
        )
    tracker.artifact(target / "DATACARD.md")
    _tell(writer, source, kind, facts, tracker)
    return record


def _nothing(source: _Source, writer: CorpusWriter) -> str:
    if not source.total:
        return f"{source.where} holds no audio file; expected wav, flac, ogg, opus or mp3"
    first = "\n".join(f"  {row['path']}: {row['reason']} ({row['detail']})" for row in writer.quarantine.rows[:5])
    why = writer.quarantine.summary()
    return f"none of the {source.total} audio files of {source.where} is usable ({why}), for example:\n{first}"


def _tell(writer: CorpusWriter, source: _Source, kind: str, facts: dict[str, Any], tracker: Tracker) -> None:
    left_out = writer.quarantine.rows
    tracker.metrics({"quarantined": float(len(left_out)), **flat_metrics(facts)})
    if left_out:
        tracker.table("quarantine", left_out[:_TABLE_ROWS])
        print(
            f"{kind}: {len(left_out)} of {source.total} files left out ({writer.quarantine.summary()}); "
            "see quarantine.parquet",
            file=sys.stderr,
        )
