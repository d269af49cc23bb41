from __future__ import annotations

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.config import ProbeConfig, SweepConfig
from mert_core.datasets.demo import Demo
from mert_core.datasets.registry import DATASETS
from mert_core.probing.tasks import (
    PROXY_TASKS,
    PUBLIC_TASKS,
    TASKS,
    TaskKind,
    robustness_tasks,
    sweep_task,
    sweep_tasks,
)


def test_every_task_asks_what_its_data_set_answers() -> None:
    assert len(PUBLIC_TASKS) == len(PROXY_TASKS) == 14
    for name, task in PUBLIC_TASKS.items():
        assert task.name == name and not task.is_proxy
        assert task.question in DATASETS[task.dataset].questions
        assert (task.pooling == "frames") == (task.kind in (TaskKind.BEATS, TaskKind.STEMS))
        assert PROXY_TASKS[f"demo/{name}"].is_proxy and PROXY_TASKS[f"demo/{name}"].kind is task.kind


def test_what_depends_on_a_task_follows_from_its_row() -> None:
    one_answer = (TaskKind.SINGLE, TaskKind.MULTI, TaskKind.REGRESSION)
    assert set(sweep_tasks()) == {name for name, task in PROXY_TASKS.items() if task.kind in one_answer}
    assert robustness_tasks(ProbeConfig()) == ["demo/gtzan_genre"] and sweep_task(SweepConfig()) == "demo/gs_key"
    assert robustness_tasks(ProbeConfig(robustness={"tasks": []})) == [] and sweep_task(SweepConfig(task="x")) == "x"
    assert set(Demo().questions) == set(PUBLIC_TASKS)
    assert {"pitch", "gain"} <= set(DEFORMATIONS)
    both = {name: ("pitch", "gain") for name in ("demo/mtg_mood", "demo/mtg_top50")}
    pitch = ("gs_key", "nsynth_pitch", "demo/gs_key", "demo/nsynth_pitch", "demo/emo")
    changed = {name: task.changed_by for name, task in TASKS.items() if task.changed_by}
    assert changed == both | dict.fromkeys(pitch, ("pitch",))
