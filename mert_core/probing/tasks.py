"""The fourteen tasks of MARBLE (arXiv 2306.10548) and their stand-ins from performed scores; one entry each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Pooling = Literal["mean", "frames"]


class TaskKind(StrEnum):
    """What the answer to a task's question is; see `mert_core.datasets.base.Label`."""

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
        limit_seconds: what follows is left out; None: all is used.
    """

    seconds: float | None = None
    limit_seconds: float | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as tables and files call it; a stand-in's begins with ``demo/``.
        title: for people.
        dataset: name in `mert_core.datasets.registry`.
        question: one of the data set's.
        kind: of the answer.
        metrics: names in the tables. The first selects on validation; ``r2`` and ``sdr`` stand for one figure per
            class of the clip set (``r2_valence``) and select by their mean.
        chunking: how clips are cut.
        pooling: ``mean``: one vector per window and hidden state; ``frames``: time is kept.
        max_epochs: published limit.
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

    @property
    def is_demo(self) -> bool:
        """Whether this is a stand-in from performed scores, never to stand beside published figures."""
        return self.name.startswith("demo/")


RANDOM_WEIGHTS = "random-weights"
MEL_STATISTICS = "mel-statistics"
FLOORS = (RANDOM_WEIGHTS, MEL_STATISTICS)
"""Probed like runs, to say what pre-training adds."""

_MARBLE = (
    # MagnaTagATune's fifty commonest tags, clips of 29 s as they are. Stand-in: sounding instruments, of some forty.
    Task("mtt", "MagnaTagATune tagging", "mtt", "tags", TaskKind.MULTI, ("roc_auc", "ap")),
    # The key of electronic dance music, by MIREX's weighted score. Stand-in: the key of an excerpt.
    Task("gs_key", "GiantSteps key", "giantsteps", "key", TaskKind.SINGLE, ("weighted_score",), Chunking(30.0)),
    # Ten genres on GTZAN's fault-filtered division. Stand-in: one of eight composers or traditions.
    Task("gtzan_genre", "GTZAN genre", "gtzan", "genre", TaskKind.SINGLE, ("accuracy",), Chunking(30.0)),
    # Beats by GTZAN-Rhythm's annotations: a probe per frame, then the tempo model. Stand-in: beats of the score.
    Task(
        "gtzan_rhythm",
        "GTZAN rhythm",
        "gtzan",
        "rhythm",
        TaskKind.BEATS,
        ("f_measure", "f_measure_20ms"),
        pooling="frames",
    ),
    # Valence and arousal of the first 30 s in windows of 5 s. Stand-in: how dense an excerpt's notes are, how high.
    Task("emo", "EMO emotion", "emo", "emotion", TaskKind.REGRESSION, ("r2",), Chunking(5.0, limit_seconds=30.0)),
    # Eleven instrument families of single notes. Stand-in: the same.
    Task(
        "nsynth_instrument", "NSynth instrument", "nsynth", "instrument", TaskKind.SINGLE, ("accuracy",), max_epochs=50
    ),
    # The MIDI pitch of single notes. Stand-in: the same.
    Task("nsynth_pitch", "NSynth pitch", "nsynth", "pitch", TaskKind.SINGLE, ("accuracy",), max_epochs=50),
    # Ten vocal techniques in windows of 3 s without silence, singers unseen. Stand-in: articulation, performers unseen.
    Task(
        "vocalset_technique",
        "VocalSet technique",
        "vocalset",
        "technique",
        TaskKind.SINGLE,
        ("accuracy",),
        Chunking(3.0),
    ),
    # Which of twenty singers, in windows of 3 s without silence. Stand-in: which performer plays a phrase.
    Task("vocalset_singer", "VocalSet singer", "vocalset", "singer", TaskKind.SINGLE, ("accuracy",), Chunking(3.0)),
    # Forty instrument tags, split 0, windows of 30 s over the track. Stand-in: instrument families that sound.
    Task(
        "mtg_instrument",
        "MTG-Jamendo instrument",
        "mtg_jamendo",
        "instrument",
        TaskKind.MULTI,
        ("roc_auc", "ap"),
        Chunking(30.0),
    ),
    # Fifty-six mood and theme tags. Stand-in: tags of mood that follow from mode, tempo, density and loudness.
    Task(
        "mtg_mood",
        "MTG-Jamendo mood/theme",
        "mtg_jamendo",
        "moodtheme",
        TaskKind.MULTI,
        ("roc_auc", "ap"),
        Chunking(30.0),
    ),
    # Eighty-seven genre tags. Stand-in: tags of period, function and texture.
    Task("mtg_genre", "MTG-Jamendo genre", "mtg_jamendo", "genre", TaskKind.MULTI, ("roc_auc", "ap"), Chunking(30.0)),
    # The fifty commonest tags. Stand-in: the commonest tags of all the kinds above.
    Task(
        "mtg_top50", "MTG-Jamendo top 50", "mtg_jamendo", "top50tags", TaskKind.MULTI, ("roc_auc", "ap"), Chunking(30.0)
    ),
    # Vocals, drums, bass and the rest, by signal-to-distortion ratio. Stand-in: stems of performed scores, by role.
    Task(
        "musdb18", "MUSDB18 separation", "musdb18", "stems", TaskKind.STEMS, ("sdr",), Chunking(6.0), pooling="frames"
    ),
)

FOURTEEN: dict[str, Task] = {task.name: task for task in _MARBLE}
"""The tasks with published figures, in MARBLE's order."""

DEMO: dict[str, Task] = {
    f"demo/{name}": replace(
        task,
        name=f"demo/{name}",
        title=f"{task.title} (stand-in)",
        dataset="demo",
        question=name,
        chunking=Chunking() if task.pooling == "mean" else task.chunking,
    )
    for name, task in FOURTEEN.items()
}
"""The same questions of performed scores: the demo's data set has one question per task, and
short clips that are embedded whole, once for all tasks that ask of them."""

TASKS: dict[str, Task] = FOURTEEN | DEMO
