"""Figures of pre-training: a teacher's targets, the loss by term, and a true spectrum against the predicted one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE
from mert_core.features.cqt import CQT_BINS
from mert_core.features.mel import CHROMA_BINS
from mert_core.report.figures.style import (
    CODES,
    HEAT,
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
from mert_core.report.load import Labels, Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PENALTY = "feature_penalty"
STRIP_INCHES = 0.3
MEL_TICKS = (200, 500, 1000, 2000, 5000, 10000)
PITCH_CLASSES = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}


def usage(labels: Labels) -> Figure:
    """Return each codebook's entries, commonest first, as a strip of shares, with entropy and usage beside it."""
    codebooks, entries = labels.usage.shape
    ranked = -np.sort(-labels.usage, axis=1)
    figure = new_figure(0.42 * codebooks + 1.7)
    axes = figure.subplots()
    even = 1 / entries
    # The rarest entry must still differ from white, which means never.
    colors = ListedColormap(HEAT(np.linspace(0.14, 1.0, 256))).with_extremes(bad="#ffffff")
    image = axes.imshow(
        np.ma.masked_less_equal(ranked, 0.0),
        aspect="auto",
        cmap=colors,
        norm=LogNorm(even / 20, max(even * 20, ranked.max())),
        interpolation="nearest",
        extent=(0, entries, codebooks - 0.5, -0.5),
    )
    bare(axes)
    _separate(axes, codebooks, linewidth=3)
    axes.set_yticks(range(codebooks), [str(index) for index in range(codebooks)])
    axes.set_xlim(0, entries)
    axes.set_xlabel("entries of the codebook, commonest first (white: never used)")
    axes.set_ylabel("codebook, coarse to fine")
    axes.set_title("How the teacher uses its codebooks · training split")
    # Two columns of figures between the strips and the color bar.
    for index, (bits, share) in enumerate(zip(labels.entropy_bits, labels.used_share, strict=True)):
        beside(axes, f"{bits:.2f}", (1.0, index), (38, 0))
        beside(axes, f"{100 * share:.0f} %", (1.0, index), (84, 0))
    for text, offset in ((f"bits\nof {np.log2(entries):.0f}", 38), ("in\nuse", 84)):
        beside(axes, text, (1.0, 1.0), (offset, 6), "axes fraction", va="bottom", color=SOFT)
    ticks = [even / 10, even, even * 10]
    bar = color_bar(figure, image, axes, "share of frames", pad=0.02, fraction=0.025, aspect=24, ticks=ticks)
    bar.ax.set_yticklabels(["⅒ of even", "even", "10 × even"])
    bar.ax.minorticks_off()
    return figure


def _separate(axes: Axes, strips: int, linewidth: float) -> None:
    """Draw white lines between strips that lie one below another."""
    for edge in np.arange(0.5, strips - 1):
        axes.axhline(edge, color="white", linewidth=linewidth)


def teacher_example(labels: Labels) -> Figure:
    """Return an excerpt's spectrogram with a teacher's targets under it, on one time axis.

    Codes are one strip per codebook. A code has no order of its own, so its color is the brightness of what it stands
    for here: its rank by the mean spectral centroid of its frames. Spectra are a heat map.

    Args:
        labels: whose ``example`` holds ``targets``, uint16 (frames, codebooks) or float16 (frames, bins), and
            ``log_mel`` (frames, bands).
    """
    targets, log_mel = labels.example["targets"], labels.example["log_mel"].astype(np.float64)
    codes = targets.dtype.kind == "u"
    lower_inches = max(1.0, STRIP_INCHES * targets.shape[1]) if codes else 2.4
    figure = new_figure(2.4 + lower_inches + 1.3)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lower_inches])
    seconds = len(targets) / FRAME_RATE
    time_image(upper, log_mel.T, seconds)
    bands = log_mel.shape[1]
    upper.set_yticks([_mel_band(hertz, bands) for hertz in MEL_TICKS], [f"{hertz:,}" for hertz in MEL_TICKS])
    upper.set_ylabel("frequency, Hz")
    upper.set_title("The music · log-mel spectrogram")
    if codes:
        _strips(lower, labels.teacher, targets, log_mel, seconds)
    else:
        _heat_map(lower, labels.teacher, targets.T.astype(np.float64), seconds)
    seconds_axis(lower)
    lower.set_xlim(0, seconds)
    return figure


def _mel_band(hertz: float, bands: int) -> float:
    """Return where a frequency lies among bands on Slaney's mel scale up to 12 kHz: linear to 1 kHz, then log."""

    def mel(value: float) -> float:
        return value / 200 * 3 if value < 1000 else 15 + 27 * float(np.log(value / 1000) / np.log(6.4))

    return mel(hertz) / mel(12000) * (bands + 1) - 1


