"""Judges: from a task's clips and a frozen encoder to scores, each for its kinds of answer."""

from __future__ import annotations

from collections.abc import Callable

from mert_core.probe.judges.beats import judge_beats
from mert_core.probe.judges.case import Case
from mert_core.probe.judges.clips import Judged, judge_clips
from mert_core.probe.judges.separation import judge_separation
from mert_core.probe.tasks import Kind

JUDGES: dict[Kind, Callable[[Case], Judged]] = {
    Kind.SINGLE: judge_clips,
    Kind.MULTI: judge_clips,
    Kind.REGRESSION: judge_clips,
    Kind.BEATS: judge_beats,
    Kind.STEMS: judge_separation,
}
