from __future__ import annotations

from mert_core.datasets.registry import DATASETS
from mert_core.probing.tasks import DEMO, FOURTEEN, TaskKind


def test_every_task_asks_what_its_data_set_answers() -> None:
    assert len(FOURTEEN) == len(DEMO) == 14
    for name, task in FOURTEEN.items():
        assert task.name == name and not task.is_demo
        assert task.question in DATASETS[task.dataset].questions
        assert (task.pooling == "frames") == (task.kind in (TaskKind.BEATS, TaskKind.STEMS))
        assert DEMO[f"demo/{name}"].is_demo and DEMO[f"demo/{name}"].kind is task.kind
