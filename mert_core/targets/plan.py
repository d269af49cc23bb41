"""What is to be labelled: the corpus's shards, and each in units of tracks that are labelled together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mert_core.audio import pcm
from mert_core.audio.frames import HOP_SAMPLES
from mert_core.corpus import Corpus
from mert_core.corpus.manifest import SHARDS_NAME
from mert_core.errors import MertError

BATCH_SAMPLES = {"cpu": 4_000_000, "cuda": 32_000_000}
"""Samples in one unit, padding included: almost three minutes, or 22. A longer track is a unit of its own."""


@dataclass(frozen=True)
class ShardPlan:
    """One PCM shard and its tracks.

    Attributes:
        shard: its number.
        pcm_sha256: of its bytes.
        rows: (tracks,) of the manifest, in order of their offsets.
        offsets: (tracks,) in samples.
        samples: (tracks,).
        facts: (tracks,) of `mert_core.targets.facts.TRACK_FACTS`, if they are known already.
    """

    shard: int
    pcm_sha256: str
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int64]
    facts: NDArray[np.void] | None = None

    @property
    def frames(self) -> int:
        """Frames of the target shard: up to the end of its last track."""
        return int((self.offsets + self.samples).max()) // HOP_SAMPLES


@dataclass(frozen=True)
class Unit:
    """Tracks of one shard that are labelled together.

    Attributes:
        shard: number of the shard.
        places: (tracks,) within the shard's plan.
        offsets: (tracks,) in samples.
        samples: (tracks,).
        facts: (tracks,) of `mert_core.targets.facts.TRACK_FACTS`, if they are known already.
    """

    shard: int
    places: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int64]
    facts: NDArray[np.void] | None = None


def plan_shards(corpus: Corpus) -> list[ShardPlan]:
    """Return the corpus's shards in order.

    Raises:
        MertError: the corpus's record does not know a shard.
    """
    shards = corpus.column("shard").astype(np.int64)
    offsets, files = corpus.column("offset_samples"), corpus.record.files
    order = np.lexsort((offsets, shards))
    plans = []
    for rows in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
        shard = int(shards[rows[0]])
        name = f"{SHARDS_NAME}/{pcm.shard_name(shard)}"
        if name not in files:
            raise MertError(f"the record of {corpus.folder} has no checksum of {name}. Run `dvc repro corpus`.")
        plans.append(ShardPlan(shard, files[name], rows, offsets[rows], corpus.samples[rows]))
    return plans


def units(plans: Iterable[ShardPlan], padded: bool, batch_samples: int) -> Iterator[Unit]:
    """Return each shard's tracks in units; they depend on the corpus alone, so that the targets' bytes do.

    Args:
        plans: shards.
        padded: whether tracks of different lengths may be labelled together, with silence after the shorter ones.
        batch_samples: the most in a unit of several tracks, padding included.
    """
    for plan in plans:
        places: list[int] = []
        for place in np.argsort(plan.samples, kind="stable").tolist():
            length = int(plan.samples[place])
            alike = padded or not places or length == plan.samples[places[0]]
            if places and (not alike or (len(places) + 1) * length > batch_samples):
                yield _unit(plan, places)
                places = []
            places.append(place)
        yield _unit(plan, places)


def _unit(plan: ShardPlan, places: list[int]) -> Unit:
    chosen = np.array(places, dtype=np.int64)
    facts = None if plan.facts is None else plan.facts[chosen]
    return Unit(plan.shard, chosen, plan.offsets[chosen], plan.samples[chosen], facts)
