"""A pre-training run: whatever can differ between two experiments is a field. The defaults are MERT-95M's."""

# mypy: disable-error-code="assignment, list-item"
# Defaults of inner sections are dictionaries, as `mert_core.config.section` says.

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from mert_core.config.section import Count, Name, NonNegative, Positive, Section, Share, Whole

Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class ModelChoice(Section):
    """The student's shape: a preset, and the fields of `mert_core.model.config.MertConfig` that differ from it.

    For example ``{preset: mert-tiny, hidden_size: 192, feature_extractor_cqt: false}``. Names and values are checked
    where the shape is built, before any work.
    """

    model_config = ConfigDict(extra="allow")

    preset: str = "mert-95m"

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields that differ from the preset."""
        return dict(self.model_extra or {})


class LossTerm(Section):
    """A teacher that the student predicts, where its targets come from, and the weight of its loss."""

    teacher: Name  # an instance of ``teachers``, or a class of `mert_core.teachers.registry` with its defaults
    # stored: made by ``mert targets`` · online: computed in the training step from what the teacher needs of the track,
    # and equal to the stored ones · crop: computed from the crop alone, with silence around it
    targets: Literal["stored", "online", "crop"] = "stored"
    weight: NonNegative = 1.0  # a term of weight 0 is left out


class LossWeights(Section):
    """Weights of the loss terms that belong to no teacher."""

    feature_penalty: NonNegative = 10.0  # weight of the mean square of the convolution features (published: 10)
    unmasked: Share = 0.0  # weight of the same losses at frames that are not masked (fairseq's ``pred_nomask_weight``)


class WarmStart(Section):
    """A checkpoint to start from, as ``mert import`` prints it."""

    folder: Annotated[str, Field(min_length=1)]  # its folder, absolute or relative to the checkout
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # what configuration and weights hash to
    heads: Literal["stored", "fresh"]  # stored: its pre-training heads are taken over · fresh: they begin anew


FaultAction = Literal["warn", "skip", "rollback", "stop"]
"""warn: say it · skip: leave the update out · rollback: to the last good state, at a lower rate · stop: end the run."""
ModelAction = Literal["warn", "rollback", "stop"]
"""What can be done about a fault of the model itself, of which no single update is to blame."""


class LossBound(Section):
    """A measure of loss or gradient, judged before each update is made; above the bound is a fault."""

    above: Positive
    action: FaultAction


class DeadCodes(Section):
    """A share of a codebook's entries; above the bound is a fault."""

    above: Share
    action: ModelAction


class ModelBound(Section):
    """A measure of the model; below the bound is a fault."""

    below: Positive
    action: ModelAction


class HealthConfig(Section):
    """What is watched during training, and what is done about each fault."""

    # updates between measures of the model, one forward pass each; losses and gradients: every update
    every: Count = 200
    nonfinite: Literal["skip", "rollback", "stop"] = "rollback"  # loss or gradient norm is NaN or infinite
    explosion: LossBound = {"above": 5.0, "action": "rollback"}  # the loss over that of the first update
    gradient_spike: LossBound = {"above": 10.0, "action": "warn"}  # the gradient norm over the median of the last 100
    silence: FaultAction = "warn"  # every clip of the global batch is silent
    # perplexity of the predictions over that of the teacher's codes, in the worst codebook
    perplexity: ModelBound = {"below": 0.1, "action": "warn"}
    # largest share of a codebook's entries that the student may give up after warm-up
    dead_codes: DeadCodes = {"above": 0.5, "action": "warn"}
    # effective rank of the embeddings; 1 means that all are alike
    effective_rank: ModelBound = {"below": 4.0, "action": "warn"}
    max_interventions: Whole = 5  # skips and rollbacks after which the run stops
    rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5  # factor on the learning rate after each rollback


