"""One look for all figures: quiet axes, colours that the colour-blind can tell apart, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator

from mert_core.features.cqt import BINS_PER_OCTAVE, MIN_HERTZ

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, FAINT, GRID = "#1b1f24", "#57606a", "#afb8c1", "#e6eaef"
# Paul Tol's "bright" blue, purple, green, cyan and red for runs; amber and grey for the floors.
RUN_COLOURS = ("#2f5fa8", "#8d3f97", "#1b7f4b", "#2a9fb8", "#c9434f")
FLOOR_COLOURS = {"random-weights": "#d98a00", "mel-statistics": "#7b838c"}
FLOOR_MARKERS = {"random-weights": "D", "mel-statistics": "s"}
HEAT = LinearSegmentedColormap.from_list("heat", ["#f6f8fb", "#cfdcef", "#8fb0dc", "#4a7cc0", "#23508f", "#0f2a55"])
SPECTRUM = "magma"
CODES = "viridis"
DOTS_PER_INCH = 144
WIDTH_INCHES = 10.0

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


def colour_of(run: str, runs: Sequence[str]) -> str:
    """Return a run's or a floor's colour; ``runs`` are the pre-trained ones in order."""
    return FLOOR_COLOURS.get(run) or RUN_COLOURS[list(runs).index(run) % len(RUN_COLOURS)]


def marker_of(run: str) -> str:
    """Return a marker, so that colour is never the only difference."""
    return FLOOR_MARKERS.get(run, "o")


def plain(name: str) -> str:
    """Return a name for people: ``random-weights`` → ``random weights``."""
    return name.replace("-", " ").replace("_", " ")


def bare(axes: Axes) -> None:
    """Take away grid and frame, for pictures."""
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def hertz_axis(axes: Axes, bins: int) -> None:
    """Label a constant-Q axis, which is logarithmic, at the As, in hertz."""
    pitches = [hertz for hertz in (55, 110, 220, 440, 880, 1760, 3520) if _bin(hertz) < bins]
    axes.yaxis.set_major_locator(FixedLocator([_bin(hertz) for hertz in pitches]))
    axes.set_yticklabels([f"{hertz:,}" for hertz in pitches])
    axes.set_ylabel("frequency, Hz")


def _bin(hertz: float) -> float:
    return BINS_PER_OCTAVE * float(np.log2(hertz / MIN_HERTZ))
