"""The quality gate: stops the pipeline when labels or music are bad, before compute is spent on them.

`judge` runs every check over the table of tracks and the statistics of their targets. Each check gives one or more
lines (`Check`) with a value, its limit and, if it failed, what to do. The checks ask three questions: are the labels
something that a student can learn, is the music what the manifest says, and is the music that validates other music?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mert_core.audio.grid import FRAME_RATE, SAMPLE_RATE
from mert_core.data.manifest import SPLITS
from mert_core.data.target_kinds import Codes, TargetKind
from mert_core.targets.shards import Arrays
from mert_core.targets.track_stats import ALIKE_NUMBERS, EMPTY

if TYPE_CHECKING:
    from mert_core.config import GateConfig

Fingerprints = Iterable[tuple[NDArray[np.int64], NDArray[np.uint32]]]
"""Rows and fingerprints (tracks, numbers) of some tracks, shard by shard."""

DEAD_SHARE = 1e-3
"""A bin whose standard deviation is below this share of the median bin's is dead."""
SILENT_TRACK = 0.95
"""A track with a larger share of silent frames counts as silent."""
_SHOWN = 5  # tracks, bins, shards or artists that are named
_COMMON = 100  # a number that so many held-out tracks share tells nothing, and would cost much
_ANEW = "remove the teacher's folder under data/targets and run `mert targets` for it again"
_TRAIN_MORE = "train the teacher longer (steps, under teachers in params.yaml), on more music, or with fewer entries"


@dataclass(frozen=True)
class Check:
    """One line of the gate's table.

    Attributes:
        check: name of the property.
        where: codebook or tracks that have it.
        value: the property's value there.
        limit: the allowed values, readable.
        passed: whether the value is allowed.
        advice: what to do if not.
    """

    check: str
    where: str
    value: float
    limit: str
    passed: bool
    advice: str = ""


def judge(
    tracks: pa.Table,
    statistics: Arrays,
    kind: TargetKind,
    labeled_by: Mapping[str, str],
    teacher: tuple[str, str],
    held_out: Fingerprints,
    train: Fingerprints,
    limits: GateConfig,
) -> list[Check]:
    """Return every check of the gate.

    Args:
        tracks: all tracks (`mert_core.targets.shards.TRACK_TABLE`).
        statistics: what `mert_core.targets.shards.target_statistics` gives, of all targets.
        kind: what the teacher's targets are.
        labeled_by: id of the teacher that labeled each shard, by the shard's name.
        teacher: name and id of the present teacher.
        held_out: fingerprints of the validation and test tracks; all are held in memory.
        train: fingerprints of the training tracks, which come one shard at a time.
        limits: thresholds.
    """
    if isinstance(kind, Codes):
        checks = check_codebooks(statistics["counts"], limits) + check_invalid(tracks, "codes out of range")
    else:
        checks = check_bins(statistics, limits) + check_invalid(tracks, "values that are not finite")
    return [
        *checks,
        *check_lengths(tracks, limits),
        *check_teachers(labeled_by, *teacher),
        *check_rate(tracks),
        *check_content(tracks),
        *check_bandwidth(tracks, limits),
        *check_silence(tracks, limits),
        *check_duplicates(tracks),
        *check_alike(tracks, held_out, train, limits),
        *check_artists(tracks, limits),
    ]


