"""The protocol of a task, whose hash stands beside each score, and the log that lets a test set be read once.

Two scores are compared only if their protocols have the same hash. Before an encoder's test predictions are made,
`TestReadLog.read` notes what was chosen; the same encoder is refused the same test set under another choice.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.tasks import Task

if TYPE_CHECKING:
    from mert_core.config import Config, ProbeConfig


EMBEDDING = "windows side by side, nothing padded; mean over time, or all frames, of every hidden state; float16"
FEATURES = "standardised with the training split's mean and deviation, every encoder alike"
SELECTION = (
    "epoch: each probe's own validation score; input and rate: validation score averaged over seeds; "
    "the task's first metric over the whole split"
)


def settings_of(config: Config, task: Task) -> ProbeConfig:
    """Return how a task is probed: the section ``probe``, with a proxy's own values and the task's limit of epochs."""
    probe = config.probe.of_demo() if task.is_demo else config.probe
    return probe.model_copy(update={"max_epochs": min(probe.max_epochs, task.max_epochs)})


_RUN_SETTINGS = {"tasks", "workers", "floor_run", "mel_bins", "robustness", "demo"}
"""Keys of the section ``probe`` that are about a run of the stage, not about how one task is scored."""


def protocol_of(config: Config, task: Task) -> dict[str, Any]:
    """Return a task's whole protocol as JSON."""
    evaluator = EVALUATORS[task.kind]
    other_sections = {other.section for other in EVALUATORS.values() if other.section} - {evaluator.section}
    declared = asdict(task)
    for name in ("changed_by", "proxy_changed_by", "proxy_serves"):  # about robustness and sweeps: they move no score
        del declared[name]
    return {
        "task": declared,
        "probe": settings_of(config, task).model_dump(mode="json", exclude=_RUN_SETTINGS | other_sections),
        "seed": config.seed,
        "embedding": EMBEDDING,
        "features": FEATURES,
        "selection": SELECTION,
        **evaluator.rules,
    }


def protocol_hash(config: Config, task: Task) -> str:
    """Return the protocol's SHA-256."""
    return sha256_json(protocol_of(config, task))


LOG_NAME = "test-reads.jsonl"


@dataclass(frozen=True)
class SettledChoice:
    """What was chosen on validation before the test set is read.

    Attributes:
        input: hidden state, or ``weighted``.
        rate: learning rate.
        protocol: hash of the whole protocol.
    """

    input: int | str
    rate: float
    protocol: str


def hash_of_tracks(tracks: Sequence[tuple[str, str]]) -> str:
    """Return the hash of a test set: (id, identity of the sound) of every track, in any order."""
    return sha256_json(sorted([list(track) for track in tracks]))


class TestReadLog:
    """An append-only file of test reads in the local state.

    Args:
        state: folder of what belongs to this checkout alone.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / LOG_NAME

    def read(self, task: str, model: str, test_set: str, choice: SettledChoice) -> None:
        """Note that a test set is about to be read.

        Args:
            task: name of the task.
            model: fingerprint of the encoder.
            test_set: hash from `hash_of_tracks`.
            choice: input, rate and protocol.

        Raises:
            MertError: the same model has read the same test set under another choice, or the log is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"task": task, "model": model, "test_set": test_set, **asdict(choice)}
        with self.path.open("a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            for earlier in self._lines(stream.read()):
                if any(earlier[name] != line[name] for name in ("task", "model", "test_set")):
                    continue
                if earlier == line:
                    return
                raise MertError(self._refusal(earlier, line))
            stream.write(json.dumps(line, sort_keys=True) + "\n")

    def _lines(self, text: str) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in text.splitlines()]
        except json.JSONDecodeError as error:
            raise MertError(
                f"{self.path} is no list of test reads ({error}). Restore it; without it nobody knows what was read."
            ) from error

    def _refusal(self, earlier: dict[str, Any], line: dict[str, Any]) -> str:
        differs = [
            f"{name} was {str(earlier[name])[:12]}, now {str(line[name])[:12]}"
            for name in ("input", "rate", "protocol")
            if earlier[name] != line[name]
        ]
        return (
            f"this model has read the test set of {line['task']} before, under another choice ({'; '.join(differs)}). "
            "To read it again would be to choose on test. Keep the first score, or take the first protocol again; "
            f"if the first reading was a mistake that you will report, remove its line from {self.path}."
        )
