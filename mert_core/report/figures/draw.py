"""All figures of the report in their order: file name, heading, caption, drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from mert_core.features.cqt import CQT_BINS
from mert_core.report.figures.probes import layer_guide, robustness_curves, scores_against_baselines
from mert_core.report.figures.style import look, save_png
from mert_core.report.figures.targets import teacher_example, usage
from mert_core.report.figures.training import loss_by_term, spectrum_example
from mert_core.report.load import ReportData, Training


@dataclass(frozen=True)
class Plan:
    """A figure to draw.

    Attributes:
        name: of the file, without its ending.
        heading: what it is.
        caption: what to see in it.
        draw: returns the figure; None if there is nothing to show.
        of_probes: whether it stands with the scores.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[], Figure | None]
    of_probes: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure on disk: where it lies, its heading, what to see in it, and whether it stands with the scores."""

    path: Path
    heading: str
    caption: str
    of_probes: bool


def draw_all(data: ReportData, example_seconds: float, folder: Path) -> list[Picture]:
    """Draw every figure into a folder, in the order of the report.

    Args:
        data: what the stages left.
        example_seconds: longest stretch of a spectrum's example.
        folder: existing folder for the PNG files.
    """
    plans = [
        *_of_probes(data, data.proxy_tasks, "", "proxy tasks"),
        *_of_probes(data, data.fourteen, "-fourteen", "fourteen tasks"),
        *_of_training(data.trainings, example_seconds),
        *_of_targets(data),
    ]
    return _draw(plans, folder)


def draw_training(training: Training, example_seconds: float, folder: Path) -> list[Picture]:
    """Draw one run's figures of pre-training into an existing folder: losses over steps, true and predicted spectra."""
    return _draw(_of_training([training], example_seconds), folder)


def _draw(plans: Iterable[Plan], folder: Path) -> list[Picture]:
    pictures = []
    with look():
        for plan in plans:
            figure = plan.draw()
            if figure is not None:
                path = folder / f"{plan.name}.png"
                save_png(figure, path)
                pictures.append(Picture(path, plan.heading, plan.caption, plan.of_probes))
    return pictures


def _of_probes(data: ReportData, tasks: list[str], ending: str, kind: str) -> Iterator[Plan]:
    """Yield the figures of the proxy tasks, or of the fourteen: never both in one."""
    if not tasks:
        return
    yield Plan(
        f"scores{ending}",
        f"Scores against baselines · {kind}",
        "The same probes on the pre-trained model, on the same network with random weights, and on mel statistics. "
        "Hidden state and learning rate were chosen on validation; the test split was read once. Shown is each "
        "task's main metric; the table has them all.",
        partial(scores_against_baselines, data.scored, tasks),
        of_probes=True,
    )
    yield Plan(
        f"layers{ending}",
        f"Layer guide · {kind}",
        "Validation score of a probe on each hidden state (0: the encoder's input) and on a learned weighted sum "
        "of all others. Framed: chosen on validation. A task's colours have one scale across the panels.",
        partial(layer_guide, data.scored, tasks),
        of_probes=True,
    )
    yield Plan(
        f"robustness{ending}",
        f"Robustness · {kind}",
        "The same probes, trained on clean music, tested on deformed music; from left to right it gets worse. "
        "Band: 95 % interval.",
        partial(robustness_curves, data.scored, tasks),
        of_probes=True,
    )


def _of_training(trainings: list[Training], example_seconds: float) -> Iterator[Plan]:
    yield Plan(
        "loss",
        "Loss by term",
        "Below the dashed line the student knows more than how often each code occurs: it has learned from the "
        "music around the mask. Terms are shown without their weights.",
        partial(loss_by_term, trainings),
    )
    for training in trainings:
        for teacher in _constant_q(training):
            yield Plan(
                f"{teacher}-{training.run}",
                f"True against predicted spectrum · {training.run}",
                "One validation crop. The loss is taken at masked frames alone, where the student has to guess from "
                "what surrounds them.",
                partial(spectrum_example, training, teacher, example_seconds),
            )


def _constant_q(training: Training) -> list[str]:
    """Return the run's teachers of constant-Q spectra, which have an example to show."""
    return [
        name
        for name in training.teachers
        if f"true_{name}" in training.example and training.example[f"true_{name}"].shape[1] == CQT_BINS
    ]


def _of_targets(data: ReportData) -> Iterator[Plan]:
    for labels in data.labels:
        if len(labels.usage) > 1:
            yield Plan(
                f"usage-{labels.teacher}",
                f"Codebook usage · {labels.teacher}",
                "A healthy teacher spreads its codes; a collapsed codebook would be a few dark cells and white.",
                partial(usage, labels),
            )
    for labels in data.labels:
        yield Plan(
            f"teacher-{labels.teacher}",
            f"What {labels.teacher} hears",
            f"An excerpt of the corpus and, below it, the targets of {labels.teacher}: {labels.kind}.",
            partial(teacher_example, labels),
        )
