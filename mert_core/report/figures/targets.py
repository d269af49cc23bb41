"""Figures of the targets: how evenly a teacher uses each codebook, and what it says of an excerpt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE
from mert_core.features.cqt import CQT_BINS
from mert_core.features.mel import CHROMA_BINS
from mert_core.report.figures.style import CODES, HEAT, INK, SOFT, SPECTRUM, bare, hertz_axis, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN_DECIBELS = 50.0
_STRIP_INCHES = 0.3
_MEL_TICKS = (200, 500, 1000, 2000, 5000, 10000)
_PITCH_CLASSES = ("C", "D", "E", "F", "G", "A", "B")
_SEMITONES = (0, 2, 4, 5, 7, 9, 11)


def entropy_bits(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy in bits of each codebook (codebooks,) from its entries' shares (codebooks, entries)."""
    terms = np.zeros_like(shares)
    np.log2(shares, out=terms, where=shares > 0)
    return -(shares * terms).sum(axis=1)


def used_share(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each codebook's entries that occur at all (codebooks,)."""
    return (shares > 0).mean(axis=1)


def usage(shares: NDArray[np.float64]) -> Figure:
    """Return each codebook's entries, commonest first, as a strip of shares, with entropy and usage beside it."""
    codebooks, entries = shares.shape
    ranked = -np.sort(-shares, axis=1)
    figure = new_figure(0.42 * codebooks + 1.7)
    axes = figure.subplots()
    even = 1 / entries
    shown = np.ma.masked_less_equal(ranked, 0.0)
    # The rarest entry must still differ from white, which means never.
    colours = ListedColormap(HEAT(np.linspace(0.14, 1.0, 256))).with_extremes(bad="#ffffff")
    image = axes.imshow(
        shown,
        aspect="auto",
        cmap=colours,
        norm=LogNorm(even / 20, max(even * 20, ranked.max())),
        interpolation="nearest",
        extent=(0, entries, codebooks - 0.5, -0.5),
    )
    bare(axes)
    axes.set_yticks(range(codebooks), [str(index) for index in range(codebooks)])
    for edge in np.arange(0.5, codebooks - 1):
        axes.axhline(edge, color="white", linewidth=3)
    axes.set_xlim(0, entries)
    axes.set_xlabel("entries of the codebook, commonest first (white: never used)")
    axes.set_ylabel("codebook, coarse to fine")
    axes.set_title("How the teacher uses its codebooks · training split")
    highest = float(np.log2(entries))
    for index, (bits, share) in enumerate(zip(entropy_bits(shares), used_share(shares), strict=True)):
        axes.annotate(
            f"{bits:.2f}",
            (1.0, index),
            xycoords=("axes fraction", "data"),
            xytext=(38, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
        axes.annotate(
            f"{100 * share:.0f} %",
            (1.0, index),
            xycoords=("axes fraction", "data"),
            xytext=(84, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
    for text, offset in ((f"bits\nof {highest:.0f}", 38), ("in\nuse", 84)):
        axes.annotate(
            text,
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(offset, 6),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color=SOFT,
        )
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.025, aspect=24, ticks=[even / 10, even, even * 10])
    bar.ax.set_yticklabels(["⅒ of even", "even", "10 × even"])
    bar.ax.minorticks_off()
    bar.set_label("share of frames", color=SOFT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def teacher_example(name: str, example: Mapping[str, NDArray[Any]]) -> Figure:
    """Return an excerpt's spectrogram with a teacher's targets under it, on one time axis.

    Codes are one strip per codebook. A code has no order of its own, so its colour is the brightness of what it stands
    for here: its rank by the mean spectral centroid of its frames. Spectra are a heat map.

    Args:
        name: of the teacher.
        example: ``targets``, uint16 (frames, codebooks) or float16 (frames, bins), and ``log_mel`` (frames, bands).
    """
    targets, log_mel = example["targets"], example["log_mel"].astype(np.float64)
    codes = targets.dtype.kind == "u"
    lower_inches = max(1.0, _STRIP_INCHES * targets.shape[1]) if codes else 2.4
    figure = new_figure(2.4 + lower_inches + 1.3)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lower_inches])
    seconds = len(targets) / FRAME_RATE
    _spectrogram(upper, log_mel, seconds)
    if codes:
        _strips(lower, name, targets, log_mel, seconds)
    else:
        _heat_map(lower, name, targets, seconds)
    lower.set_xlabel("time, seconds")
    lower.tick_params(axis="x", length=3)
    lower.set_xlim(0, seconds)
    return figure


def _spectrogram(axes: Axes, log_mel: NDArray[np.float64], seconds: float) -> None:
    axes.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, -0.5, log_mel.shape[1] - 0.5),
        cmap=SPECTRUM,
        interpolation="nearest",
    )
    bare(axes)
    axes.set_yticks(
        [_mel_band(hertz, log_mel.shape[1]) for hertz in _MEL_TICKS], [f"{hertz:,}" for hertz in _MEL_TICKS]
    )
    axes.set_ylabel("frequency, Hz")
    axes.set_title("The music · log-mel spectrogram")


def _mel_band(hertz: float, bands: int) -> float:
    """Return the place of a frequency among bands on Slaney's mel scale up to 12 kHz: linear to 1 kHz, then log."""

    def mel(value: float) -> float:
        return value / 200 * 3 if value < 1000 else 15 + 27 * float(np.log(value / 1000) / np.log(6.4))

    return mel(hertz) / mel(12000) * (bands + 1) - 1


def brightness_rank(codes: NDArray[Any], log_mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return every frame's code as its place, 0 to 1, among the codes by their frames' mean centroid (frames,)."""
    centroid = (log_mel @ np.arange(log_mel.shape[1])) / np.maximum(log_mel.sum(axis=1), 1e-6)
    _, inverse = np.unique(codes, return_inverse=True)
    means = np.bincount(inverse, weights=centroid) / np.bincount(inverse)
    return np.argsort(np.argsort(means, kind="stable"), kind="stable")[inverse] / max(len(means) - 1, 1)


def _strips(axes: Axes, name: str, codes: NDArray[Any], log_mel: NDArray[np.float64], seconds: float) -> None:
    books = codes.shape[1]
    ranks = np.stack([brightness_rank(codes[:, book], log_mel) for book in range(books)])
    axes.imshow(
        ranks,
        aspect="auto",
        extent=(0.0, seconds, books - 0.5, -0.5),
        cmap=CODES,
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    bare(axes)
    axes.set_yticks(range(books), [str(book) for book in range(books)] if books > 1 else [""])
    for edge in np.arange(0.5, books - 1):
        axes.axhline(edge, color="white", linewidth=2)
    if books > 1:
        axes.set_ylabel("codebook")
    axes.set_title(f"Codes of {name} · dark to bright by the sound they stand for")
    for book in range(books):
        axes.annotate(
            f"{len(np.unique(codes[:, book]))}",
            (1.0, book),
            xycoords=("axes fraction", "data"),
            xytext=(30, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.annotate(
        "codes\nhere",
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(30, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
        color=SOFT,
    )


def _heat_map(axes: Axes, name: str, targets: NDArray[Any], seconds: float) -> None:
    values = targets.T.astype(np.float64)
    title = f"Targets of {name} · {len(values)} bins"
    if len(values) == CQT_BINS:
        loudest = max(float(values.max()), 1e-9)
        values = 20 * np.log10(np.maximum(values / loudest, 10 ** (-_SHOWN_DECIBELS / 20)))
        title += ", shown in dB"
    axes.imshow(
        values,
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, -0.5, len(values) - 0.5),
        cmap=SPECTRUM,
        interpolation="nearest",
    )
    bare(axes)
    if len(values) == CQT_BINS:
        hertz_axis(axes, len(values))
    elif len(values) == CHROMA_BINS:
        axes.set_yticks([4 * semitone for semitone in _SEMITONES], _PITCH_CLASSES)
        axes.set_ylabel("pitch class")
    else:
        axes.set_ylabel("bin")
    axes.set_title(title)
