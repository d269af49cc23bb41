"""Percentile bootstrap over test items."""

from __future__ import annotations

import numpy as np

from mert_core.probe.metrics import Points

RESAMPLES_AT_ONCE = 1000


def interval(points: Points, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the mean score, items drawn with replacement.

    An item carries its mean over the probe seeds: the interval is that of the seed-averaged score, and a resample draws
    the same items for every seed.

    Args:
        points: what each item earned (seeds, items).
        resamples: how many resamples; 1,000 by default in ``params.yaml``.
        seed: of the resampling.
        level: probability that the interval is to cover.
    """
    per_item = points.mean(axis=0)
    items = len(per_item)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        # How often each item is drawn is all that a mean needs.
        counts = generator.multinomial(items, np.full(items, 1 / items), size=min(RESAMPLES_AT_ONCE, resamples - start))
        means[start : start + len(counts)] = counts @ per_item / items
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
