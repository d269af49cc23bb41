"""Figure of the targets: how evenly the teacher uses each codebook."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mert_core.report.style import HEAT, INK, SOFT, bare, new_figure


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
        shown, aspect="auto", cmap=colours, norm=LogNorm(even / 20, max(even * 20, ranked.max())),
        interpolation="nearest", extent=(0, entries, codebooks - 0.5, -0.5),
    )  # fmt: skip
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
            f"{bits:.2f}", (1.0, index), xycoords=("axes fraction", "data"), xytext=(38, 0), textcoords="offset points",
            ha="right", va="center", fontsize=9, color=INK,
        )  # fmt: skip
        axes.annotate(
            f"{100 * share:.0f} %", (1.0, index), xycoords=("axes fraction", "data"), xytext=(84, 0),
            textcoords="offset points", ha="right", va="center", fontsize=9, color=INK,
        )  # fmt: skip
    for text, offset in ((f"bits\nof {highest:.0f}", 38), ("in\nuse", 84)):
        axes.annotate(
            text, (1.0, 1.0), xycoords="axes fraction", xytext=(offset, 6), textcoords="offset points",
            ha="right", va="bottom", fontsize=9, color=SOFT,
        )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.025, aspect=24, ticks=[even / 10, even, even * 10])
    bar.ax.set_yticklabels(["⅒ of even", "even", "10 × even"])
    bar.ax.minorticks_off()
    bar.set_label("share of frames", color=SOFT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure
