"""Masks and mixtures have the published shares and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from mert_core.config import Config
from mert_core.training.batches import crop_samples
from mert_core.training.corruption import draw_snippets, span_masks


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, row)) for row in range(count)]


def test_masked_share_is_the_published_one() -> None:
    alone = np.mean([span_masks([g], 374, 0.8, 5).mean() for g in generators(400)])
    assert alone == pytest.approx(0.583, abs=0.005)
    trimmed = np.mean([span_masks(generators(16, seed), 374, 0.8, 5).mean() for seed in range(60)])
    assert trimmed == pytest.approx(0.54, abs=0.01)


def test_spans_have_five_frames_and_trimming_uncovers_and_never_covers() -> None:
    alone = np.array([span_masks([generator], 374, 0.8, 5)[0] for generator in generators(16)])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], alone[0].astype(int), [0]])))
    assert (edges[1::2] - edges[::2]).min() >= 5
    together = span_masks(generators(16), 374, 0.8, 5)
    assert not (together & ~alone).any()
    assert set(together.sum(axis=1)) == {alone.sum(axis=1).min()}


@pytest.mark.parametrize("frames", [2, 7, 36])
def test_short_clips_are_masked_too(frames: int) -> None:
    masks = span_masks(generators(20), frames, 0.1, 5)
    assert masks.any(axis=1).all() and masks.shape == (20, frames)


@pytest.mark.parametrize(("run", "samples"), [("95m", (12000, 24000)), ("330m", (12000, 36000))])
def test_the_published_runs_have_the_published_corruption(config: Config, run: str, samples: tuple[int, int]) -> None:
    published = config.run(run)
    assert (published.mask_probability, published.mask_frames) == (0.8, 5)
    assert (published.mixture_probability, published.mixture_snippets) == (0.5, 3)
    assert tuple(round(seconds * 24000) for seconds in published.mixture_seconds) == samples
    clip = crop_samples(published.crop_seconds)
    assert clip == {"95m": 120000, "330m": 122880}[run]
    generator = np.random.default_rng(0)
    drawn = [draw_snippets(generator, 3, 16, clip, 0.5, 3, samples) for _ in range(3000)]
    mixed = [row for row in drawn if row]
    assert len(mixed) / len(drawn) == pytest.approx(0.5, abs=0.03)
    for count in (1, 2, 3):
        assert np.mean([len(row) == count for row in mixed]) == pytest.approx(1 / 3, abs=0.04)
    flat = [snippet for row in mixed for snippet in row]
    assert {s.source for s in flat} == set(range(16)) - {3}
    assert all(min(s.start, s.source_start) >= 0 and max(s.start, s.source_start) + s.samples <= clip for s in flat)
    lengths = np.array([snippet.samples for snippet in flat])
    assert samples[0] <= lengths.min() < samples[0] + 100 and samples[1] - 100 < lengths.max() <= samples[1]
    assert lengths.mean() == pytest.approx(sum(samples) / 2, rel=0.02)
    assert draw_snippets(generator, 0, 1, clip, 1.0, 3, samples) == [], "one clip alone has nothing to be mixed with"
