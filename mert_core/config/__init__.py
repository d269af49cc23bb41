"""Typed parameters: one class per section of ``params.yaml``.

No class has a default: every knob stands in the file, so that a stage's parameters, as DVC hashes them, are all
there is to know.
"""

from mert_core.config.health import HealthConfig
from mert_core.config.music import DatasetName, PerSplit
from mert_core.config.pretrain import LossTerm, LossWeights, PretrainConfig, WarmStart
from mert_core.config.probe import ProbeConfig
from mert_core.config.reading import load_config
from mert_core.config.section import Count, NonNegative, Positive, Section, Split
from mert_core.config.targets import GateConfig
from mert_core.config.whole import Config, explain

__all__ = [
    "Config",
    "Count",
    "DatasetName",
    "GateConfig",
    "HealthConfig",
    "LossTerm",
    "LossWeights",
    "NonNegative",
    "PerSplit",
    "Positive",
    "PretrainConfig",
    "ProbeConfig",
    "Section",
    "Split",
    "WarmStart",
    "explain",
    "load_config",
]
