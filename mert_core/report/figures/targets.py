"""Figures of the targets: how evenly a teacher uses each codebook, and its targets for an excerpt of the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE
from mert_core.features.cqt import CQT_BINS
from mert_core.features.mel import CHROMA_BINS
from mert_core.report.figures.style import (
    CODES,
    HEAT,
    SOFT,
    bare,
    beside,
    color_bar,
    hertz_axis,
    new_figure,
    seconds_axis,
    time_image,
    to_decibels,
)
from mert_core.report.load import Labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP_INCHES = 0.3
_MEL_TICKS = (200, 500, 1000, 2000, 5000, 10000)
_PITCH_CLASSES = ("C", "D", "E", "F", "G", "A", "B")
_SEMITONES = (0, 2, 4, 5, 7, 9, 11)


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
    lower_inches = max(1.0, _STRIP_INCHES * targets.shape[1]) if codes else 2.4
    figure = new_figure(2.4 + lower_inches + 1.3)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lower_inches])
    seconds = len(targets) / FRAME_RATE
    _spectrogram(upper, log_mel, seconds)
    if codes:
        _strips(lower, labels.teacher, targets, log_mel, seconds)
    else:
        _heat_map(lower, labels.teacher, targets.T.astype(np.float64), seconds)
    seconds_axis(lower)
    lower.set_xlim(0, seconds)
    return figure


def _separate(axes: Axes, strips: int, linewidth: float) -> None:
    """Draw white lines between strips that lie one below another."""
    for edge in np.arange(0.5, strips - 1):
        axes.axhline(edge, color="white", linewidth=linewidth)


def _spectrogram(axes: Axes, log_mel: NDArray[np.float64], seconds: float) -> None:
    """Draw a log-mel spectrogram (frames, bands)."""
    time_image(axes, log_mel.T, seconds)
    bands = log_mel.shape[1]
    axes.set_yticks([_mel_band(hertz, bands) for hertz in _MEL_TICKS], [f"{hertz:,}" for hertz in _MEL_TICKS])
    axes.set_ylabel("frequency, Hz")
    axes.set_title("The music · log-mel spectrogram")


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
    ranks = np.stack([brightness_rank(codes[:, index], log_mel) for index in range(codebooks)])
    extent = (0.0, seconds, codebooks - 0.5, -0.5)
    time_image(axes, ranks, seconds, origin="upper", extent=extent, cmap=CODES, vmin=0, vmax=1)
    _separate(axes, codebooks, linewidth=2)
    axes.set_yticks(range(codebooks), [str(index) for index in range(codebooks)] if codebooks > 1 else [""])
    if codebooks > 1:
        axes.set_ylabel("codebook")
    axes.set_title(f"Codes of {name} · dark to bright by the sound they stand for")
    for index in range(codebooks):
        beside(axes, f"{len(np.unique(codes[:, index]))}", (1.0, index), (30, 0))
    beside(axes, "codes\nhere", (1.0, 1.0), (30, 6), "axes fraction", va="bottom", color=SOFT)


def _heat_map(axes: Axes, name: str, values: NDArray[np.float64], seconds: float) -> None:
    """Draw a spectrum (bins, frames), on the axis that its number of bins tells."""
    bins = len(values)
    title = f"Targets of {name} · {bins} bins"
    if bins == CQT_BINS:
        values = to_decibels(values, float(values.max()))
        title += ", shown in dB"
    time_image(axes, values, seconds)
    if bins == CQT_BINS:
        hertz_axis(axes, bins)
    elif bins == CHROMA_BINS:
        axes.set_yticks([4 * semitone for semitone in _SEMITONES], _PITCH_CLASSES)
        axes.set_ylabel("pitch class")
    else:
        axes.set_ylabel("bin")
    axes.set_title(title)
