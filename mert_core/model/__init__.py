"""The student: front end, encoder, heads, sizes, checkpoints."""

from mert_core.model.config import PRESETS, MertConfig
from mert_core.model.export import export_hubert
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel, MertOutput

__all__ = ["PRESETS", "Heads", "MertConfig", "MertModel", "MertOutput", "export_hubert"]
