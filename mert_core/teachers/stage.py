"""The stage ``teachers``: fit the acoustic teacher on the corpus, or take EnCodec's published weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.files import atomic_folder, sha256_file, sha256_json
from mert_core.paths import Layout
from mert_core.records import Record, read_record, write_record
from mert_core.teachers.acoustic import save_acoustic
from mert_core.teachers.encodec_published import CODEBOOKS_AT_6_KBPS, PUBLISHED, load_published
from mert_core.teachers.music import StoredMusic
from mert_core.teachers.training import train


class Metrics(Protocol):
    """The part of a tracker that this stage uses."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name."""


def run(config: Config, layout: Layout, tracker: Metrics) -> Record:
    """Make the acoustic teacher.

    An interrupted training goes on from its last state when the same parameters and corpus come again.

    Raises:
        MertError: no corpus, no usable crop, or a checkpoint that is not EnCodec's.
    """
    torch.set_num_threads(config.threads)
    corpus = read_record(layout.corpus)
    if config.teachers.acoustic.checkpoint is not None:
        return _published(config, layout, corpus.id)
    return _trained(config, layout, tracker, corpus.id)


def _trained(config: Config, layout: Layout, tracker: Metrics, corpus_id: str) -> Record:
    acoustic = config.teachers.acoustic
    params = {"acoustic": acoustic.model_dump(mode="json"), "seed": config.seed, "threads": config.threads}
    key = sha256_json({"params": params, "corpus": corpus_id})[:16]
    states = layout.resume / f"teachers-{key}"
    model, figures = train(acoustic, StoredMusic(layout.corpus), config.seed, states, tracker.metrics)
    with atomic_folder(layout.teachers) as folder:
        save_acoustic(folder, model, acoustic.codebooks, "trained")
        record = _record(folder, corpus_id, params, {"origin": "trained", **_rounded(figures)})
    shutil.rmtree(states, ignore_errors=True)
    return record


def _published(config: Config, layout: Layout, corpus_id: str) -> Record:
    acoustic = config.teachers.acoustic
    if (acoustic.codebooks, acoustic.entries) != (CODEBOOKS_AT_6_KBPS, PUBLISHED.entries):
        raise MertError(
            f"teachers.acoustic: codebooks {acoustic.codebooks} and entries {acoustic.entries} do not fit EnCodec's "
            f"published weights; set codebooks: {CODEBOOKS_AT_6_KBPS} and entries: {PUBLISHED.entries} (6 kbps), or "
            "checkpoint: null"
        )
    path = layout.root / Path(str(acoustic.checkpoint)).expanduser()
    model = load_published(path)
    with atomic_folder(layout.teachers) as folder:
        save_acoustic(folder, model, CODEBOOKS_AT_6_KBPS, "encodec_24khz")
        params = {"acoustic": {"checkpoint_sha256": sha256_file(path), "codebooks": CODEBOOKS_AT_6_KBPS}}
        return _record(folder, corpus_id, params, {"origin": "encodec_24khz"})


def _record(folder: Path, corpus_id: str, params: dict[str, Any], facts: dict[str, Any]) -> Record:
    inputs = {"corpus": corpus_id}
    return write_record(folder, stage="teachers", kind="teacher", inputs=inputs, params=params, facts=facts)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}
