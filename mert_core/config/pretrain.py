"""Sections about pre-training, and the named runs that change them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, create_model, model_validator

from mert_core.config.health import HealthConfig
from mert_core.config.section import Count, NonNegative, Positive, Section, Share

Preset = Literal["mert-tiny", "mert-95m", "mert-330m"]


class LossTerm(Section):
    """A teacher that the student predicts, where its targets come from, and the weight of its loss."""

    teacher: Annotated[str, Field(min_length=1)]
    targets: Literal["stored", "online", "crop"]
    weight: NonNegative


class LossWeights(Section):
    """Weights of the pre-training loss terms that belong to no teacher."""

    feature_penalty: NonNegative
    unmasked: Share


class WarmStart(Section):
    """A checkpoint to start from: its folder, what it must hash to, and whether its heads are taken over."""

    folder: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    heads: Literal["stored", "fresh"]


class PretrainConfig(Section):
    """One pre-training run."""

    preset: Preset
    start: WarmStart | None
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
    teachers: Annotated[list[LossTerm], Field(min_length=1)]
    weights: LossWeights
    precision: Literal["fp32", "bf16"]
    activation_checkpointing: bool
    compile: bool
    sharding: Literal["none", "full"]
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_every: Count
    checkpoint_keep: Count
    health: HealthConfig
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


# A named run may change any field of `PretrainConfig`, and must give none of the others.
RunChanges = create_model(
    "RunChanges",
    __base__=Section,
    **{name: (field.annotation | None, None) for name, field in PretrainConfig.model_fields.items()},  # type: ignore[call-overload,operator]
)
