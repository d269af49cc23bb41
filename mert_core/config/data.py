"""Music and its targets: what is learned from, what is probed on, and where data sets and remote shards lie."""

# mypy: disable-error-code="assignment"
# Defaults of inner sections are dictionaries, as `mert_core.config.section` says.

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mert_core.config.section import Count, NonNegative, Positive, Section, Share, Whole


class ScoresConfig(Section):
    """The demo corpus: excerpts of scores, performed."""

    minutes: Positive = 60.0  # how much music; hours by changing this number
    track_seconds: Annotated[float, Field(ge=3)] = 20.0


class CorpusConfig(Section):
    """Music to pre-train on."""

    # scores: the demo, performed from music21's scores · folder: any tree of audio files
    source: Literal["scores", "folder"] = "scores"
    folder: str | None = None  # the tree, absolute or relative to the checkout
    licence: str = "unknown"  # recorded for a folder's tracks
    min_seconds: Positive = 3.0  # shorter files go to quarantine, as in MERT
    # share of a folder's music to hold out: whole artists (top-level sub-folders) or, without them, files
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    shard_megabytes: Positive = 256.0  # size of a PCM shard
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


class ProbeSetConfig(Section):
    """Labelled music to probe on, always performed from scores, because labels are needed."""

    # excerpts with key, composer, instruments, moods and genres
    mixes: PerSplit = {"train": 900, "valid": 300, "test": 1200}
    notes: PerSplit = {"train": 900, "valid": 300, "test": 1000}  # single notes with pitch and instrument family
    rhythms: PerSplit = {"train": 48, "valid": 16, "test": 40}  # excerpts with a steady, audible beat
    # single lines, each with one of 8 techniques by one of 8 performers
    phrases: PerSplit = {"train": 480, "valid": 200, "test": 400}
    # mixtures of vocals, drums, bass and other, and those beside them
    stems: PerSplit = {"train": 24, "valid": 8, "test": 16}
    mix_seconds: Positive = 4.0
    note_seconds: Positive = 1.5
    rhythm_seconds: Positive = 10.0
    phrase_seconds: Positive = 3.0
    stem_seconds: Positive = 6.0


class PiecesConfig(Section):
    """The score library that the demo corpus and the probe set perform; splits go by piece."""

    per_composer: Annotated[int, Field(ge=4)] = 24  # pieces taken of each composer
    train: Annotated[float, Field(gt=0, lt=1)] = 0.6  # share of the pieces
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.15  # share of the pieces; the rest is the test split

    @model_validator(mode="after")
    def _test_is_left(self) -> Self:
        if self.train + self.valid >= 1:
            given = f"train + valid is {self.train + self.valid:g}"
            raise ValueError(f"{given}; it must leave pieces for the test split (< 1)")
        return self


class GateConfig(Section):
    """Thresholds of the gate, which stops the pipeline on bad labels or music before compute is spent."""

    min_usage: Share = 0.3  # least share of a codebook's entries in use on the training split
    min_entropy_bits: NonNegative = 3.0  # least entropy of a codebook's entries
    max_top_share: Share = 0.5  # largest share of the commonest entry
    max_dead_bins: Share = 0.0  # largest share of a spectrum's bins that do not vary on the training split
    max_magnitude: Positive = 1000.0  # largest value of a spectrum, of either sign
    max_drift_frames: NonNegative = 1.0  # a track's frames against 75 per second
    # a track whose spectrum ends in a wall below this share of half its source's rate was upsampled: music of 8 kHz has
    # 0.32, of 11 kHz 0.44, mp3 of 24 kbit/s 0.51, music from 16 kHz, left alone, 0.65
    min_bandwidth: Share = 0.45
    max_upsampled: Share = 0.05  # largest share of such tracks
    max_silence: Share = 0.5  # largest share of frames below −60 dB, in all tracks
    max_silent_tracks: Share = 0.01  # largest share of tracks with more than 95 % of such frames
    # largest share of held-out tracks that the training split has in another encoding, or shifted
    max_alike: Share = 0.01
    # whether an artist may be in two splits; the demo's artists are composers, whom one synthesizer plays
    shared_artists: Literal["allow", "stop"] = "allow"


class TargetsConfig(Section):
    """Labelling the corpus."""

    # Ray actors, each with a copy of the teacher and one thread, where there is so much music that starting Ray pays;
    # else, and with 0, threads of the stage's process. The bytes are the same.
    actors: Whole = 2
    gate: GateConfig = GateConfig()  # thresholds of the label gate


class DatasetsConfig(Section):
    """Where the labelled public data sets lie: in sub-folders of one folder, or in places of their own."""

    folder: Annotated[str, Field(min_length=1)] = "datasets"  # holds a sub-folder per data set, of its name
    # other folders by the data set's name; absolute, or relative to the checkout
    places: dict[str, Annotated[str, Field(min_length=1)]] = {}


class StorageConfig(Section):
    """Where training reads shards from, and how far ahead. It changes no result, so no stage depends on it."""

    # None: under ``data/`` · ``s3://bucket/prefix``, where ``mert upload`` copied them
    shards: Annotated[str, Field(pattern=r"^[a-z0-9]+://[^/]+.*[^/]$")] | None = None
    read_ahead: Annotated[int, Field(ge=1, le=64)] = 1  # updates that are fetched ahead; for an object store 8 or more
