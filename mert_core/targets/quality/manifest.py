"""Checks over the manifest: is the music that validates and tests really other music?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mert_core.data.manifest import SPLITS
from mert_core.targets.quality.table import SHOWN_TRACKS, Check, track_id
from mert_core.targets.track_stats import ALIKE_NUMBERS, EMPTY

if TYPE_CHECKING:
    from mert_core.config import GateConfig

Fingerprints = Iterable[tuple[NDArray[np.int64], NDArray[np.uint32]]]
_COMMON = 100  # a number that so many held-out tracks share tells nothing, and would cost much


def check_duplicates(tracks: pa.Table) -> list[Check]:
    """Check that no two splits have a track of the same samples."""
    digests, splits = tracks["digest"].to_numpy(), tracks["split"].to_numpy()
    # tracks of equal samples beside each other; of those, neighbors in different splits
    order = np.lexsort((splits, digests))
    same = (digests[order][1:] == digests[order][:-1]) & (splits[order][1:] != splits[order][:-1])
    pairs = [(int(order[index]), int(order[index + 1])) for index in np.flatnonzero(same)]
    if not pairs:
        return [Check("same audio in two splits", f"{len(tracks)} tracks", 0, "0", True)]
    advice = "the score on held-out music would be one on training music; remove one of the two from the corpus"
    checks = [
        Check("same audio in two splits", f"tracks {_pair(tracks, *pair)}", 1, "0", False, advice)
        for pair in pairs[:SHOWN_TRACKS]
    ]
    if len(pairs) > SHOWN_TRACKS:
        checks.append(Check("same audio in two splits: pairs", "all tracks", len(pairs), "0", False, advice))
    return checks


def check_alike(tracks: pa.Table, held_out: Fingerprints, train: Fingerprints, limits: GateConfig) -> list[Check]:
    """Check that few held-out tracks are, in another encoding or shifted, in the training split too.

    Args:
        tracks: all tracks.
        held_out: rows and fingerprints (tracks, numbers) of the validation and test tracks; all are held in memory.
        train: rows and fingerprints of the training tracks, which come one shard at a time.
        limits: thresholds.
    """
    mine = list(held_out)
    rows = np.concatenate([part for part, _ in mine]) if mine else np.zeros(0, dtype=np.int64)
    best: dict[int, tuple[int, int]] = {}  # by held-out track: numbers shared, row of the training track
    if mine:
        for training, index, shared in _alike(np.concatenate([part for _, part in mine]), train):
            if shared > best.get(index, (0, 0))[0]:
                best[index] = shared, training
    share = len(best) / max(len(rows), 1)
    passed = share <= limits.max_alike
    checks = [
        Check(
            "held-out tracks that are trained on",
            f"{len(rows)} tracks",
            share,
            f"<= {limits.max_alike:g}",
            passed,
            "the score on held-out music would be one on training music; put copies of a recording under one artist or "
            "leave them out of the corpus",
        )
    ]
    if not passed:
        worst = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:SHOWN_TRACKS]
        checks += [
            Check(
                "numbers of the sketch shared",
                f"tracks {_pair(tracks, training, int(rows[index]))}",
                shared,
                f"< {ALIKE_NUMBERS}",
                False,
                "the same recording, encoded again or shifted; listen to both and remove one from the corpus",
            )
            for index, (shared, training) in worst
        ]
    return checks


def _alike(held_out: NDArray[np.uint32], train: Fingerprints) -> Iterator[tuple[int, int, int]]:
    """Yield training row, index among the held-out tracks, and how many numbers of their fingerprints they share."""
    width = held_out.shape[1]
    order = np.argsort(held_out, axis=None, kind="stable")
    numbers, owners = held_out.reshape(-1)[order], order // width
    for rows, fingerprints in train:
        # where each number of the training tracks stands among the sorted numbers of the held-out ones
        queries = fingerprints.reshape(-1)
        first, last = np.searchsorted(numbers, queries, "left"), np.searchsorted(numbers, queries, "right")
        hits = np.flatnonzero((last > first) & (last - first < _COMMON) & (queries != EMPTY))
        # one entry for every (training number, held-out track that has it), counted by pair of tracks
        counts = (last - first)[hits]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        owner = owners[np.repeat(first[hits], counts) + within]
        pairs, shared = np.unique(np.repeat(hits // width, counts) * len(held_out) + owner, return_counts=True)
        for pair, count in zip(pairs[shared >= ALIKE_NUMBERS], shared[shared >= ALIKE_NUMBERS], strict=True):
            yield int(rows[pair // len(held_out)]), int(pair % len(held_out)), int(count)


def check_artists(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check that no artist is in two splits, unless that is allowed."""
    counted = tracks.group_by("artist").aggregate([("split", "count_distinct")])
    shared = sorted(counted.filter(pc.greater(counted["split_count_distinct"], 1))["artist"].to_pylist())
    if limits.shared_artists == "allow" or not shared:
        limit = "any" if limits.shared_artists == "allow" else "0"
        return [Check("artists in two splits", f"{counted.num_rows} artists", len(shared), limit, True)]
    advice = (
        "a voice or an instrument is known again, so the held-out score flatters; split by artist (one sub-folder "
        "each), or allow it with targets.gate.shared_artists=allow"
    )
    checks = []
    for artist in shared[:SHOWN_TRACKS]:
        numbers = pc.unique(tracks.filter(pc.equal(tracks["artist"], artist))["split"]).to_pylist()
        where = " and ".join(SPLITS[number] for number in sorted(numbers))
        checks.append(Check("artists in two splits", f"artist {artist} ({where})", len(numbers), "1", False, advice))
    if len(shared) > SHOWN_TRACKS:
        checks.append(Check("artists in two splits", "all artists", len(shared), "0", False, advice))
    return checks


def _pair(tracks: pa.Table, first: int, second: int) -> str:
    return " and ".join(f"{track_id(tracks, row)} ({SPLITS[tracks['split'][row].as_py()]})" for row in (first, second))
