"""Facts that another teacher's run has found: they depend on the music alone, so each recording is looked at once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.files import atomic_path
from mert_core.targets import facts, landmarks
from mert_core.targets.plan import ShardPlan


class KnownFacts:
    """A cache of `TRACK_FACTS`, one file per PCM shard, by the shard's checksum and by the code that found them."""

    def __init__(self, caches: Path) -> None:
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (facts, landmarks))
        self._folder = caches / "facts" / hashlib.sha256(code).hexdigest()[:16]

    def on(self, plan: ShardPlan) -> ShardPlan:
        """Return the plan with what is known of its tracks; as it was if nothing is."""
        try:
            found = np.load(self._path(plan))
        except (OSError, ValueError):  # none, or one that cannot be read: they are found anew
            return plan
        return (
            replace(plan, facts=found) if found.shape == plan.rows.shape and found.dtype == facts.TRACK_FACTS else plan
        )

    def keep(self, plan: ShardPlan, found: NDArray[np.void]) -> None:
        """Remember the facts of a shard's tracks (tracks,), in the plan's order."""
        if plan.facts is None:
            path = self._path(plan)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, found)

    def _path(self, plan: ShardPlan) -> Path:
        return self._folder / f"{plan.pcm_sha256}.npy"
