"""One look for all figures: quiet axes, colours that the colour-blind can tell apart, the same bytes every time.

What several figures draw alike is here, too: colour bars, remarks beside the axes, pictures over time, axes in hertz.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from mert_core.config import BASELINES
from mert_core.features.cqt import BINS_PER_OCTAVE, MIN_HERTZ
from mert_core.report.titles import is_decibel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

INK, SOFT, FAINT, GRID = "#1b1f24", "#57606a", "#afb8c1", "#e6eaef"
# Paul Tol's "bright" blue, purple, green, cyan and red for runs; amber and grey for the baselines.
RUN_COLORS = ("#2f5fa8", "#8d3f97", "#1b7f4b", "#2a9fb8", "#c9434f")
BASELINE_COLORS = dict(zip(BASELINES, ("#d98a00", "#7b838c"), strict=True))
BASELINE_MARKERS = dict(zip(BASELINES, "Ds", strict=True))
HEAT = LinearSegmentedColormap.from_list("heat", ["#f6f8fb", "#cfdcef", "#8fb0dc", "#4a7cc0", "#23508f", "#0f2a55"])
SPECTRUM = "magma"
CODES = "viridis"
DOTS_PER_INCH = 144
WIDTH_INCHES = 10.0
SHOWN_DECIBELS = 50.0
"""Range of a spectrum that is shown in dB, from its loudest point down."""

_LOOK = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: no dependence on the machine's fonts
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "mert",
}


@contextmanager
def look() -> Iterator[None]:
    """Draw in the house style, whatever a ``matplotlibrc`` on this machine says."""
    with matplotlib.style.context(["default", _LOOK]):
        yield


def new_figure(height_inches: float) -> Figure:
    """Return an empty figure of the common width that lays itself out."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.05)
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG that holds no version and no date."""
    figure.savefig(path, format="png", metadata={"Software": None})


def color_of(run: str, runs: Sequence[str]) -> str:
    """Return a run's or a baseline's color; ``runs`` are the pre-trained ones in order."""
    return BASELINE_COLORS.get(run) or RUN_COLORS[list(runs).index(run) % len(RUN_COLORS)]


def marker_of(run: str) -> str:
    """Return a marker, so that colour is never the only difference."""
    return BASELINE_MARKERS.get(run, "o")


def score_text(value: float, metric: str) -> str:
    """Return a score with a true minus sign: two decimals of dB, three of a share."""
    return f"{value:.{2 if is_decibel(metric) else 3}f}".replace("-", "−")


def bare(axes: Axes) -> None:
    """Take away grid and frame, for pictures."""
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def beside(
    axes: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], y: str = "data", **look: Any
) -> None:
    """Write a remark in relation to the axes' right end, flush right.

    Args:
        axes: those it belongs to.
        text: the remark.
        xy: its point, as a share of the axes' width and as ``y`` says.
        offset: points to the right and upwards from there.
        y: coordinates of the point's height, ``data`` or ``axes fraction``.
        look: options of the text that differ from small, centred ink.
    """
    options: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 9, "color": INK} | look
    axes.annotate(text, xy, xycoords=("axes fraction", y), xytext=offset, textcoords="offset points", **options)


def color_bar(
    figure: Figure,
    image: AxesImage,
    axes: Axes | Iterable[Axes],
    label: str,
    labelpad: float | None = None,
    **look: Any,
) -> Colorbar:
    """Add a quiet color bar beside axes."""
    bar = figure.colorbar(image, ax=axes, **look)
    bar.set_label(label, color=SOFT, labelpad=labelpad)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return bar


def time_image(axes: Axes, values: NDArray[Any], seconds: float, **look: Any) -> AxesImage:
    """Draw ``values`` (bins, frames) over time, the first bin at the bottom, without grid and frame."""
    options = {"origin": "lower", "extent": (0.0, seconds, -0.5, len(values) - 0.5), "cmap": SPECTRUM} | look
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **options)
    bare(axes)
    return image


def seconds_axis(axes: Axes) -> None:
    """Label a time axis."""
    axes.set_xlabel("time, seconds")
    axes.tick_params(axis="x", length=3)


def to_decibels(magnitude: NDArray[np.float64], loudest: float) -> NDArray[np.float64]:
    """Return magnitudes in dB relative to the loudest, cut at ``SHOWN_DECIBELS`` below it."""
    return 20 * np.log10(np.maximum(magnitude / max(loudest, 1e-9), 10 ** (-SHOWN_DECIBELS / 20)))


def hertz_axis(axes: Axes, bins: int) -> None:
    """Label a constant-Q axis, which is logarithmic, at the As, in hertz."""
    octaves = (55, 110, 220, 440, 880, 1760, 3520)
    bin_of = {hertz: BINS_PER_OCTAVE * float(np.log2(hertz / MIN_HERTZ)) for hertz in octaves}
    shown = {f"{hertz:,}": position for hertz, position in bin_of.items() if position < bins}
    axes.set_yticks(list(shown.values()), list(shown))
    axes.set_ylabel("frequency, Hz")
