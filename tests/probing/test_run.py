from __future__ import annotations

import json
from pathlib import Path

from mert_core.config import Config
from mert_core.paths import Layout
from mert_core.probing.run import Subject, resolve, run_tasks
from mert_core.probing.tasks import tasks_named
from tests.probing.material import write_probe_set

NOTES = ["demo/nsynth_pitch", "demo/nsynth_instrument"]


def test_workers_embed_once_what_two_tasks_share(small: Config, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    write_probe_set(layout.probe_set)
    config = small.model_copy(update={"probe": small.probe.model_copy(update={"workers": 2})})
    tasks = [resolve(config, layout, task) for task in tasks_named(NOTES)]
    results = list(run_tasks(Subject("mel-statistics"), tasks, config, layout))
    assert [result.task for result in results] == NOTES
    cards = [json.loads(path.read_text()) for path in layout.caches.glob("embeddings/*/*.json")]
    embedded = [identity for card in cards for identity, *_ in card.get("sounds", [])]
    assert embedded
    assert len(embedded) == len(set(embedded))
