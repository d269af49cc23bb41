"""Figures of pre-training: loss by term, and a true spectrum against the predicted one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mert_core.audio.grid import FRAME_RATE
from mert_core.report.figures.style import (
    INK,
    SHOWN_DECIBELS,
    SOFT,
    bare,
    beside,
    color_bar,
    color_of,
    hertz_axis,
    new_figure,
    seconds_axis,
    time_image,
    to_decibels,
)
from mert_core.report.load import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PENALTY = "feature_penalty"


def loss_by_term(trainings: list[Training]) -> Figure | None:
    """Return both splits' loss by teacher; for codes also the unigram reference and the gain per codebook.

    None without any training.
    """
    if not trainings:
        return None
    runs = [training.run for training in trainings]
    named = {name for training in trainings for _, name in training.curve}
    codes = list(dict.fromkeys(name for training in trainings for name in training.unigram))
    spectra = dict.fromkeys(name for training in trainings for name in training.teachers if name not in codes)
    panels = [(name, part) for name in codes for part in ("curve", "gain")]
    panels += [(name, "curve") for name in (*spectra, PENALTY) if name in named]
    rows = -(-len(panels) // 2)
    figure = new_figure(3.3 * rows)
    every = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for (name, part), axes in zip(panels, every, strict=False):
        if part == "gain":
            _gain_per_codebook(axes, trainings, name, runs)
            continue
        for training in trainings:
            _lines(axes, training, name, color_of(training.run, runs))
        title, unit = _title(name, name in codes)
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("optimiser step")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.02)
        _leave_out_the_start(axes, trainings, name)
        if name in codes:
            _unigram(axes, trainings, name)
    first = every[0]
    handles = [
        first.plot([], [], color=SOFT, linewidth=1.0, alpha=0.55, label="training")[0],
        first.plot([], [], color=SOFT, linewidth=2.0, marker="o", markersize=4, label="validation")[0],
    ]
    if len(runs) > 1:
        handles += [first.plot([], [], color=color_of(run, runs), linewidth=4, label=run)[0] for run in runs]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _title(name: str, codes: bool) -> tuple[str, str]:
    if name == PENALTY:
        return "Feature penalty · convolutions' output", "mean square"
    return (
        (f"{name} · cross-entropy", "nats per masked frame") if codes else (f"{name} · squared error", "mean over bins")
    )


def _lines(axes: Axes, training: Training, term: str, color: str) -> None:
    if ("train", term) in training.curve:
        axes.plot(*training.curve["train", term], color=color, linewidth=1.0, alpha=0.55)
    if ("valid", term) in training.curve:
        steps, values = training.curve["valid", term]
        dots = max(1, len(steps) // 12)
        axes.plot(steps, values, color=color, linewidth=2.0, marker="o", markersize=4, markevery=dots)


def _leave_out_the_start(axes: Axes, trainings: list[Training], term: str) -> None:
    """Fit the axis to what comes after the first 3 % of the steps: the very first fall would flatten the rest."""
    late = []
    for training in trainings:
        for split in ("train", "valid"):
            steps, values = training.curve.get((split, term), (np.zeros(0), np.zeros(0)))
            late += values[steps > 0.03 * steps.max(initial=0)].tolist()
    if late:
        low, high = min(late), max(late)
        margin = 0.06 * max(high - low, 1e-6)
        axes.set_ylim(low - margin, high + margin)


def _unigram(axes: Axes, trainings: list[Training], teacher: str) -> None:
    """Draw what guessing each code by its frequency costs."""
    references = sorted({round(sum(item.unigram[teacher]), 3) for item in trainings if teacher in item.unigram})
    for number, reference in enumerate(references):
        axes.axhline(reference, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        if number == len(references) - 1:
            beside(axes, f"guessing by frequency {reference:.1f}", (1.0, reference), (-2, 4), va="bottom")
    low, high = axes.get_ylim()
    low, high = min(low, references[0] - 0.1 * (high - low)), max(high, references[-1])
    axes.set_ylim(low, max(high, references[-1] + 0.1 * (high - low)))


def codebook_gain(training: Training, teacher: str) -> np.ndarray:
    """Return, per codebook, by how many nats the last validation lies below guessing by frequency (codebooks,)."""
    reference = training.unigram[teacher]
    last = [training.curve["valid", f"{teacher}_{index}"][1][-1] for index in range(len(reference))]
    return np.array(reference) - np.array(last)


def _gain_per_codebook(axes: Axes, trainings: list[Training], teacher: str, runs: list[str]) -> None:
    shown = [training for training in trainings if teacher in training.unigram]
    width = 0.72 / len(shown)
    for number, training in enumerate(shown):
        gain = codebook_gain(training, teacher)
        position = np.arange(len(gain)) + (number - (len(shown) - 1) / 2) * width
        axes.bar(position, gain, width=width * 0.92, color=color_of(training.run, runs), linewidth=0)
        axes.set_xticks(np.arange(len(gain)))
    axes.axhline(0, color=INK, linewidth=0.9)
    axes.grid(axis="x", visible=False)
    axes.set_title(f"{teacher} · learned per codebook")
    axes.set_xlabel("codebook, coarse to fine")
    axes.set_ylabel("nats below guessing, validation")


def spectrum_example(training: Training, teacher: str, example_seconds: float) -> Figure:
    """Return the true above the predicted spectrum of one validation crop, with the masked frames between them.

    Args:
        training: whose ``example`` holds both.
        teacher: name of a teacher of constant-Q spectra.
        example_seconds: longest stretch to show.
    """
    frames = min(len(training.example["mask"]), round(example_seconds * FRAME_RATE))
    mask = training.example["mask"][:frames].astype(bool)
    true, predicted = (
        np.maximum(training.example[f"{kind}_{teacher}"][:frames].T.astype(np.float64), 0.0)
        for kind in ("true", "predicted")
    )
    figure = new_figure(6.4)
    upper, strip, lower = figure.subplots(3, 1, sharex=True, height_ratios=[12, 1, 12])
    seconds = frames / FRAME_RATE
    for axes, values, title in ((upper, true, "True"), (lower, predicted, "Predicted")):
        decibels = to_decibels(values, float(true.max()))
        image = time_image(axes, decibels, seconds, vmin=-SHOWN_DECIBELS, vmax=0.0)
        hertz_axis(axes, len(values))
        axes.set_title(f"{title} constant-Q spectrum")
    span = (0.0, seconds, 0.0, 1.0)
    strip.imshow(mask[None], aspect="auto", extent=span, cmap="Greys", vmin=0, vmax=1.6, interpolation="nearest")
    bare(strip)
    strip.set_yticks([0.5], ["masked"])
    hidden = f"{100 * mask.mean():.0f} % of the frames were hidden from the student (dark)"
    beside(strip, hidden, (1.0, 1.0), (0, 3), "axes fraction", va="bottom", color=SOFT)
    seconds_axis(lower)
    label = "level, dB relative to the loudest"
    color_bar(figure, image, [upper, strip, lower], label, pad=0.015, fraction=0.03, aspect=36)
    return figure
