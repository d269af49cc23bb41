"""The label gate: stops the line when labels are bad, before compute is spent on them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.frames import FRAME_RATE

if TYPE_CHECKING:
    from mert_core.config import Gate

_SHOWN_TRACKS = 5
_RANGE, _USAGE, _ENTROPY, _TOP = "codes out of range", "usage", "entropy bits", "top share"
_TRAIN_MORE = "train the teacher longer (teachers.acoustic.steps), on more music, or with fewer entries"
_ADVICE = {
    _RANGE: "store and teacher do not fit together; rerun `dvc repro --force teachers targets`",
    _USAGE: _TRAIN_MORE,
    _ENTROPY: _TRAIN_MORE,
    _TOP: "the commonest entry is often silence: trim the corpus; else train the teacher longer",
}


@dataclass(frozen=True)
class Check:
    """One line of the gate's table.

    Attributes:
        check: what was looked at.
        where: the codebook or the tracks.
        value: what was found.
        limit: what is allowed, readable.
        passed: whether it is.
        advice: what to do if not.
    """

    check: str
    where: str
    value: float
    limit: str
    passed: bool
    advice: str = ""


def count_codes(codes: NDArray[np.uint16], entries: int) -> NDArray[np.int64]:
    """Return how often each value occurs, int64 (codebooks, entries + 1); the last column is what is out of range."""
    clipped = np.minimum(codes, entries).astype(np.int64)
    return np.stack([np.bincount(clipped[:, book], minlength=entries + 1) for book in range(codes.shape[1])])


def check_codebooks(train: NDArray[np.int64], others: NDArray[np.int64], limits: Gate) -> list[Check]:
    """Check every codebook.

    Args:
        train: counts on the training split, as `count_codes` gives them (codebooks, entries + 1).
        others: the same over all other splits, where only the range matters.
        limits: thresholds.
    """
    checks = []
    for book, counts in enumerate(train):
        where = f"codebook {book}"
        inside = counts[:-1]
        total = int(inside.sum())
        shares = inside / max(total, 1)
        usage = float((inside > 0).mean())
        used = shares[shares > 0]
        entropy = float(-(used * np.log2(used)).sum()) if total else 0.0
        top = float(shares.max())
        outside = int(counts[-1] + others[book][-1])
        checks += [
            Check(_RANGE, where, outside, "0", outside == 0, _ADVICE[_RANGE]),
            Check(_USAGE, where, usage, f">= {limits.min_usage:g}", usage >= limits.min_usage, _ADVICE[_USAGE]),
            Check(
                _ENTROPY,
                where,
                entropy,
                f">= {limits.min_entropy_bits:g}",
                entropy >= limits.min_entropy_bits,
                _ADVICE[_ENTROPY],
            ),
            Check(_TOP, where, top, f"<= {limits.max_top_share:g}", top <= limits.max_top_share, _ADVICE[_TOP]),
        ]
    return checks


def check_lengths(
    track_ids: list[str], frames: NDArray[np.int64], seconds: NDArray[np.float64], limits: Gate
) -> list[Check]:
    """Check that every track has 75 frames per second; one line for all, and one for each of the first bad tracks."""
    drift = np.abs(frames - seconds * FRAME_RATE)
    limit = f"<= {limits.max_drift_frames:g}"
    advice = "corpus and targets do not fit together; rerun `dvc repro --force targets`"
    worst = float(drift.max()) if len(drift) else 0.0
    bad = np.flatnonzero(drift > limits.max_drift_frames)
    if not len(bad):
        return [Check("drift in frames", f"{len(frames)} tracks", worst, limit, True)]
    return [
        Check("drift in frames", f"track {track_ids[row]}", float(drift[row]), limit, False, advice)
        for row in bad[:_SHOWN_TRACKS]
    ] + ([Check("tracks that drift", "all tracks", len(bad), "0", False, advice)] if len(bad) > _SHOWN_TRACKS else [])


def as_table(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as rows for JSON and the tracker; values rounded to six digits."""
    return [{**asdict(check), "value": round(check.value, 6)} for check in checks]


def render(checks: list[Check]) -> str:
    """Return the table to print: a line per codebook, then the rest."""
    titles: list[str] = []
    books: dict[str, dict[str, Check]] = {}
    rest = []
    for check in checks:
        if not check.where.startswith("codebook"):
            rest.append(check)
            continue
        if check.check not in titles:
            titles.append(check.check)
        books.setdefault(check.where, {})[check.check] = check
    lines = ["label gate", "  " + " " * 14 + "".join(f"{title:>22}" for title in titles)]
    for where, row in books.items():
        cells = [f"{row[title].value:.4g} ({row[title].limit}){' ' if row[title].passed else '!'}" for title in titles]
        lines.append(f"  {where:<14}" + "".join(f"{cell:>22}" for cell in cells))
    lines += [
        f"  {check.where}: {check.check} {check.value:.4g} ({check.limit}){'' if check.passed else ' !'}"
        for check in rest
    ]
    failed = sum(not check.passed for check in checks)
    lines.append(f"  {len(checks)} checks, {failed} failed" + (" (marked !)" if failed else ""))
    return "\n".join(lines)


def explain(checks: list[Check]) -> str:
    """Return what failed and what to do, for the error; empty if nothing failed."""
    return "\n".join(
        f"  {check.where}: {check.check} is {check.value:.4g}, allowed {check.limit}; {check.advice}"
        for check in checks
        if not check.passed
    )
