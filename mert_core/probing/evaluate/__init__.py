"""Judges: from a task's clips and a frozen encoder to scores, each for its kinds of answer."""

from __future__ import annotations

from collections.abc import Callable

from mert_core.probing.evaluate.beats import judge_beats
from mert_core.probing.evaluate.case import EvalInputs
from mert_core.probing.evaluate.clips import Judged, judge_clips
from mert_core.probing.evaluate.separation import judge_separation
from mert_core.probing.tasks import TaskKind

JUDGES: dict[TaskKind, Callable[[EvalInputs], Judged]] = {
    TaskKind.SINGLE: judge_clips,
    TaskKind.MULTI: judge_clips,
    TaskKind.REGRESSION: judge_clips,
    TaskKind.BEATS: judge_beats,
    TaskKind.STEMS: judge_separation,
}
