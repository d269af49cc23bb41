"""Tasks with one answer per clip: a class, tags or values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mert_core.config import Split
from mert_core.datasets.base import Clip
from mert_core.probing.evaluate.base import EmbeddedClips, EvalInputs, ProbeEvaluator
from mert_core.probing.features import mean_over_tracks
from mert_core.probing.metrics import METRICS
from mert_core.probing.probe_bank import ProbeLoss
from mert_core.probing.results import Predictions
from mert_core.probing.selection import Selection, select
from mert_core.probing.tasks import TaskKind
from mert_core.probing.train import Examples, TrainedProbes


class ClipEvaluator(ProbeEvaluator):
    """Scores a probe of each window; a clip's output is the mean over its windows."""

    @abstractmethod
    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[Any]:
        """Return the labels of clips as numbers, in the form that the kind's metrics take."""

    def select(self, inputs: EvalInputs) -> Selection:
        """Train and choose on validation; inputs without test clips will do."""
        train, valid = self._examples(inputs, "train"), self._examples(inputs, "valid")
        assert valid.track_truth is not None
        return select(
            train,
            valid,
            ProbeLoss(self.kind.value, len(inputs.clips.classes)),  # type: ignore[arg-type]
            inputs.probe_settings,
            partial(METRICS[inputs.task.metrics[0]], valid.track_truth),
            rates=inputs.settings.rates,
            seeds=inputs.settings.seeds,
            name=inputs.task.name,
            device=inputs.encoder.device,
        )

    def _examples(self, inputs: EvalInputs, split: Split) -> Examples:
        # A probe cannot learn a class that has no output.
        used = inputs.usable(split, with_class=split == "train" and self.kind is TaskKind.SINGLE)
        owners = used.embedded.owners(used.indices)
        return Examples.of_tracks(used.features, owners, self.truth(inputs.clips.classes, used.clips))

    def predict(self, inputs: EvalInputs, trained: TrainedProbes, clips: EmbeddedClips) -> Predictions:
        """Return the outputs of clips, each the mean over its windows."""
        owners, classes = clips.embedded.owners(clips.indices), inputs.clips.classes
        outputs = mean_over_tracks(trained.predict(clips.features), owners, len(clips.clips))
        return Predictions(clips.ids, inputs.task.metrics, classes, self.truth(classes, clips.clips), outputs)


class ClassEvaluator(ClipEvaluator):
    """One class of several."""

    kind = TaskKind.SINGLE
    rules: ClassVar = {"loss": "cross-entropy", "track": "mean of its windows' logits"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Return class indices (clips,), −1 for a label that is no class."""
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(clip.label, -1) for clip in clips], dtype=np.int64)


class TagEvaluator(ClipEvaluator):
    """Any number of tags."""

    kind = TaskKind.MULTI
    rules: ClassVar = {"loss": "binary cross-entropy per tag", "track": "mean of its windows' logits"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Return tags as 0 and 1 (clips, classes)."""
        return np.array([[name in set(clip.label) for name in classes] for clip in clips], dtype=np.int64)


class ValueEvaluator(ClipEvaluator):
    """One value or several."""

    kind = TaskKind.REGRESSION
    rules: ClassVar = {"loss": "squared error of standardised targets", "track": "mean of its windows' predictions"}

    def truth(self, classes: Sequence[str], clips: Sequence[Clip]) -> NDArray[np.float64]:
        """Return values (clips, classes)."""
        return np.array([clip.label for clip in clips], dtype=np.float64)
