"""Sections about probing, and about the search that is judged by a probe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mert_core.config.section import Count, Positive, Section


class BeatsConfig(Section):
    """Per-frame probes of beats."""

    batch_frames: Count
    frames_share: Annotated[float, Field(gt=0, le=1)]


class SeparationConfig(Section):
    """Open-Unmix-style heads on frozen features."""

    hidden: Count
    layers: Count
    mixes_per_track: Count
    batch_mixes: Count
    crop_frames: Annotated[int, Field(ge=0)]
    every_frames: Count
    rates: Annotated[list[Positive], Field(min_length=1)]
    max_epochs: Count


class RobustnessConfig(Section):
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
    beats: BeatsConfig
    separation: SeparationConfig


class ProbeConfig(Section):
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
    beats: BeatsConfig
    separation: SeparationConfig
    robustness: RobustnessConfig
    demo: DemoChanges

    def of_demo(self) -> ProbeConfig:
        """Return the section with what differs for the stand-ins."""
        return self.model_copy(update={name: getattr(self.demo, name) for name in DemoChanges.model_fields})


class SweepConfig(Section):
    """Search over the loss weights."""

    run: str
    trials: Count
    concurrent: Count
    max_steps: Count
    grace_steps: Count
    reduction: Annotated[int, Field(ge=2)]
    weight_range: tuple[Positive, Positive]
    task: str
