"""What tasks, metrics, models and inputs are called where people read."""

from __future__ import annotations

from collections.abc import Iterable

from mert_core.probing.metrics import METRIC_TITLES
from mert_core.probing.tasks import TASKS
from mert_core.report.published import BESIDE_ENDING, counts, fourteen_metrics

DEMO_PREFIX = "demo/"
WEIGHTED = "weighted"


def plain(name: str) -> str:
    """Return a name for people: ``random-weights`` → ``random weights``."""
    return name.replace("-", " ").replace("_", " ")


def metric_title(metric: str) -> str:
    """Return a metric's name: ``r2_valence`` → ``R² valence``."""
    if metric in METRIC_TITLES:
        return METRIC_TITLES[metric]
    kind, _, rest = metric.partition("_")
    if kind == "sdr":
        stem = rest.removesuffix(BESIDE_ENDING)
        return f"{'SDR' if stem == rest else 'museval'} {plain(stem)}"
    return f"R² {plain(rest)}" if kind == "r2" else plain(metric)


def task_title(task: str) -> str:
    """Return a task's title; a proxy task goes by its name, so that nobody takes it for the real one."""
    return task if TASKS[task].is_proxy else TASKS[task].title


def is_decibel(metric: str) -> bool:
    """Return whether a metric is a ratio in dB; all others are shares of one."""
    return metric.startswith("sdr")


def input_title(state: int | str) -> str:
    """Return the name of a probe's input: a hidden state, or the learned sum of all."""
    return "weighted sum" if state == WEIGHTED else f"state {state}"


def ordered(task: str, metrics: Iterable[str]) -> list[str]:
    """Return a task's metrics: those that papers give first, in their order, what is reported beside them last.

    A proxy task's are in the order of its declaration, then by name.
    """
    first = TASKS[task].metrics if TASKS[task].is_proxy else fourteen_metrics()[task]
    return sorted(metrics, key=lambda name: (not counts(name), first.index(name) if name in first else 99, name))
