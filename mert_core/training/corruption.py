"""What makes the task hard: spans of masked frames, and stretches of other clips that are mixed in.

Both are drawn per clip from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SPANS = 2


def span_masks(
    generators: Sequence[np.random.Generator], frames: int, probability: float, span_frames: int
) -> NDArray[np.bool_]:
    """Draw the masks of a batch; fairseq's static spans with overlap, as MERT uses them.

    Each row gets ``probability · frames / span_frames`` spans (rounded up or down at random), at least two, with
    distinct starts. Then random masked frames of the fuller rows are uncovered until all rows have as many as the
    emptiest: 58 % become 54 % at 16 clips of 5 s.

    Args:
        generators: one per clip; row i depends on its own generator and, by the trimming, on the batch's minimum.
        frames: frames of one clip.
        probability: share of frames that spans would cover without overlap.
        span_frames: length of a span.

    Returns:
        (batch, frames), true where masked; every row has the same number.
    """
    draws = np.stack([generator.random(2 * frames + 1) for generator in generators])
    rounding, start_keys, trim_keys = draws[:, 0], draws[:, 1 : frames + 1], draws[:, frames + 1 :]
    span_frames = min(span_frames, frames)
    starts = max(1, frames - span_frames)
    spans = np.floor(probability * frames / span_frames + rounding).astype(int)
    spans = np.clip(spans, min(MIN_SPANS, starts), starts)

    rank = start_keys[:, :starts].argsort(axis=1).argsort(axis=1)
    begins = np.zeros((len(draws), frames + span_frames), dtype=np.int32)
    begins[:, :starts] = rank < spans[:, None]
    covered = begins.cumsum(axis=1)
    covered[:, span_frames:] -= covered[:, :-span_frames].copy()
    masks = covered[:, :frames] > 0

    fewest = masks.sum(axis=1).min()
    keys = np.where(masks, trim_keys, 2.0)
    return keys.argsort(axis=1).argsort(axis=1) < fewest


@dataclass(frozen=True)
class Snippet:
    """``samples`` samples of the batch's clip ``source`` from ``source_start`` on, added to a clip at ``start``."""

    source: int
    source_start: int
    start: int
    samples: int


def draw_snippets(
    generator: np.random.Generator,
    own: int,
    clips: int,
    clip_samples: int,
    probability: float,
    most: int,
    samples_range: tuple[int, int],
) -> list[Snippet]:
    """Draw what is mixed into one clip, at gain 1 (the method's in-batch mixture).

    With ``probability`` a clip is mixed (the published code has the comparison inverted, harmless at its 0.5).

    Args:
        generator: generator of this clip alone.
        own: index of the clip in the global batch; never its own source.
        clips: clips of the global batch; one alone has nothing to be mixed with.
        clip_samples: length of every clip.
        probability: chance that anything is mixed in.
        most: largest number of snippets; 1 … most are equally likely.
        samples_range: shortest and longest snippet, in samples.
    """
    if generator.random() >= probability or clips < 2:
        return []
    snippets = []
    for _ in range(int(generator.integers(1, most + 1))):
        other = int(generator.integers(clips - 1))
        samples = int(generator.integers(samples_range[0], samples_range[1] + 1))
        source_start, start = (int(value) for value in generator.integers(clip_samples - samples + 1, size=2))
        snippets.append(Snippet(other + (other >= own), source_start, start, samples))
    return snippets
