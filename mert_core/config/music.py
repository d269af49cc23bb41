"""Sections about music: what is learned from and what is probed on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mert_core.config.section import Count, Positive, Section

DatasetName = Literal["mtt", "giantsteps", "gtzan", "emo", "nsynth", "vocalset", "mtg_jamendo", "musdb18"]


class ScoresSource(Section):
    """The demo corpus: excerpts of scores, performed."""

    minutes: Positive
    track_seconds: Annotated[float, Field(ge=3)]


class CorpusConfig(Section):
    """Music to pre-train on."""

    source: Literal["scores", "folder"]
    folder: str | None
    licence: str
    min_seconds: Positive
    valid_fraction: Annotated[float, Field(gt=0, lt=1)]
    shard_megabytes: Positive
    scores: ScoresSource

    @model_validator(mode="after")
    def _folder_is_named(self) -> Self:
        if self.source == "folder" and not self.folder:
            raise ValueError("source is 'folder' but corpus.folder names none; give the path of a tree of audio files")
        return self


class PerSplit(Section):
    """How many items each split has."""

    train: Count
    valid: Count
    test: Count


class ProbeSetConfig(Section):
    """Labelled music to probe on."""

    mixes: PerSplit
    notes: PerSplit
    rhythms: PerSplit
    phrases: PerSplit
    stems: PerSplit
    mix_seconds: Positive
    note_seconds: Positive
    rhythm_seconds: Positive
    phrase_seconds: Positive
    stem_seconds: Positive


class PiecesConfig(Section):
    """The score library that the demo corpus and the probe set perform."""

    per_composer: Annotated[int, Field(ge=4)]
    train: Annotated[float, Field(gt=0, lt=1)]
    valid: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _test_is_left(self) -> Self:
        if self.train + self.valid >= 1:
            raise ValueError(
                f"train + valid is {self.train + self.valid:g}; it must leave pieces for the test split (< 1)"
            )
        return self


class DatasetsConfig(Section):
    """Where the labelled public data sets lie: in sub-folders of one folder, or in places of their own."""

    folder: Annotated[str, Field(min_length=1)]
    places: dict[DatasetName, Annotated[str, Field(min_length=1)]]


class StorageConfig(Section):
    """Where training reads shards from, and how far ahead. Changes no result, so no stage depends on it."""

    shards: Annotated[str, Field(pattern=r"^[a-z0-9]+://[^/]+.*[^/]$")] | None
    read_ahead: Annotated[int, Field(ge=1, le=64)]