def as_table(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as rows for JSON and the tracker; values rounded to six digits."""
    return [{**asdict(check), "value": round(check.value, 6)} for check in checks]


def render(checks: list[Check], title: str = "label gate") -> str:
    """Return the table to print: a line per codebook, then the rest."""
    books: dict[str, list[Check]] = {}
    for check in checks:
        if check.where.startswith("codebook"):
            books.setdefault(check.where, []).append(check)
    lines = [title]
    for where, row in books.items():
        if len(lines) == 1:
            lines.append("  " + " " * 14 + "".join(f"{check.check:>22}" for check in row))
        cells = [f"{_short(check.value)} ({check.limit}){' ' if check.passed else '!'}" for check in row]
        lines.append(f"  {where:<14}" + "".join(f"{cell:>22}" for cell in cells))
    lines += [
        f"  {check.where}: {check.check} {_short(check.value)} ({check.limit}){'' if check.passed else ' !'}"
        for check in checks
        if check.where not in books
    ]
    failed = sum(not check.passed for check in checks)
    lines.append(f"  {len(checks)} checks, {failed} failed" + (" (marked !)" if failed else ""))
    return "\n".join(lines)


def explain(checks: list[Check]) -> str:
    """Return what failed and what to do, for the error; empty if nothing failed."""
    return "\n".join(
        f"  {check.where}: {check.check} is {_short(check.value)}, allowed {check.limit}; {check.advice}"
        for check in checks
        if not check.passed
    )


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _at_least(check: str, where: str, value: float, limit: float, advice: str) -> Check:
    return Check(check, where, value, f">= {limit:g}", value >= limit, advice)


def _at_most(check: str, where: str, value: float, limit: float, advice: str) -> Check:
    return Check(check, where, value, f"<= {limit:g}", value <= limit, advice)


def _each(passed: Check, bad: Sequence[tuple[str, float]], limit: str, advice: str, things: str) -> list[Check]:
    """Return a line that all is well, or one for each of the first bad things and, if there are more, their number."""
    if not bad:
        return [passed]
    lines = [Check(passed.check, where, value, limit, False, advice) for where, value in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(Check(f"{passed.check}: {things}", "all tracks", len(bad), "0", False, advice))
    return lines


def _each_track(
    check: str, tracks: pa.Table, bad: NDArray[Any], values: NDArray[Any], worst: float, limit: str, advice: str
) -> list[Check]:
    """Return lines for the tracks in the rows ``bad``; one line with the worst value if there are none."""
    named = [(f"track {_id(tracks, row)}", float(values[row])) for row in bad]
    return _each(Check(check, f"{len(tracks)} tracks", float(worst), limit, True), named, limit, advice, "tracks")


def _with_examples(whole: Check, lines: Iterable[Check]) -> list[Check]:
    """Return a line about all tracks and, if it failed, the first of the lines about single ones."""
    return [whole] if whole.passed else [whole, *islice(lines, _SHOWN)]


def _id(tracks: pa.Table, row: int) -> str:
    return str(tracks["track_id"][int(row)])


# Labels


def check_codebooks(counts_by_split: NDArray[np.int64], limits: GateConfig) -> list[Check]:
    """Check every codebook on the training split; of the other splits only the range of the codes matters.

    ``counts_by_split`` (splits, codebooks, entries + 1) says how often each code occurs, the training split first; its
    last column counts codes out of range.
    """
    silence = "the commonest entry is often silence: trim the corpus; else train the teacher longer"
    checks = []
    for book, counts in enumerate(counts_by_split[0, :, :-1]):
        where, outside = f"codebook {book}", int(counts_by_split[:, book, -1].sum())
        shares = counts / max(int(counts.sum()), 1)
        used = shares[counts > 0]
        entropy = 0.0 - float((used * np.log2(used)).sum())
        misfit = f"store and teacher do not fit together; {_ANEW}"
        checks += [
            Check("codes out of range", where, outside, "0", outside == 0, misfit),
            _at_least("usage", where, float((counts > 0).mean()), limits.min_usage, _TRAIN_MORE),
            _at_least("entropy bits", where, entropy, limits.min_entropy_bits, _TRAIN_MORE),
            _at_most("top share", where, float(shares.max()), limits.max_top_share, silence),
        ]
    return checks


def check_bins(statistics: Arrays, limits: GateConfig) -> list[Check]:
    """Check a spectrum's bins: how many do not vary on the training split, and the largest magnitude anywhere."""
    deviation = bin_deviations(statistics)[0]
    dead = np.flatnonzero(deviation <= DEAD_SHARE * np.median(deviation))
    some = ", ".join(map(str, dead[:_SHOWN])) + (", …" if len(dead) > _SHOWN else "")
    ends = np.concatenate([np.abs(statistics["least"]), np.abs(statistics["most"])])
    return [
        _at_most(
            "dead bins",
            f"bins {some}" if len(dead) else f"{len(deviation)} bins",
            len(dead) / len(deviation),
            limits.max_dead_bins,
            "these never change, so there is nothing to learn from them: music of a lower sample rate leaves the upper "
            "ones empty; take a teacher of fewer bins, or other music",
        ),
        _at_most(
            "largest magnitude",
            "all tracks",
            float(ends[np.isfinite(ends)].max(initial=0.0)),
            limits.max_magnitude,
            "a squared error hears little else than such values; scale the teacher's targets or take their logarithm",
        ),
    ]


def bin_deviations(statistics: Arrays) -> NDArray[np.float64]:
    """Return each bin's standard deviation by split (splits, bins); 0 where a split has no music."""
    frames = np.maximum(statistics["frames"], 1)[:, None]
    mean = statistics["sums"] / frames
    return np.sqrt(np.maximum(statistics["squares"] / frames - np.square(mean), 0.0))


def check_invalid(tracks: pa.Table, what: str) -> list[Check]:
    """Check that no track has codes out of range, or values that are not finite; the bad tracks are named."""
    advice = f"the teacher gave what it may not: look at the track's audio; if it is sound, {_ANEW}"
    invalid = tracks["invalid"].to_numpy()
    return _each_track(what, tracks, np.flatnonzero(invalid), invalid, 0, "0", advice)


def check_lengths(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check that every track has 75 frames per second."""
    drift = np.abs(tracks["frames"].to_numpy() - tracks["seconds"].to_numpy() * FRAME_RATE)
    bad = np.flatnonzero(drift > limits.max_drift_frames)
    advice = f"corpus and targets do not fit together; {_ANEW}"
    limit = f"<= {limits.max_drift_frames:g}"
    return _each_track("drift in frames", tracks, bad, drift, drift.max(initial=0.0), limit, advice)


def check_teachers(labeled_by: Mapping[str, str], teacher: str, teacher_id: str) -> list[Check]:
    """Check that the present teacher labeled all shards, and so training and validation music alike."""
    name = "labelled by another teacher"
    checks = [
        Check(
            name,
            f"shard {shard}",
            1,
            "0",
            False,
            f"it was labelled by {labeler[:12]}…, not by the present {teacher} ({teacher_id[:12]}…), so that training "
            f"and validation would not mean the same; {_ANEW}",
        )
        for shard, labeler in sorted(labeled_by.items())
        if labeler != teacher_id
    ]
    return checks[:_SHOWN] or [Check(name, f"{len(labeled_by)} shards", 0, "0", True)]


# Sound


def check_rate(tracks: pa.Table) -> list[Check]:
    """Check that every track has 24,000 samples for each of its seconds."""
    samples, seconds = tracks["samples"].to_numpy(), tracks["seconds"].to_numpy()
    rates = samples / np.maximum(seconds, 1e-9)
    off = np.abs(rates - SAMPLE_RATE)
    bad = np.flatnonzero(off * seconds > 1.0)  # by more than one sample over the whole track
    advice = (
        "its seconds and its samples belong to different rates, so all its frames would be in the wrong place; remake "
        "the corpus with `mert corpus`"
    )
    worst = rates[int(off.argmax())] if len(rates) else SAMPLE_RATE
    return _each_track("samples per second", tracks, bad, rates, worst, f"{SAMPLE_RATE}", advice)


def check_content(tracks: pa.Table) -> list[Check]:
    """Check that the samples that were labeled are those whose hash the manifest has."""
    other = ~tracks["same_audio"].to_numpy()
    advice = (
        "the manifest points at other audio than it was written for; restore both with `dvc checkout data/corpus`, or "
        "remake them with `mert corpus`"
    )
    return _each_track("audio is not the manifest's", tracks, np.flatnonzero(other), other, 0, "0", advice)


def check_bandwidth(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check that few tracks end in a wall far below half the rate that their source claims: those were upsampled."""
    wall_hertz, source_rates = tracks["wall_hertz"].to_numpy(), tracks["source_rate"].to_numpy()
    share = np.where(wall_hertz > 0, wall_hertz / (np.minimum(source_rates, SAMPLE_RATE) / 2), 1.0)
    bad = np.flatnonzero(share < limits.min_bandwidth)
    whole = _at_most(
        "upsampled tracks",
        f"{len(share)} tracks",
        len(bad) / max(len(share), 1),
        limits.max_upsampled,
        "their files claim a higher rate than the music in them has: find the originals, or leave them out of the "
        "corpus",
    )

    def example(row: int) -> Check:
        wall = wall_hertz[row]
        usual = (8000, 11025, 12000, 16000, 22050)  # the lowest whose music reaches the wall
        rate = next((rate for rate in usual if rate / 2 * 1.02 >= wall), SAMPLE_RATE)
        advice = (
            f"its spectrum ends in a wall at {wall:,.0f} Hz, as if resampled from {rate:,} Hz, but its source claims "
            f"{source_rates[row]:,} Hz; find the original"
        )
        where, limit = f"track {_id(tracks, row)}", f">= {limits.min_bandwidth:g}"
        return Check("bandwidth", where, float(share[row]), limit, False, advice)

    return _with_examples(whole, map(example, bad.tolist()))


def check_silence(tracks: pa.Table, limits: GateConfig) -> list[Check]:
    """Check how much of the music is silent, and how many tracks are hardly anything else."""
    silent, frames = tracks["silent_frames"].to_numpy(), tracks["frames"].to_numpy()
    share = silent / np.maximum(frames, 1)
    bad = np.flatnonzero(share > SILENT_TRACK)
    trim = "a student learns little from silence and its one code: trim or leave out the quietest tracks"
    whole = float(silent.sum() / max(int(frames.sum()), 1))
    some = len(bad) / max(len(share), 1)
    checks = [
        _at_most("silence", "all tracks", whole, limits.max_silence, trim),
        _at_most(
            "silent tracks", f"{len(share)} tracks", some, limits.max_silent_tracks, "leave them out of the corpus"
        ),
    ]
    if not checks[1].passed:
        advice = "listen to its source; a wrong channel, a failed recording? Leave it out of the corpus"
        checks += _each_track("silence", tracks, bad, share, 0, f"<= {SILENT_TRACK:g}", advice)
    return checks


# Other music to validate on


def check_duplicates(tracks: pa.Table) -> list[Check]:
    """Check that no two splits have a track of the same samples."""
    digests, splits = tracks["digest"].to_numpy(), tracks["split"].to_numpy()
    # tracks of equal samples beside each other; of those, neighbors in different splits
    order = np.lexsort((splits, digests))
    same = (digests[order][1:] == digests[order][:-1]) & (splits[order][1:] != splits[order][:-1])
    pairs = [(f"tracks {_pair(tracks, order[at], order[at + 1])}", 1) for at in np.flatnonzero(same)]
    advice = "the score on held-out music would be one on training music; remove one of the two from the corpus"
    passed = Check("same audio in two splits", f"{len(tracks)} tracks", 0, "0", True)
    return _each(passed, pairs, "0", advice, "pairs")


def check_alike(tracks: pa.Table, held_out: Fingerprints, train: Fingerprints, limits: GateConfig) -> list[Check]:
    """Check that few held-out tracks are, in another encoding or shifted, in the training split too."""
    mine = list(held_out)
    rows = np.concatenate([part for part, _ in mine]) if mine else np.zeros(0, dtype=np.int64)
    best: dict[int, tuple[int, int]] = {}  # by held-out track: numbers shared, row of the training track
    if mine:
        for training, index, shared in _alike(np.concatenate([part for _, part in mine]), train):
            if shared > best.get(index, (0, 0))[0]:
                best[index] = shared, training
    whole = _at_most(
        "held-out tracks that are trained on",
        f"{len(rows)} tracks",
        len(best) / max(len(rows), 1),
        limits.max_alike,
        "the score on held-out music would be one on training music; put copies of a recording under one artist or "
        "leave them out of the corpus",
    )
    advice = "the same recording, encoded again or shifted; listen to both and remove one from the corpus"
    limit, name = f"< {ALIKE_NUMBERS}", "numbers of the sketch shared"
    examples = (
        Check(name, f"tracks {_pair(tracks, training, rows[index])}", shared, limit, False, advice)
        for index, (shared, training) in sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    )
    return _with_examples(whole, examples)


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
    counted = tracks.group_by("artist").aggregate([("split", "distinct")])
    several = counted.filter(pc.greater(pc.list_value_length(counted["split_distinct"]), 1)).to_pylist()
    allowed = limits.shared_artists == "allow"
    passed = Check("artists in two splits", f"{len(counted)} artists", len(several), "any" if allowed else "0", True)
    if allowed:
        return [passed]
    shared = [
        (f"artist {artist} ({' and '.join(SPLITS[number] for number in sorted(splits))})", len(splits))
        for artist, splits in sorted((row["artist"], row["split_distinct"]) for row in several)
    ]
    advice = (
        "a voice or an instrument is known again, so the held-out score flatters; split by artist (one sub-folder "
        "each), or allow it with targets.gate.shared_artists=allow"
    )
    return _each(passed, shared, "1", advice, "artists")


def _pair(tracks: pa.Table, first: int, second: int) -> str:
    rows = int(first), int(second)
    return " and ".join(f"{_id(tracks, row)} ({SPLITS[tracks['split'][row].as_py()]})" for row in rows)
