"""What a probed encoder leaves: scores, layers, robustness and answers, the same to the byte when run again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mert_core.files import write_json
from mert_core.probe.answers import answers_path
from mert_core.probe.verdict import Verdict

SCORES_NAME, LAYERS_NAME, ROBUSTNESS_NAME = "scores.json", "layers.json", "robustness.json"


@dataclass(frozen=True)
class Result:
    """One task's outcome for one encoder.

    Attributes:
        task: its name.
        verdict: the scores; None where the task was skipped.
        skipped: why, else empty.
        protocol: hash of the task's whole protocol.
        left_out: reason → clips that could not be used.
        test_set: hash of the test tracks and their sound.
        encoder: `mert_core.probe.encoders.identity` of who was asked.
        robustness: deformation → points, where it was asked for.
    """

    task: str
    verdict: Verdict | None = None
    skipped: str = ""
    protocol: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    test_set: str = ""
    encoder: str = ""
    robustness: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def score(self) -> dict[str, Any]:
        """The task's entry in ``scores.json``."""
        assert self.verdict is not None
        verdict = self.verdict
        return {
            "metric": verdict.metric,
            **asdict(verdict.summary),
            "metrics": {name: asdict(figure) for name, figure in verdict.metrics.items()},
            "tracks": verdict.tracks,
            "classes": verdict.classes,
            "input": verdict.input,
            "rate": verdict.rate,
            "validation": verdict.validation,
            "per_seed": verdict.per_seed,
            "protocol": self.protocol,
            "test_set": self.test_set,
            "left_out": dict(sorted(self.left_out.items())),
        }


def write_results(folder: Path, name: str, results: list[Result]) -> None:
    """Write all files of one encoder to a folder that exists."""
    scored = [(result, result.verdict) for result in results if result.verdict is not None]
    tasks = {result.task: result.score for result, _ in scored}
    skipped = {result.task: result.skipped for result in results if result.verdict is None}
    write_json(folder / SCORES_NAME, {"run": name, "tasks": tasks, "skipped": skipped})
    write_json(
        folder / LAYERS_NAME, {result.task: [list(row) for row in verdict.by_input] for result, verdict in scored}
    )
    write_json(folder / ROBUSTNESS_NAME, {result.task: result.robustness for result, _ in scored if result.robustness})
    for result, verdict in scored:
        verdict.answers.save(answers_path(folder, result.task))
