from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from mert_core.datasets.registry import DATASETS
from mert_core.probing.tasks import DEMO, FOURTEEN, TASKS, TaskKind


def test_every_task_asks_what_its_data_set_answers() -> None:
    assert len(FOURTEEN) == len(DEMO) == 14
    for name, task in FOURTEEN.items():
        assert task.name == name and not task.is_demo
        assert task.question in DATASETS[task.dataset].questions
        assert (task.pooling == "frames") == (task.kind in (TaskKind.BEATS, TaskKind.STEMS))
        assert DEMO[f"demo/{name}"].is_demo and DEMO[f"demo/{name}"].kind is task.kind


def test_a_new_task_is_one_file(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mert_core"
    shutil.copytree(repository / "mert_core", copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "probe" / "tasks" / "gs_key.py").read_text()
    (copy / "probe" / "tasks" / "my_key.py").write_text(text.replace('name="gs_key"', 'name="my_key"'))
    code = "from mert_core.probing.tasks import FOURTEEN, TASKS; print('my_key' in TASKS, len(FOURTEEN))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "14"]
    assert "my_key" not in TASKS
