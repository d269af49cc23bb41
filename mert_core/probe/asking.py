"""Which task is asked of whom, and of which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.corpus.datasets.clips import ClipSet
from mert_core.corpus.datasets.demo import Demo
from mert_core.corpus.datasets.registry import DATASETS, folder_of
from mert_core.errors import MertError
from mert_core.probe.tasks import TASKS, Task

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout
    from mert_core.probe.encoders import Encoder


@dataclass(frozen=True)
class Subject:
    """Who is probed.

    Attributes:
        name: as tables call it.
        model: folder or ``module:function``, for `mert_core.probe.adapters.open_encoder`; None: a run or floor.
    """

    name: str
    model: str | None = None

    def open(self, config: Config, layout: Layout) -> Encoder:
        """Return the encoder.

        Raises:
            MertError: no such run, or nothing that can be loaded.
        """
        from mert_core.probe.encoders import device_of, load_encoder

        if self.model is None:
            return load_encoder(config, layout, self.name)
        from mert_core.probe.adapters import open_encoder

        return open_encoder(self.model, device_of(config.pretrain.device))


@dataclass(frozen=True)
class Asked:
    """A task with the folder of its data set."""

    task: Task
    folder: Path

    @property
    def absent(self) -> str | None:
        """Why it cannot be asked here; None if it can. The probe set is no data set to ask for: the line makes it."""
        if self.task.is_demo or self.folder.is_dir():
            return None
        return f"{DATASETS[self.task.dataset].title} is not here"

    def clips(self) -> ClipSet:
        """Return the clips of the task's question.

        Raises:
            MertError: the data set is there, but not as it should be.
        """
        data = Demo() if self.task.is_demo else DATASETS[self.task.dataset]
        return data.read(self.folder, self.task.question)


def tasks_named(names: Sequence[str]) -> list[Task]:
    """Return tasks by name.

    Raises:
        MertError: there is no such task; the message lists all.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise MertError(f"no task is named {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return [TASKS[name] for name in dict.fromkeys(names)]


def ask(config: Config, layout: Layout, task: Task, data: Path | None = None) -> Asked:
    """Return a task with its data set's folder: ``data``, or where the parameters say."""
    if task.is_demo:
        return Asked(task, data or layout.probe_set)
    return Asked(task, data or folder_of(config, layout, task.dataset))
