"""The ledger of test reads: who read which test set under which choice, so that nobody chooses on test unnoticed.

A model may read a task's test set once. Reading it again under the same choice (the same input, rate and protocol) is a
repetition and changes nothing; under another choice it is refused. Stand-ins are not kept here: the line is run again
whenever a parameter changes, and their figures are never compared with published ones.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mert_core.errors import MertError
from mert_core.files import sha256_json

NAME = "test-reads.jsonl"


@dataclass(frozen=True)
class Choice:
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


class Ledger:
    """An append-only file of test reads in the local state.

    Args:
        state: the folder of local state.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / NAME

    def read(self, task: str, model: str, test_set: str, choice: Choice) -> None:
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
