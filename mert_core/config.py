"""Typed parameters: one class per section of ``params.yaml``.

No class has a default: every knob stands in the file, so that a stage's parameters, as DVC hashes them, are all
there is to know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from mert_core.errors import MertError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Split = Literal["train", "valid", "test"]
Preset = Literal["mert-tiny", "mert-95m", "mert-330m"]
DatasetName = Literal["mtt", "giantsteps", "gtzan", "emo", "nsynth", "vocalset", "mtg_jamendo", "musdb18"]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScoresSource(Section):
    """The demo corpus: excerpts of scores, performed."""

    minutes: Positive
    track_seconds: Annotated[float, Field(ge=3)]


class Corpus(Section):
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


class ProbeSet(Section):
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


class Pieces(Section):
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


class Gate(Section):
    """Thresholds of the gate over labels, audio and manifest."""

    min_usage: Share
    min_entropy_bits: NonNegative
    max_top_share: Share
    max_dead_bins: Share
    max_magnitude: Positive
    max_drift_frames: NonNegative
    min_bandwidth: Share
    max_upsampled: Share
    max_silence: Share
    max_silent_tracks: Share
    max_alike: Share
    shared_artists: Literal["allow", "stop"]


class Targets(Section):
    """Target store and label gate."""

    actors: Annotated[int, Field(ge=0)]
    gate: Gate


class Term(Section):
    """A teacher that the student predicts, where its targets come from, and the weight of its loss."""

    teacher: Annotated[str, Field(min_length=1)]
    targets: Literal["stored", "online", "crop"]
    weight: NonNegative


class LossWeights(Section):
    """Weights of the pre-training loss terms that belong to no teacher."""

    feature_penalty: NonNegative
    unmasked: Share = 0.0


class Start(Section):
    """A checkpoint to start from: its folder, what it must hash to, and whether its heads are taken over."""

    folder: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    heads: Literal["stored", "fresh"]


Action = Literal["warn", "skip", "rollback", "stop"]


class UpperBound(Section):
    """A measure that must not rise above a bound, judged before each update is made."""

    above: Positive
    action: Action


class LowerBound(Section):
    """A measure of the model that must not fall below a bound; no single update is to blame, so none is skipped."""

    below: Positive
    action: Literal["warn", "rollback", "stop"]


class DeadCodes(Section):
    """The largest share of a codebook's entries that the student may have given up."""

    above: Share
    action: Literal["warn", "rollback", "stop"]


class Health(Section):
    """What is watched during training, and what is done about each fault."""

    every: Count
    nonfinite: Literal["skip", "rollback", "stop"]
    explosion: UpperBound
    gradient_spike: UpperBound
    silence: Action
    perplexity: LowerBound
    dead_codes: DeadCodes
    effective_rank: LowerBound
    max_interventions: Annotated[int, Field(ge=0)]
    rate_factor: Annotated[float, Field(gt=0, le=1)]


class Pretrain(Section):
    """One pre-training run."""

    preset: Preset
    start: Start | None
    layer_norm: Literal["preset", "pre", "post"]
    deepnorm: bool
    attention_relax: NonNegative
    workers: Annotated[int, Field(ge=0)]
    max_worker_failures: Annotated[int, Field(ge=0)]
    crop_seconds: Annotated[float, Field(ge=0.5)]
    batch_clips: Count
    accumulate: Count
    max_steps: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    schedule_steps: Count
    learning_rate: Positive
    adam_betas: tuple[Share, Share]
    adam_eps: Positive
    weight_decay: NonNegative
    clip_norm: Positive
    temperature: Positive
    learn_temperature: bool
    acoustic_codebooks: Literal["all", "random", "top", "bottom"]
    mask_probability: Share
    mask_frames: Count
    mask_trim_clips: Count
    mixture_probability: Share
    mixture_snippets: Annotated[int, Field(ge=1)]
    mixture_seconds: tuple[Positive, Positive]
    teachers: Annotated[list[Term], Field(min_length=1)]
    weights: LossWeights
    precision: Literal["fp32", "bf16"]
    activation_checkpointing: bool
    compile: bool
    sharding: Literal["none", "full"]
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_every: Count
    checkpoint_keep: Count
    health: Health
    log_every: Count
    validate_every: Count
    validate_batches: Count

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.warmup_steps >= self.schedule_steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below schedule_steps ({self.schedule_steps})")
        low, high = self.mixture_seconds
        if not low <= high <= self.crop_seconds:
            raise ValueError(
                f"mixture_seconds {[low, high]} must rise and fit into crop_seconds ({self.crop_seconds:g})"
            )
        names = [term.teacher for term in self.teachers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"teachers names {', '.join(twice)} twice; each teacher has one entry")
        if not any(term.weight for term in self.teachers):
            raise ValueError("teachers gives every entry the weight 0; at least one must be above it")
        return self


class Storage(Section):
    """Where training reads shards from, and how far ahead. Changes no result, so no stage depends on it."""

    shards: Annotated[str, Field(pattern=r"^[a-z0-9]+://[^/]+.*[^/]$")] | None
    read_ahead: Annotated[int, Field(ge=1, le=64)]


class Datasets(Section):
    """Where the labelled public data sets lie: in sub-folders of one folder, or in places of their own."""

    folder: Annotated[str, Field(min_length=1)]
    places: dict[DatasetName, Annotated[str, Field(min_length=1)]]


class Beats(Section):
    """Per-frame probes of beats."""

    batch_frames: Count
    frames_share: Annotated[float, Field(gt=0, le=1)]


