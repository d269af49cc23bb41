"""In-batch noise mixture: pieces of other clips laid over a clip; the targets stay those of the clean clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
        generator: the clip's own.
        own: the clip's place in the global batch; never its own source.
        clips: size of the global batch; one alone has nobody to be mixed with.
        clip_samples: length of every clip.
        probability: chance that anything is mixed in.
        most: largest number of snippets; 1 … most are equally likely.
        samples_range: shortest and longest snippet.
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
