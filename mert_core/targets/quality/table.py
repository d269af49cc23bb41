"""A check's outcome, and the table of all of them: to print, for the tracker and for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

SHOWN_TRACKS = 5


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


def track_checks(
    check: str, tracks: pa.Table, bad: Iterable[int], values: NDArray[Any], worst: float, limit: str, advice: str
) -> list[Check]:
    """Return one line if no track is bad, else one for each of the first bad ones and, if there are more, their number.

    Args:
        check: name of the property.
        tracks: all tracks.
        bad: rows of the tracks that fail.
        values: (tracks,) the property's values.
        worst: value for the one line if none fails.
        limit: the allowed values, readable.
        advice: what to do about a bad track.
    """
    rows = list(bad)
    if not rows:
        return [Check(check, f"{len(tracks)} tracks", float(worst), limit, True)]
    lines = [
        Check(check, f"track {track_id(tracks, row)}", float(values[row]), limit, False, advice)
        for row in rows[:SHOWN_TRACKS]
    ]
    if len(rows) > SHOWN_TRACKS:
        lines.append(Check(f"{check}: tracks", "all tracks", len(rows), "0", False, advice))
    return lines


def track_id(tracks: pa.Table, row: int) -> str:
    """Return the id of the track in a row."""
    return str(tracks["track_id"][int(row)])


def as_table(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as rows for JSON and the tracker; values rounded to six digits."""
    return [{**asdict(check), "value": round(check.value, 6)} for check in checks]


def render(checks: list[Check], title: str = "label gate") -> str:
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
    lines = [title]
    if books:
        lines.append("  " + " " * 14 + "".join(f"{title:>22}" for title in titles))
    for where, row in books.items():
        cells = [
            f"{_short(row[title].value)} ({row[title].limit}){' ' if row[title].passed else '!'}" for title in titles
        ]
        lines.append(f"  {where:<14}" + "".join(f"{cell:>22}" for cell in cells))
    lines += [
        f"  {check.where}: {check.check} {_short(check.value)} ({check.limit}){'' if check.passed else ' !'}"
        for check in rest
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
