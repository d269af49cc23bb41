"""Probing by MARBLE's constrained track (arXiv 2306.10548), and the search over loss weights that a probe judges."""

# mypy: disable-error-code="assignment"
# Defaults of inner sections are dictionaries, as `mert_core.config.section` says.

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mert_core.config.section import Count, Name, Positive, Section, Whole

Rates = Annotated[list[Positive], Field(min_length=1)]
HeadWidth = Annotated[int, Field(ge=2, multiple_of=2)]


class BeatsConfig(Section):
    """Probes of beats, frame by frame."""

    batch_frames: Count = 1024  # frames of any excerpts in a batch; a probe has no context but the encoder's
    # share of all frames, drawn once, to train on and to choose the epoch by; what is decoded is whole
    frames_share: Annotated[float, Field(gt=0, le=1)] = 1.0


class SeparationConfig(Section):
    """Open-Unmix's heads on frozen features, one per stem."""

    hidden: HeadWidth = 512  # half of it for each direction of the LSTM
    layers: Count = 3  # LSTM layers
    mixes_per_track: Count = 64  # remixes of 6 s, drawn once, so that their embeddings can be kept
    batch_mixes: Count = 16  # remixes in a batch
    crop_frames: Whole = 0  # frames of each mix and step, anywhere in it; 0: all
    every_frames: Count = 1  # masks are learned on each n-th frame; those between share most of their samples
    rates: Rates = [5.0e-4, 1.0e-3]  # learning rates that are tried
    max_epochs: Count = 100


class RobustnessConfig(Section):
    """Tasks that are asked again of deformed music."""

    tasks: list[str] | None = None  # names of tasks; None: those whose rows in `mert_core.probing.tasks` say so
    clips: Count = 40  # clips of the test split


class ProxyConfig(Section):
    """What differs for the proxy tasks, so that all fourteen end within minutes on two cores."""

    batch_items: Count = 64
    rates: Rates = [1.0e-3, 5.0e-3]
    max_epochs: Count = 15
    patience: Count = 4
    plateau_patience: Count = 2
    beats: BeatsConfig = {"batch_frames": 256, "frames_share": 0.125}
    separation: SeparationConfig = {
        "hidden": 64,
        "layers": 1,
        "mixes_per_track": 4,
        "batch_mixes": 8,
        "crop_frames": 75,
        "every_frames": 4,
        "rates": [5.0e-3],
        "max_epochs": 20,
    }


class ProbeConfig(Section):
    """Probing of a frozen encoder: which tasks, and MARBLE's protocol."""

    # names or patterns of the pipeline's tasks; one whose data set is not here is skipped, and the tables say so
    tasks: Annotated[list[str], Field(min_length=1)] = ["demo/*"]
    workers: Whole = 0  # Ray workers that share the tasks; 0: one after the other in this process
    hidden: Whole = 512  # units of the one hidden layer; 0: a linear probe
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_items: Count = 64
    rates: Rates = [5.0e-5, 1.0e-4, 5.0e-4, 1.0e-3, 5.0e-3, 1.0e-2]
    seeds: Annotated[list[int], Field(min_length=3)] = [0, 1, 2]
    max_epochs: Count = 100  # most epochs; a task may have fewer (NSynth 50)
    patience: Count = 10  # epochs without a better validation score until a probe stops
    plateau_patience: Count = 4  # … and until its rate falls by ``plateau_factor``
    plateau_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    bootstrap: Annotated[int, Field(ge=100)] = 1000  # resamples of the test tracks
    mel_bins: Count = 128  # bands of the mel-statistics baseline
    baseline_run: Name = "tiny"  # the run whose network, untrained, is the random-weights baseline
    beats: BeatsConfig = BeatsConfig()
    separation: SeparationConfig = SeparationConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    demo: ProxyConfig = ProxyConfig()  # what differs for the proxy tasks

    def of_demo(self) -> ProbeConfig:
        """Return the section with what differs for the proxy tasks."""
        return self.model_copy(update={name: getattr(self.demo, name) for name in ProxyConfig.model_fields})


class SweepConfig(Section):
    """Ray Tune with ASHA over the loss weights of one run."""

    run: Name = "tiny"
    trials: Count = 8  # sets of weights that are tried
    concurrent: Count = 1  # trials at a time
    max_steps: Count = 300  # updates of a trial that is not stopped early
    grace_steps: Count = 100  # updates before a trial may be stopped
    reduction: Annotated[int, Field(ge=2)] = 3  # of how many trials one goes on
    # log-uniform, for each teacher of the run
    weight_range: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.1, 100.0]
    task: str | None = None  # the probe whose validation score judges a trial; None: the one whose row says so
