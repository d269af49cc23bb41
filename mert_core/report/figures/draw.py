"""All figures of the report in their order: file name, heading, caption, drawing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from mert_core.features.cqt import CQT_BINS
from mert_core.report.figures.probes import layer_guide, robustness_curves, scores_against_baselines
from mert_core.report.figures.style import look, save_png
from mert_core.report.figures.training import loss_by_term, spectrum_example, teacher_example, usage
from mert_core.report.load import ReportData, Training


class Picture(NamedTuple):
    """A figure on disk: where it lies, its heading, what to see in it, and whether it stands with the scores."""

    path: Path
    heading: str
    caption: str
    of_probes: bool


Drawing = tuple[str, str, str, Figure | None]
"""A figure's file name without its ending, heading, caption and drawing, None if there is nothing to show."""

PROBE_FIGURES = (
    (
        scores_against_baselines,
        "scores",
        "Scores against baselines",
        "The same probes on the pre-trained model, on the same network with random weights, and on mel statistics. "
        "Hidden state and learning rate were chosen on validation; the test split was read once. Shown is each "
        "task's main metric; the table has them all.",
    ),
    (
        layer_guide,
        "layers",
        "Layer guide",
        "Validation score of a probe on each hidden state (0: the encoder's input) and on a learned weighted sum "
        "of all others. Framed: chosen on validation. A task's colours have one scale across the panels.",
    ),
    (
        robustness_curves,
        "robustness",
        "Robustness",
        "The same probes, trained on clean music, tested on deformed music; from left to right it gets worse. "
        "Band: 95 % interval.",
    ),
)


def draw_all(data: ReportData, example_seconds: float, folder: Path) -> list[Picture]:
    """Draw every figure into a folder, in the order of the report.

    Args:
        data: what the stages left.
        example_seconds: longest stretch of a spectrum's example.
        folder: existing folder for the PNG files.
    """
    return [
        *_save(_of_probes(data), folder, of_probes=True),
        *draw_training(data.trainings, example_seconds, folder),
        *_save(_of_targets(data), folder),
    ]


def draw_training(trainings: list[Training], example_seconds: float, folder: Path) -> list[Picture]:
    """Draw pre-training alone: losses over steps of all runs, and each one's true and predicted spectra."""
    return _save(_of_training(trainings, example_seconds), folder)


def _save(drawings: Iterable[Drawing], folder: Path, *, of_probes: bool = False) -> list[Picture]:
    pictures = []
    with look():  # the drawings are made in here, one after the other
        for name, heading, caption, figure in drawings:
            if figure is not None:
                save_png(figure, folder / f"{name}.png")
                pictures.append(Picture(folder / f"{name}.png", heading, caption, of_probes))
    return pictures


def _of_probes(data: ReportData) -> Iterator[Drawing]:
    """Yield the figures of the proxy tasks, then those of the fourteen: never both in one."""
    for tasks, ending, kind in ((data.proxy_tasks, "", "proxy tasks"), (data.fourteen, "-fourteen", "fourteen tasks")):
        if tasks:
            for draw, name, heading, caption in PROBE_FIGURES:
                yield f"{name}{ending}", f"{heading} · {kind}", caption, draw(data.scored, tasks)


def _of_training(trainings: list[Training], example_seconds: float) -> Iterator[Drawing]:
    caption = (
        "Below the dashed line the student knows more than how often each code occurs: it has learned from the "
        "music around the mask. Terms are shown without their weights."
    )
    yield "loss", "Loss by term", caption, loss_by_term(trainings)
    caption = (
        "One validation crop. The loss is taken at masked frames alone, where the student has to guess from what "
        "surrounds them."
    )
    for training in trainings:
        for teacher in training.teachers:
            true = training.example.get(f"true_{teacher}")
            if true is not None and true.shape[1] == CQT_BINS:
                heading = f"True against predicted spectrum · {training.run}"
                yield (
                    f"{teacher}-{training.run}",
                    heading,
                    caption,
                    spectrum_example(training, teacher, example_seconds),
                )


def _of_targets(data: ReportData) -> Iterator[Drawing]:
    caption = "A healthy teacher spreads its codes; a collapsed codebook would be a few dark cells and white."
    for labels in data.labels:
        if len(labels.usage) > 1:
            yield f"usage-{labels.teacher}", f"Codebook usage · {labels.teacher}", caption, usage(labels)
    for labels in data.labels:
        caption = f"An excerpt of the corpus and, below it, the targets of {labels.teacher}: {labels.kind}."
        yield f"teacher-{labels.teacher}", f"What {labels.teacher} hears", caption, teacher_example(labels)
