"""All that two scores must have in common to be compared; its hash stands beside each score."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mert_core.files import sha256_json
from mert_core.probe.tasks import Kind, Task

if TYPE_CHECKING:
    from mert_core.config import Config, Probe

EMBEDDING = "windows side by side, nothing padded; mean over time, or all frames, of every hidden state; float16"
FEATURES = "standardised with the training split's mean and deviation, every encoder alike"
SELECTION = (
    "epoch: each probe's own validation score; input and rate: validation score averaged over seeds; "
    "the task's first metric over the whole split"
)
RULES: dict[Kind, dict[str, str]] = {
    Kind.SINGLE: {"loss": "cross-entropy", "track": "mean of its windows' logits"},
    Kind.MULTI: {"loss": "binary cross-entropy per tag", "track": "mean of its windows' logits"},
    Kind.REGRESSION: {"loss": "squared error of standardised targets", "track": "mean of its windows' predictions"},
    Kind.BEATS: {
        "loss": "binary cross-entropy per frame, beats widened by one frame",
        "epoch": "frame-wise average precision on validation",
        "decoder": "bar-pointer model of one beat, 55 to 215 beats per minute, transition 100, observation 16",
        "scored": "beats from 5 s on, as mir_eval has it; all beats of clips shorter than 15 s",
    },
    Kind.STEMS: {
        "loss": "squared error of magnitudes, one head per stem, STFT 2048/320",
        "input": "learned weighted sum",
        "epoch": "squared error of magnitudes on validation",
        "training": "remixes of stems of any tracks, gain .25 to 1.25, channels swapped, drawn once for all seeds",
        "decoder": "one Wiener EM iteration, no residual",
        "scored": "10 log10 of whole tracks' energies, mean over tracks; museval: median of 1 s, median over tracks",
    },
}


def settings_of(config: Config, task: Task) -> Probe:
    """Return how a task is probed: the section ``probe``, with what differs for stand-ins and the task's own limit."""
    probe = config.probe.of_demo() if task.is_demo else config.probe
    return probe.model_copy(update={"max_epochs": min(probe.max_epochs, task.max_epochs)})


def protocol_of(config: Config, task: Task) -> dict[str, Any]:
    """Return a task's whole protocol as JSON."""
    unlike = {"tasks", "workers", "floor_run", "mel_bins", "robustness", "demo"}
    kinds = {"beats": Kind.BEATS, "separation": Kind.STEMS}
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
