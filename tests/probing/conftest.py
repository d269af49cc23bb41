from __future__ import annotations

from pathlib import Path

import pytest

from mert_core.config import Config, load_config
from mert_core.paths import Layout
from tests.probing.material import write_probe_set

TASKS = ("demo/gs_key", "demo/gtzan_genre", "demo/nsynth_pitch", "gtzan_genre")


@pytest.fixture(autouse=True)
def _state_beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERT_HOME", raising=False)


@pytest.fixture(scope="session")
def small(repository: Path) -> Config:
    """Small probes, of three proxies and of a set that is not here."""
    changes = [
        "threads=1",
        "probe.hidden=32",
        "probe.demo.max_epochs=8",
        "probe.bootstrap=100",
        f"probe.tasks={list(TASKS)}",
        "probe.max_epochs=8",
        "probe.rates=[1.0e-3, 5.0e-3]",
        "probe.robustness={tasks: [demo/nsynth_pitch], clips: 6}",
        "sweep.task=demo/nsynth_pitch",
    ]
    return load_config(repository / "params.yaml", changes)


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A working directory with a probe set of tones."""
    layout = Layout.at(tmp_path_factory.mktemp("work"))
    write_probe_set(layout.probe_set)
    return layout
