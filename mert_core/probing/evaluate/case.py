"""What a judge is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.datasets.base import ClipSet
from mert_core.probing.tasks import Task

if TYPE_CHECKING:
    from mert_core.config import ProbeConfig
    from mert_core.probing.encoders.base import Encoder


@dataclass(frozen=True)
class EvalInputs:
    """One task, its clips and the encoder that is asked.

    Attributes:
        task: the declaration.
        clips: in their official splits.
        encoder: frozen.
        settings: the section ``probe`` as it holds for this task.
        seed: of intervals and of draws that are no probe's.
        caches: where embeddings are kept; None: nowhere.
        before_test: called once with the chosen input and rate, before the test split's answers are looked at; it
            raises where the test set was read before under another choice.
    """

    task: Task
    clips: ClipSet
    encoder: Encoder
    settings: ProbeConfig
    seed: int
    caches: Path | None
    before_test: Callable[[int | str, float], None]
