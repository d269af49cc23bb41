"""Figure of a teacher: an excerpt's spectrogram, and below it what the teacher says of every frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mert_core.audio.frames import FRAME_RATE
from mert_core.report.style import RUN_COLOURS, SPECTRUM, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Neighbouring numbers of a code are no neighbours in sound, so neither are their colours: steps of the golden section.
_HUE_STEP = 0.618034
_SATURATION, _VALUES = 0.45, (0.66, 0.92)
_LEAST_CONTRAST = 1e-6


def teacher_example(name: str, example: Mapping[str, NDArray[Any]]) -> Figure:
    """Return the log-mel spectrogram above a teacher's targets.

    Args:
        name: of the teacher.
        example: ``log_mel`` (frames, 128) and ``targets`` (frames, width), integers for codes.
    """
    targets, log_mel = example["targets"], example["log_mel"].astype(np.float64)
    codes = np.issubdtype(targets.dtype, np.integer)
    width = targets.shape[1]
    lower_inches = 0.9 + (0.17 * width if codes and width > 1 else 1.6)
    figure = new_figure(2.3 + lower_inches)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, lower_inches])
    seconds = len(targets) / FRAME_RATE
    _picture(upper, log_mel.T, seconds)
    upper.set_yticks([])
    upper.set_ylabel("mel bands")
    upper.set_title("What is heard · log-mel spectrogram")
    if not codes:
        _picture(lower, _evened(targets.astype(np.float64)).T, seconds)
        lower.set_ylabel(f"{width} bins")
        lower.set_yticks([])
        lower.set_title(f"{name} · a value per bin and frame")
    elif width == 1:
        lower.scatter(
            (np.arange(len(targets)) + 0.5) / FRAME_RATE, targets[:, 0], s=5, color=RUN_COLOURS[0], linewidths=0
        )
        lower.set_ylabel("code")
        lower.set_title(f"{name} · one code per frame")
    else:
        span = (0, seconds, width - 0.5, -0.5)
        lower.imshow(_coloured(targets.T), aspect="auto", interpolation="nearest", extent=span)
        bare(lower)
        lower.set_yticks(range(width), [str(index) for index in range(width)])
        lower.set_ylabel("codebook")
        lower.set_title(f"{name} · {width} codes per frame, a colour for each entry")
    lower.set_xlabel("time, seconds")
    lower.tick_params(axis="x", length=3)
    lower.set_xlim(0, seconds)
    return figure


def _coloured(codes: NDArray[Any]) -> NDArray[np.float64]:
    """Return colours (…, 3), one for each number of a code."""
    shade = np.where(codes // 7 % 2, _VALUES[0], _VALUES[1])
    hue = codes.astype(np.float64) * _HUE_STEP % 1.0
    return hsv_to_rgb(np.stack([hue, np.full_like(hue, _SATURATION), shade], axis=-1))


def _picture(axes: Axes, values: NDArray[np.float64], seconds: float) -> None:
    axes.imshow(
        values, origin="lower", aspect="auto", cmap=SPECTRUM, interpolation="nearest",
        extent=(0.0, seconds, -0.5, len(values) - 0.5),
    )  # fmt: skip
    bare(axes)


def _evened(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return magnitudes compressed so that quiet bins are seen, as log(1 + 10 v / mean)."""
    level = max(float(np.abs(values).mean()), _LEAST_CONTRAST)
    return np.log1p(10 * np.maximum(values, 0.0) / level)