class PretrainConfig(Section):
    """One pre-training run."""

    model: ModelChoice = ModelChoice()  # the student's shape
    # What it predicts at masked frames. Codes bring cross-entropies, summed over codebooks; spectra the squared error.
    teachers: Annotated[list[LossTerm], Field(min_length=1)] = [
        {"teacher": "encodec"},
        {"teacher": "cqt", "targets": "crop"},
    ]
    weights: LossWeights = LossWeights()
    seed: Whole | None = None  # seed of weights, crops, masks, noise and dropout; None: the seed of all stages
    # music of the training split to learn from: a random subset that is the same in every run, and contains that of
    # every smaller number; None: all
    hours: Positive | None = None
    start: WarmStart | None = None  # a checkpoint to start from; None: fresh weights
    workers: Whole = 1  # Ray workers; 0 trains in the stage's own process
    max_worker_failures: Whole = 3  # how often workers that die are replaced before the run stops
    crop_seconds: Annotated[float, Field(ge=0.5)] = 5.0  # length of a clip
    global_batch_size: Count = 1024  # clips per update, over all workers
    # Clips that a worker holds at a time; what is left of its share follows in further micro-batches. None: its whole
    # share at once.
    local_batch_size: Count | None = 16
    max_steps: Count = 250_000  # the released weights are of update 250,000
    warmup_steps: Whole = 32_000
    # updates until the learning rate has fallen to 0; None: ``max_steps``, or the warm-up where that is longer
    schedule_steps: Count | None = 400_000
    learning_rate: Positive = 5.0e-4
    adam_betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.98]
    adam_eps: Positive = 1.0e-6
    weight_decay: NonNegative = 0.01
    clip_norm: Positive = 10.0
    temperature: Positive = 0.1  # of the code logits; ``learn_temperature``: one per codebook, beginning with it
    learn_temperature: bool = False
    # all · random: one per batch · top: the first alone · bottom: the last alone
    acoustic_codebooks: Literal["all", "random", "top", "bottom"] = "all"
    mask_probability: Share = 0.8  # share of frames that spans would cover if they did not overlap
    mask_frames: Count = 5  # length of a masked span
    mask_trim_clips: Count = 16  # clips that share one number of masked frames (published: those of a worker)
    mixture_probability: Share = 0.5  # share of clips that others of the batch are mixed into
    mixture_snippets: Count = 3  # most snippets per clip
    mixture_seconds: Pair = [0.5, 1.0]  # shortest and longest snippet
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # fp32 · bf16 · auto: bf16 on a GPU, fp32 elsewhere
    # layers are computed again in the backward pass: less memory, a third more arithmetic
    activation_checkpointing: bool = False
    compile: bool = False  # ``torch.compile`` of the encoder layers; minutes at the start
    # none: a copy of the model on each worker · full: shared out among them (FSDP2)
    sharding: Literal["none", "full"] = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto · cpu · cuda; each worker decides for itself
    checkpoint_every: Count = 1000
    checkpoint_keep: Count = 2
    health: HealthConfig = HealthConfig()
    log_every: Count = 10
    validate_every: Count = 1000
    validate_batches: Count = 16

    @property
    def validation_clips(self) -> int:
        """Clips of a validation batch."""
        return self.local_batch_size or self.global_batch_size

    @property
    def decay_steps(self) -> int:
        """Updates until the learning rate has fallen to 0; a run that ends in its warm-up never gets there."""
        return self.schedule_steps or max(self.max_steps, self.warmup_steps + 1)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.warmup_steps >= self.decay_steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below schedule_steps ({self.decay_steps})")
        low, high = self.mixture_seconds
        if not low <= high <= self.crop_seconds:
            room = f"crop_seconds ({self.crop_seconds:g})"
            raise ValueError(f"mixture_seconds {[low, high]} must rise and fit into {room}")
        names = [term.teacher for term in self.teachers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"teachers names {', '.join(twice)} twice; each teacher has one entry")
        if not any(term.weight for term in self.teachers):
            raise ValueError("teachers gives every entry the weight 0; at least one must be above it")
        if self.global_batch_size < self.workers:
            needed = f"each of {self.workers} workers needs a clip"
            raise ValueError(f"global_batch_size is {self.global_batch_size}, but {needed}")
        return self
