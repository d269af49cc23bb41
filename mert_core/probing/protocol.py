"""The protocol of a task, whose hash stands beside each score, and the log that lets a test set be read once.

Two scores are compared only if their protocols have the same hash. Before an encoder's test predictions are made,
`note_test_read` notes what was chosen; the same encoder is refused the same test set under another choice.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.probing.evaluate import EVALUATORS
from mert_core.probing.tasks import Task

if TYPE_CHECKING:
    from mert_core.config import Config, ProbeConfig

_RUN_SETTINGS = {"tasks", "workers", "baseline_run", "mel_bins", "robustness", "demo"}
"""Keys of the section ``probe`` that are about a run of the stage, not about how one task is scored."""


def settings_of(config: Config, task: Task) -> ProbeConfig:
    """Return how a task is probed: the section ``probe``, with a proxy's own values and the task's limit of epochs."""
    probe = config.probe.of_demo() if task.is_proxy else config.probe
    return probe.model_copy(update={"max_epochs": min(probe.max_epochs, task.max_epochs)})


def protocol_hash(config: Config, task: Task) -> str:
    """Return the SHA-256 of a task's whole protocol."""
    evaluator = EVALUATORS[task.kind]
    other_sections = {other.section for other in EVALUATORS.values() if other.section} - {evaluator.section}
    declared = asdict(task)
    for name in ("changed_by", "proxy_changed_by", "proxy_serves"):  # about robustness and sweeps: they move no score
        del declared[name]
    protocol = {
        "task": declared,
        "probe": settings_of(config, task).model_dump(mode="json", exclude=_RUN_SETTINGS | other_sections),
        "seed": config.seed,
        "embedding": "windows side by side, nothing padded; mean over time, or all frames, of every hidden state; "
        "float16",
        "features": "standardised with the training split's mean and deviation, every encoder alike",
        "selection": "epoch: each probe's own validation score; input and rate: validation score averaged over seeds; "
        "the task's first metric over the whole split",
        **evaluator.rules,
    }
    return sha256_json(protocol)


def hash_of_tracks(tracks: Sequence[tuple[str, str]]) -> str:
    """Return the hash of a test set: (id, identity of the sound) of every track, in any order."""
    return sha256_json(sorted([list(track) for track in tracks]))


def note_test_read(
    state: Path, *, task: str, model: str, test_set: str, input: int | str, rate: float, protocol: str
) -> None:
    """Note in the log, which only grows, that a test set is about to be read.

    Args:
        state: folder of what belongs to this checkout alone, where the log lies.
        task: name of the task.
        model: fingerprint of the encoder.
        test_set: hash from `hash_of_tracks`.
        input: hidden state that was chosen on validation, or ``weighted``.
        rate: learning rate that was chosen.
        protocol: hash of the whole protocol.

    Raises:
        MertError: the same model has read the same test set under another choice, or the log is damaged.
    """
    path = state / "test-reads.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    choice: dict[str, Any] = {"input": input, "rate": rate, "protocol": protocol}
    line = {"task": task, "model": model, "test_set": test_set, **choice}
    with path.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        try:
            reads = [json.loads(text) for text in stream]
        except json.JSONDecodeError as error:
            raise MertError(
                f"{path} is no list of test reads ({error}). Restore it; without it nobody knows what was read."
            ) from error
        for earlier in reads:
            if any(earlier[name] != line[name] for name in ("task", "model", "test_set")):
                continue
            if earlier == line:
                return
            differs = [
                f"{name} was {str(earlier[name])[:12]}, now {str(value)[:12]}"
                for name, value in choice.items()
                if earlier[name] != value
            ]
            raise MertError(
                f"this model has read the test set of {task} before, under another choice ({'; '.join(differs)}). To "
                "read it again would be to choose on test. Keep the first score, or take the first protocol again; if "
                f"the first reading was a mistake that you will report, remove its line from {path}."
            )
        stream.write(json.dumps(line, sort_keys=True) + "\n")
