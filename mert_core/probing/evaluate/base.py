"""What every evaluator has in common: what it is given, what it says of itself, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mert_core.config import Split
from mert_core.datasets.base import ClipSet
from mert_core.errors import MertError
from mert_core.probing.embeddings import Embeddings, embeddings
from mert_core.probing.probe_bank import ProbeSettings
from mert_core.probing.results import TaskResult
from mert_core.probing.tasks import Task, TaskKind, robustness_tasks

if TYPE_CHECKING:
    from mert_core.config import ProbeConfig
    from mert_core.probing.encoders.base import Encoder


@dataclass(frozen=True)
class EvalInputs:
    """One task, its clips and the encoder that is probed.

    Attributes:
        task: its declaration.
        clips: labelled clips in their official splits.
        encoder: the frozen encoder.
        settings: the section ``probe`` as it holds for this task.
        seed: of intervals, and of all draws but those of the probes.
        caches: folder where embeddings are kept; None: they are kept nowhere.
        before_test: called once with the chosen input and rate, before the labels of the test split are read; it
            raises where the test set was read before under another choice.
    """

    task: Task
    clips: ClipSet
    encoder: Encoder
    settings: ProbeConfig
    seed: int
    caches: Path | None
    before_test: Callable[[int | str, float], None]

    @property
    def probe_settings(self) -> ProbeSettings:
        """How the parameters say probes are trained."""
        settings = self.settings
        return ProbeSettings(
            settings.hidden,
            settings.dropout,
            settings.batch_items,
            settings.max_epochs,
            settings.patience,
            settings.plateau_patience,
            settings.plateau_factor,
        )

    @property
    def wants_robustness(self) -> bool:
        """Whether the chosen probes are scored on degraded music, too."""
        return self.task.name in robustness_tasks(self.settings)

    def embed(self) -> Embeddings:
        """Return the embeddings of all clips, in their order."""
        task, sounds = self.task, [clip.sound for clip in self.clips.clips]
        return embeddings(self.encoder, sounds, task.chunking, task.pooling, self.caches, task.name)

    def usable(self, embedded: Embeddings, split: Split) -> list[int]:
        """Return the indices of the clips of a split that could be embedded.

        Raises:
            MertError: there is none.
        """
        clips = enumerate(self.clips.clips)
        indices = [i for i, clip in clips if clip.split == split and i not in embedded.missing]
        if not indices:
            self.refuse_empty(embedded, split, "it has none")
        return indices

    def refuse_empty(self, embedded: Embeddings, split: Split, otherwise: str) -> None:
        """Raise a `MertError` that says why no clip of a split is left, or ``otherwise`` where none was left out."""
        reasons = ", ".join(f"{count} × {why}" for why, count in Counter(embedded.missing.values()).most_common())
        raise MertError(f"{self.task.name}: no clip of the {split} split can be used ({reasons or otherwise})")


class Evaluator(ABC):
    """How tasks of one kind of answer are scored: train on training clips, choose on validation, score test clips once.

    Attributes:
        kind: kind of answer that it scores.
        rules: what of the protocol holds for this kind alone; its hash stands beside each score.
        section: subsection of ``probe`` in ``params.yaml`` that only this kind reads; None: there is none.
    """

    kind: ClassVar[TaskKind]
    rules: ClassVar[Mapping[str, str]]
    section: ClassVar[str | None] = None

    @abstractmethod
    def evaluate(self, inputs: EvalInputs) -> TaskResult:
        """Return the scores of the test split.

        Raises:
            MertError: a split has no usable clip, or the model has diverged.
        """
