"""All that two scores must have in common to be compared; its hash stands beside each score."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.probing.tasks import Task, TaskKind

if TYPE_CHECKING:
    from mert_core.config import Config, ProbeConfig


EMBEDDING = "windows side by side, nothing padded; mean over time, or all frames, of every hidden state; float16"
FEATURES = "standardised with the training split's mean and deviation, every encoder alike"
SELECTION = (
    "epoch: each probe's own validation score; input and rate: validation score averaged over seeds; "
    "the task's first metric over the whole split"
)
RULES: dict[TaskKind, dict[str, str]] = {
    TaskKind.SINGLE: {"loss": "cross-entropy", "track": "mean of its windows' logits"},
    TaskKind.MULTI: {"loss": "binary cross-entropy per tag", "track": "mean of its windows' logits"},
    TaskKind.REGRESSION: {"loss": "squared error of standardised targets", "track": "mean of its windows' predictions"},
    TaskKind.BEATS: {
        "loss": "binary cross-entropy per frame, beats widened by one frame",
        "epoch": "frame-wise average precision on validation",
        "decoder": "bar-pointer model of one beat, 55 to 215 beats per minute, transition 100, observation 16",
        "scored": "beats from 5 s on, as mir_eval has it; all beats of clips shorter than 15 s",
    },
    TaskKind.STEMS: {
        "loss": "squared error of magnitudes, one head per stem, STFT 2048/320",
        "input": "learned weighted sum",
        "epoch": "squared error of magnitudes on validation",
        "training": "remixes of stems of any tracks, gain .25 to 1.25, channels swapped, drawn once for all seeds",
        "decoder": "one Wiener EM iteration, no residual",
        "scored": "10 log10 of whole tracks' energies, mean over tracks; museval: median of 1 s, median over tracks",
    },
}


def settings_of(config: Config, task: Task) -> ProbeConfig:
    """Return how a task is probed: the section ``probe``, with what differs for stand-ins and the task's own limit."""
    probe = config.probe.of_demo() if task.is_demo else config.probe
    return probe.model_copy(update={"max_epochs": min(probe.max_epochs, task.max_epochs)})


def protocol_of(config: Config, task: Task) -> dict[str, Any]:
    """Return a task's whole protocol as JSON."""
    unlike = {"tasks", "workers", "floor_run", "mel_bins", "robustness", "demo"}
    kinds = {"beats": TaskKind.BEATS, "separation": TaskKind.STEMS}
    unlike |= {section for section, kind in kinds.items() if task.kind is not kind}
    return {
        "task": asdict(task),
        "probe": settings_of(config, task).model_dump(mode="json", exclude=unlike),
        "seed": config.seed,
        "embedding": EMBEDDING,
        "features": FEATURES,
        "selection": SELECTION,
        **RULES[task.kind],
    }


def protocol_hash(config: Config, task: Task) -> str:
    """Return the protocol's SHA-256."""
    return sha256_json(protocol_of(config, task))


NAME = "test-reads.jsonl"


@dataclass(frozen=True)
class SettledChoice:
    """What was settled before the test set was read.

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
        state: the folder of local state.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / NAME

    def read(self, task: str, model: str, test_set: str, choice: SettledChoice) -> None:
        """Note that a test set is about to be read.

        Args:
            task: its name.
            model: fingerprint of the encoder.
            test_set: from `hash_of_tracks`.
            choice: what was chosen on validation.

        Raises:
            MertError: the same model has read the same test set under another choice, or the ledger is damaged.
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
