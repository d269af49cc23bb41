"""One trial, run by Ray in a process of its own: the pre-training loop with other loss weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.config import Config, Pretrain
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.model import MertModel

SCORE = "score"
STEP = "step"


@dataclass(frozen=True)
class Task:
    """All a trial needs to know, without an open file or a relative path.

    Attributes:
        parameters: the whole configuration as plain data.
        root: absolute working directory.
        state: absolute state folder.
    """

    parameters: dict[str, Any]
    root: str
    state: str


def trial_params(config: Config, weights: dict[str, float]) -> Pretrain:
    """Return the swept run's parameters with other weights, in process, validated where ASHA decides.

    Learning rate and its schedule stay the run's own: a trial is the beginning of that run.
    """
    base = config.run(config.sweep.run)
    changes = {
        "teachers": [term.model_dump() | {"weight": weights.get(term.teacher, term.weight)} for term in base.teachers],
        "workers": 0,
        "max_steps": config.sweep.max_steps,
        "validate_every": min(config.sweep.grace_steps, config.sweep.max_steps),
    }
    return Pretrain.model_validate(base.model_dump() | changes)


def run_trial(weights: dict[str, float], task: Task) -> None:
    """Train with the given weights and report the probe's score after each validation; a Ray Tune trainable.

    The score judges, not the weighted loss, whose scale moves with the weights. Each unweighted term is reported, too.
    """
    os.environ["MERT_HOME"] = task.state
    from ray import tune

    from mert_core.pretrain.stage import run_trial as train
    from mert_core.probe import quick_score

    config = Config.model_validate(task.parameters)
    layout = Layout.at(Path(task.root))

    def report(step: int, terms: dict[str, float], model: MertModel) -> None:
        score = quick_score(model, config, layout, config.sweep.task)
        tune.report({STEP: step, SCORE: score, **{f"valid/{name}": value for name, value in terms.items()}})

    train(config, layout, trial_params(config, weights), report)
