"""The fourteen tasks of MARBLE (arXiv 2306.10548) and their proxies on performed scores, which need no data set.

A task is one row of the table below. Whatever else depends on a task follows from its row: its proxy, the robustness
curves that make sense (`Task.changed_by`), whether a sweep may use it (`sweep_tasks`). How it is scored follows from
its kind of answer (`mert_core.probing.evaluate`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from mert_core.errors import MertError

if TYPE_CHECKING:
    from mert_core.config import ProbeConfig, SweepConfig

Pooling = Literal["mean", "frames"]


class TaskKind(StrEnum):
    """The kind of a task's labels; see `mert_core.datasets.base.Label`."""

    SINGLE = "single"
    MULTI = "multi"
    REGRESSION = "regression"
    BEATS = "beats"
    STEMS = "stems"


@dataclass(frozen=True)
class Chunking:
    """How a clip is cut before it is embedded: windows side by side, without overlap.

    A last window shorter than half of ``seconds`` is left out, unless it is the only one. Nothing is padded.

    Attributes:
        seconds: length of a window; None: the whole clip.
        limit_seconds: where a clip ends at the latest; None: nowhere.
    """

    seconds: float | None = None
    limit_seconds: float | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: identifier in tables and files; a proxy's begins with ``demo/``.
        title: for people.
        dataset: name in `mert_core.datasets.registry`.
        question: one of the data set's questions.
        kind: kind of the labels, which decides how the task is scored.
        metrics: names in the tables. The first selects on validation; ``r2`` and ``sdr`` stand for one figure per
            class of the clip set (``r2_valence``) and select by their mean.
        chunking: how clips are cut.
        pooling: ``mean``: one vector per window and hidden state; ``frames``: time is kept.
        max_epochs: published limit.
        changed_by: deformations (`mert_core.audio.degrade`) that make a label untrue: a shifted pitch is another key.
        proxy_changed_by: those that make only the label of the task's proxy untrue.
        proxy_serves: what its proxy is taken for where the parameters name no task: it is probed on degraded music,
            too (``robustness``), or it judges the trials of a sweep (``sweep``).
    """

    name: str
    title: str
    dataset: str
    question: str
    kind: TaskKind
    metrics: tuple[str, ...]
    chunking: Chunking = Chunking()
    pooling: Pooling = "mean"
    max_epochs: int = 100
    changed_by: tuple[str, ...] = ()
    proxy_changed_by: tuple[str, ...] = ()
    proxy_serves: tuple[Literal["robustness", "sweep"], ...] = ()

    @property
    def is_proxy(self) -> bool:
        """Whether this is a proxy on performed scores, never to stand beside published figures."""
        return self.name.startswith("demo/")


_CLASS = TaskKind.SINGLE, ("accuracy",)
_TAGS = TaskKind.MULTI, ("roc_auc", "ap")

_MARBLE = (
    # MagnaTagATune's fifty commonest tags, clips of 29 s as they are. Proxy: sounding instruments, of some forty.
    Task("mtt", "MagnaTagATune tagging", "mtt", "tags", *_TAGS),
    # The key of electronic dance music, by MIREX's weighted score. Proxy: the key of an excerpt.
    Task(
        "gs_key",
        "GiantSteps key",
        "giantsteps",
        "key",
        TaskKind.SINGLE,
        ("weighted_score",),
        Chunking(30.0),
        changed_by=("pitch",),
        proxy_serves=("sweep",),
    ),
    # Ten genres on GTZAN's fault-filtered division. Proxy: one of eight composers or traditions.
    Task("gtzan_genre", "GTZAN genre", "gtzan", "genre", *_CLASS, Chunking(30.0), proxy_serves=("robustness",)),
    # Beats by GTZAN-Rhythm's annotations: a probe per frame, then the tempo model. Proxy: beats of the score.
    Task(
        "gtzan_rhythm",
        "GTZAN rhythm",
        "gtzan",
        "rhythm",
        TaskKind.BEATS,
        ("f_measure", "f_measure_20ms"),
        pooling="frames",
    ),
    # Valence and arousal of the first 30 s in windows of 5 s. Proxy: how dense an excerpt's notes are, how high:
    # a shifted pitch is another register.
    Task(
        "emo",
        "EMO emotion",
        "emo",
        "emotion",
        TaskKind.REGRESSION,
        ("r2",),
        Chunking(5.0, limit_seconds=30.0),
        proxy_changed_by=("pitch",),
    ),
    # Eleven instrument families of single notes. Proxy: the same.
    Task("nsynth_instrument", "NSynth instrument", "nsynth", "instrument", *_CLASS, max_epochs=50),
    # The MIDI pitch of single notes. Proxy: the same.
    Task("nsynth_pitch", "NSynth pitch", "nsynth", "pitch", *_CLASS, max_epochs=50, changed_by=("pitch",)),
    # Ten vocal techniques in windows of 3 s without silence, singers unseen. Proxy: articulation, performers unseen.
    Task("vocalset_technique", "VocalSet technique", "vocalset", "technique", *_CLASS, Chunking(3.0)),
    # Which of twenty singers, in windows of 3 s without silence. Proxy: which performer plays a phrase.
    Task("vocalset_singer", "VocalSet singer", "vocalset", "singer", *_CLASS, Chunking(3.0)),
    # Forty instrument tags, split 0, windows of 30 s over the track. Proxy: instrument families that sound.
    Task("mtg_instrument", "MTG-Jamendo instrument", "mtg_jamendo", "instrument", *_TAGS, Chunking(30.0)),
    # Fifty-six mood and theme tags. Proxy: tags of mood that follow from mode, tempo, density and loudness: the
    # tags low and high move with the pitch, soft and loud with the gain.
    Task(
        "mtg_mood",
        "MTG-Jamendo mood/theme",
        "mtg_jamendo",
        "moodtheme",
        *_TAGS,
        Chunking(30.0),
        proxy_changed_by=("pitch", "gain"),
    ),
    # Eighty-seven genre tags. Proxy: tags of period, function and texture.
    Task("mtg_genre", "MTG-Jamendo genre", "mtg_jamendo", "genre", *_TAGS, Chunking(30.0)),
    # The fifty commonest tags. Proxy: the commonest tags of all the kinds above.
    Task(
        "mtg_top50",
        "MTG-Jamendo top 50",
        "mtg_jamendo",
        "top50tags",
        *_TAGS,
        Chunking(30.0),
        proxy_changed_by=("pitch", "gain"),
    ),
    # Vocals, drums, bass and the rest, by signal-to-distortion ratio. Proxy: stems of performed scores, by role.
    Task(
        "musdb18", "MUSDB18 separation", "musdb18", "stems", TaskKind.STEMS, ("sdr",), Chunking(6.0), pooling="frames"
    ),
)

PUBLIC_TASKS: dict[str, Task] = {task.name: task for task in _MARBLE}
"""The tasks with published figures, in MARBLE's order."""

