"""Typed parameters: one class per section of ``params.yaml``, with the defaults.

``params.yaml`` holds what a user changes; ``mert config`` prints the whole, with where each value comes from.
"""

from mert_core.config.config import BASELINES, MEL_STATISTICS, RANDOM_WEIGHTS, Config, TeacherInstance, explain
from mert_core.config.corpus import PerSplit
from mert_core.config.health import HealthConfig
from mert_core.config.load import describe_config, load_config
from mert_core.config.probe import ProbeConfig
from mert_core.config.run import LossTerm, LossWeights, ModelChoice, PretrainConfig, WarmStart
from mert_core.config.section import Count, Name, NonNegative, Positive, Section, Split
from mert_core.config.targets import GateConfig

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
    "ModelChoice",
    "Name",
    "NonNegative",
    "PerSplit",
    "Positive",
    "PretrainConfig",
    "ProbeConfig",
    "Section",
    "Split",
    "TeacherInstance",
    "WarmStart",
    "describe_config",
    "explain",
    "load_config",
]
