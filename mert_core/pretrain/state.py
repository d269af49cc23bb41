"""Resume states: everything an interrupted run needs to go on as if nothing had happened, bit for bit on a CPU."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mert_core.errors import MertError
from mert_core.files import sha256_file, write_json

_STATE, _META, _RUN, _PREFIX = "state.pt", "meta.json", "run.json", "step-"


@dataclass
class Progress:
    """How far a run has come. Crops, masks and dropout noise follow from the step, so no generator state is needed.

    Attributes:
        step: optimiser updates done.
        first_loss: loss of the first update; divergence is judged against it.
        window: sums since the last logged point.
        curve: rows (step, split, term, value) so far.
    """

    step: int = 0
    first_loss: float | None = None
    window: Tensor | None = None
    curve: list[tuple[int, str, str, float]] = field(default_factory=list)


class StateStore:
    """The resume states of one run, one folder per step.

    Args:
        folder: the run's own; its name carries the hash of all that the run depends on.
        keep: how many states to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def begin(self, tracker_run_id: str | None) -> None:
        """Note the tracker's run, and clear away what a killed run was just writing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(unfinished)
        write_json(self.folder / _RUN, {"tracker_run_id": tracker_run_id})

    def tracker_run_id(self) -> str | None:
        """Return the tracker's run of an unfinished training, or None."""
        path = self.folder / _RUN
        return json.loads(path.read_text(encoding="utf-8"))["tracker_run_id"] if path.exists() else None

    def steps(self) -> list[int]:
        """Return the steps that have a state, ascending."""
        return sorted(int(path.name.removeprefix(_PREFIX)) for path in self.folder.glob(f"{_PREFIX}*"))

    def save(self, progress: Progress, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write a state whole or not at all, then drop the oldest beyond ``keep``."""
        temporary = self.folder / f".{_PREFIX}{progress.step:08d}"
        temporary.mkdir(parents=True)
        tensors = {
            "parameters": {name: value.detach() for name, value in module.named_parameters()},
            "optimiser": optimiser.state_dict(),
            "window": progress.window,
        }
        with (temporary / _STATE).open("wb") as stream:
            torch.save(tensors, stream)
            stream.flush()
            os.fsync(stream.fileno())
        write_json(
            temporary / _META,
            {
                "sha256": sha256_file(temporary / _STATE),
                "step": progress.step,
                "first_loss": progress.first_loss,
                "curve": progress.curve,
            },
        )
        final = self._folder(progress.step)
        if final.exists():  # a damaged state of this very step, passed over when the run was resumed
            shutil.rmtree(final)
        temporary.replace(final)
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self._folder(step))

    def newest(self) -> tuple[int | None, list[str]]:
        """Return the newest undamaged step, and a sentence about each damaged state above it."""
        damaged: list[str] = []
        for step in reversed(self.steps()):
            problem = self._problem(self._folder(step))
            if problem is None:
                return step, damaged
            damaged.append(f"the resume state of step {step} is damaged ({problem}); using the one before it")
        return None, damaged

    def load(self, step: int, module: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
        """Copy a state into the model and the optimiser, and return the progress it holds.

        Raises:
            MertError: it is of another architecture.
        """
        folder = self._folder(step)
        tensors = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        expected = dict(module.named_parameters())
        stored: dict[str, Tensor] = tensors["parameters"]
        if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in expected.items()}:
            raise MertError(
                f"{folder} is of another architecture than this run. Remove {self.folder} to train from the start."
            )
        with torch.no_grad():
            for name, parameter in expected.items():
                parameter.copy_(stored[name])
        optimiser.load_state_dict(tensors["optimiser"])
        meta = self._meta(folder)
        curve = [(int(row[0]), str(row[1]), str(row[2]), float(row[3])) for row in meta["curve"]]
        return Progress(int(meta["step"]), meta["first_loss"], tensors["window"], curve)

    def clear(self) -> None:
        """Remove all states: the run's output is final, and a forced run must train again."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _folder(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    @staticmethod
    def _meta(folder: Path) -> dict[str, Any]:
        return json.loads((folder / _META).read_text(encoding="utf-8"))

    def _problem(self, folder: Path) -> str | None:
        try:
            expected = self._meta(folder)["sha256"]
            found = sha256_file(folder / _STATE)
        except (OSError, json.JSONDecodeError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        return None if found == expected else "its checksum differs"
