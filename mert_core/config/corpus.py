"""Music: what is learned from, what is probed on, and where labelled data sets and remote shards lie."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mert_core.config.section import Count, Positive, Section


class ScoresConfig(Section):
    """The demo corpus: excerpts of scores, performed.

    Attributes:
        minutes: how much music; hours by changing this number.
        track_seconds: length of a track.
    """

    minutes: Positive = 60.0
    track_seconds: Annotated[float, Field(ge=3)] = 20.0


class CorpusConfig(Section):
    """Music to pre-train on.

    Attributes:
        source: scores: the demo, performed from music21's scores · folder: any tree of audio files.
        folder: the tree, absolute or relative to the checkout.
        licence: recorded for a folder's tracks.
        min_seconds: shorter files go to quarantine, as in MERT.
        valid_fraction: share of a folder's music to hold out: whole artists (top-level sub-folders) or, without them,
            files.
        shard_megabytes: size of a PCM shard.
    """

    source: Literal["scores", "folder"] = "scores"
    folder: str | None = None
    licence: str = "unknown"
    min_seconds: Positive = 3.0
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    shard_megabytes: Positive = 256.0
    scores: ScoresConfig = ScoresConfig()

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


class Mixes(PerSplit):
    """Excerpts with key, composer, instruments, moods and genres."""

    train: Count = 900
    valid: Count = 300
    test: Count = 1200


class Notes(PerSplit):
    """Single notes with pitch and instrument family."""

    train: Count = 900
    valid: Count = 300
    test: Count = 1000


class Rhythms(PerSplit):
    """Excerpts with a steady, audible beat."""

    train: Count = 48
    valid: Count = 16
    test: Count = 40


class Phrases(PerSplit):
    """Single lines, each with one of 8 techniques by one of 8 performers."""

    train: Count = 480
    valid: Count = 200
    test: Count = 400


class Stems(PerSplit):
    """Mixtures of vocals, drums, bass and other, and those beside them."""

    train: Count = 24
    valid: Count = 8
    test: Count = 16


class ProbeSetConfig(Section):
    """Labelled music to probe on, always performed from scores, because labels are needed."""

    mixes: Mixes = Mixes()
    notes: Notes = Notes()
    rhythms: Rhythms = Rhythms()
    phrases: Phrases = Phrases()
    stems: Stems = Stems()
    mix_seconds: Positive = 4.0
    note_seconds: Positive = 1.5
    rhythm_seconds: Positive = 10.0
    phrase_seconds: Positive = 3.0
    stem_seconds: Positive = 6.0


class PiecesConfig(Section):
    """The score library that the demo corpus and the probe set perform; splits go by piece.

    Attributes:
        per_composer: pieces taken of each composer.
        train: share of the pieces.
        valid: share of the pieces; the rest is the test split.
    """

    per_composer: Annotated[int, Field(ge=4)] = 24
    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.15

    @model_validator(mode="after")
    def _test_is_left(self) -> Self:
        if self.train + self.valid >= 1:
            raise ValueError(
                f"train + valid is {self.train + self.valid:g}; it must leave pieces for the test split (< 1)"
            )
        return self


class DatasetsConfig(Section):
    """Where the labelled public data sets lie: in sub-folders of one folder, or in places of their own.

    Attributes:
        folder: holds a sub-folder per data set, of its name.
        places: other folders by the data set's name; absolute, or relative to the checkout.
    """

    folder: Annotated[str, Field(min_length=1)] = "datasets"
    places: dict[str, Annotated[str, Field(min_length=1)]] = {}


class StorageConfig(Section):
    """Where training reads shards from, and how far ahead. It changes no result, so no stage depends on it.

    Attributes:
        shards: None: under ``data/`` · ``s3://bucket/prefix``, where ``mert upload`` copied them.
        read_ahead: updates that are fetched ahead; for an object store 8 or more.
    """

    shards: Annotated[str, Field(pattern=r"^[a-z0-9]+://[^/]+.*[^/]$")] | None = None
    read_ahead: Annotated[int, Field(ge=1, le=64)] = 1
