"""The stages ``corpus`` and ``probe_set``: from a source to shards, manifest, quarantine, data card and record."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import Config
from mert_core.corpus.sources import CorpusKind, FolderSource, ScoreSource, Source
from mert_core.corpus.writer import CorpusWriter
from mert_core.data.manifest import MANIFEST_NAME, write_manifest
from mert_core.data.record import Record, write_record
from mert_core.data.statistics import flat_metrics, manifest_facts
from mert_core.errors import MertError
from mert_core.files import atomic_folder, write_text
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.tracking import Tracker

_TABLE_ROWS = 1000  # of the quarantine, in the tracker; the whole is in the corpus

logger = logging.getLogger(__name__)


def run(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Make the corpus to pre-train on.

    Raises:
        MertError: the source has no usable audio; what stood at the output before still stands there.
    """
    folder = config.corpus.source == "folder"
    source = FolderSource(config, layout) if folder else ScoreSource(config, layout, "corpus")
    return _build(source, "corpus", layout.corpus, config.corpus.shard_megabytes, tracker)


def run_probe_set(config: Config, layout: Layout, tracker: Tracker) -> Record:
    """Make the labelled music to probe on; always from scores, because labels are needed."""
    source = ScoreSource(config, layout, "probe_set")
    return _build(source, "probe_set", layout.probe_set, config.corpus.shard_megabytes, tracker)


def _build(source: Source, kind: CorpusKind, target: Path, shard_megabytes: float, tracker: Tracker) -> Record:
    tracker.params({kind: source.params})
    with atomic_folder(target) as folder:
        # tracks
        with CorpusWriter(folder, shard_megabytes) as writer:
            reused = source.reuse(writer)
            bar = tqdm(
                source.tracks(), desc=kind, total=source.total, initial=reused, unit=" tracks", dynamic_ncols=True
            )
            for item in bar:
                writer.add(item)
                hours = writer.samples / SAMPLE_RATE / 3600
                bar.set_postfix_str(f"{hours:.2f} h, {len(writer.quarantine.rows)} left out", refresh=False)
        if not writer.tracks:
            raise MertError(_no_tracks(source, writer))
        # what is known only once all tracks are there
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
            **source.lineage(writer),
        }
        write_text(folder / "DATACARD.md", source.card(facts))
        record = write_record(
            folder, stage=kind, kind=kind, inputs={}, params=source.params, facts=facts, known=writer.reused_files
        )
    # what the tracker is told, and the log
    left_out = writer.quarantine.rows
    tracker.artifact(target / "DATACARD.md")
    tracker.metrics({"quarantined": float(len(left_out)), **flat_metrics(facts)})
    if left_out:
        tracker.table("quarantine", left_out[:_TABLE_ROWS])
        why = writer.quarantine.summary()
        text = "%s: %d of %d files left out (%s); see quarantine.parquet"
        logger.warning(text, kind, len(left_out), source.total, why)
    return record


def _no_tracks(source: Source, writer: CorpusWriter) -> str:
    """Return the error message for a source without a usable track."""
    if not source.total:
        return f"{source.description} holds no audio file; expected wav, flac, ogg, opus or mp3"
    first = "\n".join(f"  {row['path']}: {row['reason']} ({row['detail']})" for row in writer.quarantine.rows[:5])
    why = writer.quarantine.summary()
    return f"none of the {source.total} audio files of {source.description} is usable ({why}), for example:\n{first}"
