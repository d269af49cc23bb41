"""Typed parameters: one class per section of ``params.yaml``, with the defaults.

``params.yaml`` holds what a user changes; ``mert config`` prints the whole, with where each value comes from.
"""

from mert_core.config.config import (
    BASELINES,
    MEL_STATISTICS,
    RANDOM_WEIGHTS,
    Config,
    TeacherInstance,
    describe_config,
    explain,
    load_config,
)
from mert_core.config.data import GateConfig, PerSplit
from mert_core.config.probe import ProbeConfig, SweepConfig
from mert_core.config.run import HealthConfig, LossTerm, LossWeights, PretrainConfig, WarmStart
from mert_core.config.section import Count, Name, NonNegative, Positive, Section, Split

__all__ = [
    "BASELINES",
    "MEL_STATISTICS",
    "RANDOM_WEIGHTS",
    "Config",
    "Count",
    "GateConfig",
    "HealthConfig",
    "LossTerm",
    "LossWeights",
    "Name",
    "NonNegative",
    "PerSplit",
    "Positive",
    "PretrainConfig",
    "ProbeConfig",
    "Section",
    "Split",
    "SweepConfig",
    "TeacherInstance",
    "WarmStart",
    "describe_config",
    "explain",
    "load_config",
]
