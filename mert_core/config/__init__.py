"""Typed parameters: one class per section of ``params.yaml``.

No class has a default: every knob stands in the file, so that a stage's parameters, as DVC hashes them, are all
there is to know.
"""

from mert_core.config.health import Health
from mert_core.config.music import DatasetName, PerSplit
from mert_core.config.pretrain import LossWeights, Pretrain, Start, Term
from mert_core.config.probe import Probe
from mert_core.config.reading import load_config
from mert_core.config.section import Count, NonNegative, Positive, Section, Split
from mert_core.config.targets import Gate
from mert_core.config.whole import Config, explain

__all__ = [
    "Config", "Count", "DatasetName", "Gate", "Health", "LossWeights", "NonNegative", "PerSplit", "Positive",
    "Pretrain", "Probe", "Section", "Split", "Start", "Term", "explain", "load_config",
]  # fmt: skip
