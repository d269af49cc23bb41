"""All figures of the report: file name, caption, drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mert_core.report.figures.probes import layer_guide, robustness_curves, scores_against_floors
from mert_core.report.figures.style import look, save_png
from mert_core.report.figures.targets import teacher_example, usage
from mert_core.report.figures.training import cqt_example, loss_by_term
from mert_core.report.load import ReportData

Plan = tuple[str, str, str, Callable[[], Figure | None]]
"""Of one figure: name, heading, caption, drawing."""


@dataclass(frozen=True)
class Picture:
    """A figure on disk: where it lies, its heading and what to see in it."""

    path: Path
    heading: str
    caption: str


def draw_all(material: ReportData, example_seconds: float, folder: Path) -> list[Picture]:
    """Draw every figure into a folder, in the order of the report.

    Args:
        material: what the stages left.
        example_seconds: longest stretch of the CQT example.
        folder: existing folder for the PNG files.
    """
    plan: list[Plan] = [
        *_of_probes(material, material.stand_ins, "", "stand-ins"),
        *_of_probes(material, material.fourteen, "-fourteen", "fourteen tasks"),
        (
            "loss",
            "Loss by term",
            "Below the dashed line the student knows more than how often each code occurs: it has learned from the "
            "music around the mask. Terms are shown without their weights.",
            lambda: loss_by_term(material.trainings),
        ),
        *(
            (
                f"cqt-{training.run}",
                f"True against predicted spectrum · {training.run}",
                "One validation crop. The loss is taken at masked frames alone, where the student has to guess from "
                "what surrounds them.",
                lambda training=training: cqt_example(training, example_seconds),
            )
            for training in material.trainings
            if "true_cqt" in training.example
        ),
        *(
            (
                f"usage-{labels.teacher}",
                f"Codebook usage · {labels.teacher}",
                "A healthy teacher spreads its codes; a collapsed codebook would be a few dark cells and white.",
                lambda labels=labels: usage(labels.usage),
            )
            for labels in material.labels
            if labels.usage is not None and len(labels.usage) > 1
        ),
        *(
            (
                f"teacher-{labels.teacher}",
                f"What {labels.teacher} hears",
                f"An excerpt of the corpus and, below it, the targets of {labels.teacher}: {labels.kind}.",
                lambda labels=labels: teacher_example(labels.teacher, labels.example),
            )
            for labels in material.labels
        ),
    ]
    pictures = []
    with look():
        for name, heading, caption, draw in plan:
            figure = draw()
            if figure is not None:
                save_png(figure, folder / f"{name}.png")
                pictures.append(Picture(folder / f"{name}.png", heading, caption))
    return pictures


def _of_probes(material: ReportData, tasks: list[str], ending: str, kind: str) -> list[Plan]:
    """Return the figures of the stand-ins' probes, or of the fourteen's: never both in one."""
    if not tasks:
        return []
    return [
        (
            f"scores{ending}",
            f"Scores against floors · {kind}",
            "The same probes on the pre-trained model, on the same network with random weights, and on mel statistics. "
            "Hidden state and learning rate were chosen on validation; the test split was read once. Shown is each "
            "task's main metric; the table has them all.",
            lambda: scores_against_floors(material.scores, tasks),
        ),
        (
            f"layers{ending}",
            f"Layer guide · {kind}",
            "Validation score of a probe on each hidden state (0: the encoder's input) and on a learned weighted sum "
            "of all others. Framed: chosen on validation. A task's colours have one scale across the panels.",
            lambda: layer_guide(material.scores, tasks),
        ),
        (
            f"robustness{ending}",
            f"Robustness · {kind}",
            "The same probes, trained on clean music, tested on deformed music; from left to right it gets worse. "
            "Band: 95 % interval.",
            lambda: robustness_curves(material.scores, tasks),
        ),
    ]