PROXY_TASKS: dict[str, Task] = {
    f"demo/{name}": replace(
        task,
        name=f"demo/{name}",
        title=f"{task.title} (proxy)",
        dataset="demo",
        question=name,
        chunking=Chunking() if task.pooling == "mean" else task.chunking,
        changed_by=task.changed_by + task.proxy_changed_by,
        proxy_changed_by=(),
    )
    for name, task in PUBLIC_TASKS.items()
}
"""The proxies: the demo's data set has one question per task, and short clips that are embedded whole, once for all
tasks that use them."""

TASKS: dict[str, Task] = PUBLIC_TASKS | PROXY_TASKS


def tasks_named(names: Sequence[str]) -> list[Task]:
    """Return tasks by name or pattern (``demo/*``), each once.

    Raises:
        MertError: there is no such task; the message lists all.
    """
    matching = {name: fnmatch.filter(TASKS, name) for name in names}
    if unknown := [name for name, tasks in matching.items() if not tasks]:
        raise MertError(f"no task is named {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return [TASKS[name] for name in dict.fromkeys(name for tasks in matching.values() for name in tasks)]


def sweep_tasks() -> tuple[str, ...]:
    """Return the tasks that can score the trials of a sweep: proxies with one answer per clip."""
    return tuple(name for name, task in PROXY_TASKS.items() if task.pooling == "mean")


def robustness_tasks(settings: ProbeConfig) -> list[str]:
    """Return the tasks that are probed on degraded music, too: those of the parameters, or those whose rows say so."""
    named = settings.robustness.tasks
    return (
        named
        if named is not None
        else [name for name, task in PROXY_TASKS.items() if "robustness" in task.proxy_serves]
    )


def sweep_task(settings: SweepConfig) -> str:
    """Return the task that judges the trials of a sweep: that of the parameters, or the one whose row says so."""
    return settings.task or next(name for name, task in PROXY_TASKS.items() if "sweep" in task.proxy_serves)