def brightness_rank(codes: NDArray[Any], log_mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each frame's code (frames,) as its rank, 0 to 1, among all codes by their frames' mean centroid.

    Args:
        codes: one codebook's (frames,).
        log_mel: spectrogram of the same frames (frames, bands).
    """
    centroid = (log_mel @ np.arange(log_mel.shape[1])) / np.maximum(log_mel.sum(axis=1), 1e-6)
    _, inverse = np.unique(codes, return_inverse=True)
    means = np.bincount(inverse, weights=centroid) / np.bincount(inverse)
    return np.argsort(np.argsort(means, kind="stable"), kind="stable")[inverse] / max(len(means) - 1, 1)


def _strips(axes: Axes, name: str, codes: NDArray[Any], log_mel: NDArray[np.float64], seconds: float) -> None:
    """Draw codes (frames, codebooks), one strip per codebook, the first at the top."""
    codebooks = codes.shape[1]
    ranks = np.stack([brightness_rank(column, log_mel) for column in codes.T])
    extent = (0.0, seconds, codebooks - 0.5, -0.5)
    time_image(axes, ranks, seconds, origin="upper", extent=extent, cmap=CODES, vmin=0, vmax=1)
    _separate(axes, codebooks, linewidth=2)
    axes.set_yticks(range(codebooks), [str(index) for index in range(codebooks)] if codebooks > 1 else [""])
    if codebooks > 1:
        axes.set_ylabel("codebook")
    axes.set_title(f"Codes of {name} · dark to bright by the sound they stand for")
    for index, column in enumerate(codes.T):
        beside(axes, f"{len(np.unique(column))}", (1.0, index), (30, 0))
    beside(axes, "codes\nhere", (1.0, 1.0), (30, 6), "axes fraction", va="bottom", color=SOFT)


def _heat_map(axes: Axes, name: str, values: NDArray[np.float64], seconds: float) -> None:
    """Draw a spectrum (bins, frames), on the axis that its number of bins tells."""
    bins = len(values)
    is_constant_q = bins == CQT_BINS
    time_image(axes, to_decibels(values, float(values.max())) if is_constant_q else values, seconds)
    if is_constant_q:
        hertz_axis(axes, bins)
    elif bins == CHROMA_BINS:
        axes.set_yticks([4 * semitone for semitone in PITCH_CLASSES], PITCH_CLASSES.values())
        axes.set_ylabel("pitch class")
    else:
        axes.set_ylabel("bin")
    axes.set_title(f"Targets of {name} · {bins} bins{', shown in dB' if is_constant_q else ''}")


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
    panels = [(name, draw) for name in codes for draw in (_curves, _gain_per_codebook)]
    panels += [(name, _curves) for name in (*spectra, PENALTY) if name in named]
    rows = -(-len(panels) // 2)
    figure = new_figure(3.3 * rows)
    every = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for (name, draw), axes in zip(panels, every, strict=False):
        draw(axes, trainings, name, runs)
    first = every[0]
    handles = [
        first.plot([], [], color=SOFT, linewidth=1.0, alpha=0.55, label="training")[0],
        first.plot([], [], color=SOFT, linewidth=2.0, marker="o", markersize=4, label="validation")[0],
    ]
    if len(runs) > 1:
        handles += [first.plot([], [], color=color_of(run, runs), linewidth=4, label=run)[0] for run in runs]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _curves(axes: Axes, trainings: list[Training], term: str, runs: list[str]) -> None:
    """Draw one term over the steps and, for codes, what guessing each by its frequency costs."""
    references = sorted({round(sum(item.unigram[term]), 3) for item in trainings if term in item.unigram})
    late: list[float] = []
    for training in trainings:
        for split in ("train", "valid"):
            if (split, term) not in training.curve:
                continue
            steps, values = training.curve[split, term]
            look: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.55}
            if split == "valid":
                look = {"linewidth": 2.0, "marker": "o", "markersize": 4, "markevery": max(1, len(steps) // 12)}
            axes.plot(steps, values, color=color_of(training.run, runs), **look)
            late += values[steps > 0.03 * steps.max(initial=0)].tolist()
    title, unit = f"{term} · squared error", "mean over bins"
    if references:
        title, unit = f"{term} · cross-entropy", "nats per masked frame"
    elif term == PENALTY:
        title, unit = "Feature penalty · convolutions' output", "mean square"
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.02)
    if late:  # the very first fall, 3 % of the steps, would flatten the rest
        margin = 0.06 * max(max(late) - min(late), 1e-6)
        axes.set_ylim(min(late) - margin, max(late) + margin)
    if references:
        for reference in references:
            axes.axhline(reference, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        beside(axes, f"guessing by frequency {references[-1]:.1f}", (1.0, references[-1]), (-2, 4), va="bottom")
        low, high = axes.get_ylim()
        low, high = min(low, references[0] - 0.1 * (high - low)), max(high, references[-1])
        axes.set_ylim(low, max(high, references[-1] + 0.1 * (high - low)))


def codebook_gain(training: Training, teacher: str) -> NDArray[np.float64]:
    """Return, per codebook, by how many nats the last validation lies below guessing by frequency (codebooks,)."""
    reference = training.unigram[teacher]
    last = [training.curve["valid", f"{teacher}_{index}"][1][-1] for index in range(len(reference))]
    return np.array(reference) - np.array(last)


def _gain_per_codebook(axes: Axes, trainings: list[Training], teacher: str, runs: list[str]) -> None:
    """Draw a bar per codebook and run."""
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
