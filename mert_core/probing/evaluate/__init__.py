"""Evaluators: from a task's clips and a frozen encoder to scores, one for each kind of answer."""

from __future__ import annotations

from mert_core.probing.evaluate.base import Evaluator
from mert_core.probing.evaluate.beats import BeatEvaluator
from mert_core.probing.evaluate.clips import ClassEvaluator, TagEvaluator, ValueEvaluator
from mert_core.probing.evaluate.separation import SeparationEvaluator
from mert_core.probing.tasks import TaskKind

EVALUATORS: dict[TaskKind, Evaluator] = {
    evaluator.kind: evaluator
    for evaluator in (ClassEvaluator(), TagEvaluator(), ValueEvaluator(), BeatEvaluator(), SeparationEvaluator())
}