class Separation(Section):
    """Open-Unmix-style heads on frozen features."""

    hidden: Count
    layers: Count
    mixes_per_track: Count
    batch_mixes: Count
    crop_frames: Annotated[int, Field(ge=0)]
    every_frames: Count
    rates: Annotated[list[Positive], Field(min_length=1)]
    max_epochs: Count


class Robustness(Section):
    """Which tasks are asked again of deformed music, and of how many clips of the test split."""

    tasks: list[str]
    clips: Count


class DemoChanges(Section):
    """What differs for the stand-ins, so that they end within minutes."""

    batch_items: Count
    rates: Annotated[list[Positive], Field(min_length=1)]
    max_epochs: Count
    patience: Count
    plateau_patience: Count
    beats: Beats
    separation: Separation


class Probe(Section):
    """Probing of a frozen encoder: which tasks, and MARBLE's protocol."""

    tasks: Annotated[list[str], Field(min_length=1)]
    workers: Annotated[int, Field(ge=0)]
    hidden: Annotated[int, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch_items: Count
    rates: Annotated[list[Positive], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=3)]
    max_epochs: Count
    patience: Count
    plateau_patience: Count
    plateau_factor: Annotated[float, Field(gt=0, le=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    mel_bins: Count
    floor_run: str
    beats: Beats
    separation: Separation
    robustness: Robustness
    demo: DemoChanges

    def of_demo(self) -> Probe:
        """Return the section with what differs for the stand-ins."""
        return self.model_copy(update={name: getattr(self.demo, name) for name in DemoChanges.model_fields})


class Report(Section):
    """The report."""

    runs: Annotated[list[str], Field(min_length=1)]
    teachers: Annotated[list[str], Field(min_length=1)]
    example_seconds: Positive


class Sweep(Section):
    """Search over the loss weights."""

    run: str
    trials: Count
    concurrent: Count
    max_steps: Count
    grace_steps: Count
    reduction: Annotated[int, Field(ge=2)]
    weight_range: tuple[Positive, Positive]
    task: str


class Tracking(Section):
    """Where MLflow listens."""

    uri: str | None
    experiment: Annotated[str, Field(min_length=1)]


class Catalog(Section):
    """Where the lineage catalog lies."""

    url: str | None


# A named run may change any field of `Pretrain`, and must give none of the others.
RunChanges = create_model(
    "RunChanges",
    __base__=Section,
    **{name: (field.annotation | None, None) for name, field in Pretrain.model_fields.items()},  # type: ignore[call-overload,operator]
)


class Config(Section):
    """The whole of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    corpus: Corpus
    probe_set: ProbeSet
    pieces: Pieces
    teachers: dict[str, dict[str, Any] | None]
    targets: Targets
    pretrain: Pretrain
    runs: dict[str, RunChanges]  # type: ignore[valid-type]
    datasets: Datasets
    probe: Probe
    report: Report
    sweep: Sweep
    storage: Storage
    tracking: Tracking
    catalog: Catalog

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Self:
        for name in self.runs:
            self.run(name)
        for name in self.report.runs:
            if name not in self.runs:
                raise ValueError(f"report.runs names {name!r}; runs has {sorted(self.runs)}")
        if self.sweep.run not in self.runs:
            raise ValueError(f"sweep.run is {self.sweep.run!r}; runs has {sorted(self.runs)}")
        if self.probe.floor_run not in self.runs:
            raise ValueError(f"probe.floor_run is {self.probe.floor_run!r}; runs has {sorted(self.runs)}")
        return self

    def run(self, name: str) -> Pretrain:
        """Return the parameters of a named run: the base with the run's changed lines.

        Raises:
            MertError: no such run, or its changes make an impossible whole.
        """
        if name not in self.runs:
            raise MertError(f"no run is named {name!r}; params.yaml has {', '.join(sorted(self.runs))}")
        changes = self.runs[name].model_dump(exclude_none=True)  # type: ignore[attr-defined]
        try:
            return Pretrain.model_validate({**self.pretrain.model_dump(), **changes})
        except ValidationError as error:
            raise MertError(explain(error, f"runs.{name}")) from error


def explain(error: ValidationError, where: str) -> str:
    """Return what pydantic found wrong, one line per key."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(the whole)"
        found = "" if item["type"] in {"missing", "value_error"} else f" (found {item['input']!r})"
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"  {key}: {message}{found}")
    return f"{where} has {len(lines)} error(s):\n" + "\n".join(lines)


def _override(tree: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator:
        raise MertError(f"-S {assignment!r}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for part in parents:
        if not isinstance(node.get(part), dict):
            raise MertError(f"-S {assignment!r}: there is no section {part!r}")
        node = node[part]
    in_run = len(parents) == 2 and parents[0] == "runs"  # a run may add any field of `pretrain`
    if leaf not in node and not in_run:
        raise MertError(
            f"-S {assignment!r}: unknown key {key!r}; {'.'.join(parents) or 'the file'} has {', '.join(map(str, node))}"
        )
    node[leaf] = yaml.safe_load(text)


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check ``params.yaml``.

    Args:
        path: the YAML file.
        overrides: assignments ``section.key=value``; values are YAML.

    Raises:
        MertError: unreadable file, unknown key, missing key or impossible value; the message names each key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(f"cannot read the parameters {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise MertError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise MertError(f"{path} holds {type(tree).__name__}; expected sections (corpus, teachers, …)")
    for assignment in overrides or []:
        _override(tree, assignment)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise MertError(explain(error, path.name)) from error
