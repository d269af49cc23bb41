"""Resume states on disk: everything an interrupted run needs to go on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mert_core.errors import MertError
from mert_core.files import sha256_file, sha256_json, write_json
from mert_core.training.callbacks import Observer
from mert_core.training.cost import Totals
from mert_core.training.distributed import is_sharded, share_like, whole
from mert_core.training.health import HealthState
from mert_core.training.loss import Objective, Sums
from mert_core.training.worker import Worker

Tensors = dict[str, Any]
"""``parameters`` by name, and the ``optimizer``'s state dictionary."""


def parameters_of(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return the parameters by name, whole; all workers must call this together.

    Args:
        module: the model. Parameters that are shared out are gathered one by one, on the CPU; else nothing is copied.
        keep: whether this worker wants the parameters; another one helps to gather them and gets nothing.
    """
    if not (keep or is_sharded(module)):
        return {}
    gathered = ((name, _gathered(value.detach(), keep)) for name, value in module.named_parameters())
    return {name: value for name, value in gathered if value is not None}


# torch.distributed.checkpoint.state_dict does the like, but its `get_state_dict` makes an update of its own (at rate 0)
# where an optimizer has no state yet: Adam's bias correction would begin at step 2, and all later updates be others.
def gather_state(module: nn.Module, optimizer: torch.optim.Optimizer, keep: bool) -> Tensors:
    """Return parameters and optimizer as `parameters_of` does; the format is the same, shared out or not."""
    if not (keep or is_sharded(module)):
        return {}
    stored = optimizer.state_dict()
    for number, moments in stored["state"].items():
        stored["state"][number] = {name: _gathered(value, keep) for name, value in moments.items()}
    return {"parameters": parameters_of(module, keep), "optimizer": stored}


def _gathered(tensor: Tensor, keep: bool) -> Tensor | None:
    gathered = whole(tensor)
    if gathered is tensor:
        return tensor
    return gathered.cpu() if keep else None


@torch.no_grad()
def scatter_state(tensors: Tensors, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy what `gather_state` returned into a model and an optimizer of the same shapes, shared out or not."""
    for name, parameter in module.named_parameters():
        parameter.copy_(share_like(tensors["parameters"][name], parameter))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {
            name: share_like(value, trained[number]) if value.shape == trained[number].shape else value
            for name, value in moments.items()
        }
        for number, moments in tensors["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**tensors["optimizer"], "state": state})


FORMAT = 3
"""Number of the states' format; runs do not go on from states of another one."""
_STATE, _META, _RUN, _PREFIX = "state.pt", "meta.json", "run.json", "step-"


@dataclass
class Progress:
    """How far a run has come.

    All randomness follows from the seed and from where the run stands: crops, masks and mixtures from (seed, epoch,
    index), dropout and layer drop from (seed, step, rank). So these numbers are the state of every generator.

    Attributes:
        seed: seed of all randomness of the run.
        step: updates done; the schedule's rate follows from it, and from the health state's rate factor.
        position: crops taken since the start. A rollback sets back the step, not the position, so that the crops at
            which training failed are not met at once again.
        first_loss: loss of the first update; an explosion is judged against it.
        window: sums of the loss terms since the last logged point; empty while there are none.
        curve: rows (step, split, term, value) so far.
        health: memory of the health policy.
        totals: what the run has cost so far.
    """

    seed: int = 0
    step: int = 0
    position: int = 0
    first_loss: float | None = None
    window: Sums = field(default_factory=dict)
    curve: list[tuple[int, str, str, float]] = field(default_factory=list)
    health: HealthState = field(default_factory=HealthState)
    totals: Totals = field(default_factory=Totals)

    def plain(self) -> dict[str, Any]:
        """Return all but the window as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "window"}

    def record(self, split: str, terms: dict[str, float]) -> None:
        """Add terms to the curve."""
        self.curve.extend((self.step, split, name, value) for name, value in terms.items())

    @classmethod
    def from_plain(cls, stored: dict[str, Any], window: Sums) -> Progress:
        """Return what ``plain`` was made from."""
        nested = {
            "curve": [tuple(row) for row in stored["curve"]],
            "health": HealthState(**stored["health"]),
            "totals": Totals(**stored["totals"]),
            "window": window,
        }
        return cls(**{**stored, **nested})


class StateStore:
    """The resume states of one run, one folder per step.

    Args:
        folder: folder of this run alone; its name carries the hash of all that the run depends on.
        keep: number of states to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def begin(self, tracker_run_id: str | None) -> None:
        """Note the tracker's run, which goes into every state, and clear away what a killed run was just writing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(unfinished)
        write_json(self.folder / _RUN, {"tracker_run_id": tracker_run_id})

    def tracker_run_id(self) -> str | None:
        """Return the tracker's run of an unfinished training, or None."""
        for path in (self.folder / _RUN, *(self._folder(step) / _META for step in reversed(self.steps()))):
            try:
                return json.loads(path.read_text(encoding="utf-8"))["tracker_run_id"]
            except (OSError, json.JSONDecodeError, KeyError):
                continue  # not begun, or damaged: every state knows it, too
        return None

    def steps(self) -> list[int]:
        """Return the steps that have a state, ascending."""
        return sorted(int(path.name.removeprefix(_PREFIX)) for path in self.folder.glob(f"{_PREFIX}*"))

    def save(self, progress: Progress, tensors: Tensors) -> None:
        """Write a state whole or not at all, then drop the oldest beyond ``keep``, but not the last without a fault.

        Raises:
            OSError: the disk is full or fails; nothing of the state is left, and all earlier ones are.
        """
        temporary, final = self.folder / f".{_PREFIX}{progress.step:08d}", self._folder(progress.step)
        shutil.rmtree(temporary, ignore_errors=True)  # of a worker that died while writing it
        try:
            temporary.mkdir(parents=True)
            with (temporary / _STATE).open("wb") as stream:
                try:
                    torch.save({**tensors, "window": progress.window}, stream)
                except RuntimeError as error:  # torch's writer in C++ replaces the OSError of a full disk by its own
                    raise OSError(f"{temporary / _STATE} cannot be written: {error}") from error
                stream.flush()
                os.fsync(stream.fileno())
            plain = progress.plain()
            hashes = {"sha256": sha256_file(temporary / _STATE), "progress_sha256": sha256_json(plain)}
            write_json(temporary / _META, {**hashes, "progress": plain, "tracker_run_id": self.tracker_run_id()})
            if final.exists():  # a damaged state of this very step, passed over when the run was resumed
                shutil.rmtree(final)
            temporary.replace(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        surplus = self.steps()[: -self.keep]
        good = self.newest(healthy=True)[0] if surplus and progress.health.standing else None
        for step in surplus:
            if step != good:
                shutil.rmtree(self._folder(step))

    def newest(self, healthy: bool = False) -> tuple[int | None, list[str]]:
        """Return the newest undamaged step, and a sentence about each damaged state above it.

        States that were written while a fault stood are passed over, too, if it is to be ``healthy``.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            try:
                meta = self._meta(step)
                hashes = sha256_file(self._folder(step) / _STATE), sha256_json(meta["progress"])
                problem = "" if hashes == (meta["sha256"], meta["progress_sha256"]) else "its checksum differs"
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                damaged.append(f"the resume state of step {step} is damaged ({problem}); using the one before it")
            elif not (healthy and meta["progress"]["health"]["standing"]):
                return step, damaged
        return None, damaged

    def load(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Copy a state into model and optimizer, and return its progress.

        Raises:
            MertError: it is of another architecture.
        """
        folder = self._folder(step)
        tensors = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        if {name: tensor.shape for name, tensor in tensors["parameters"].items()} != shapes:
            raise MertError(
                f"{folder} is of another architecture than this run. Remove {self.folder} to train from the start."
            )
        scatter_state(tensors, module, optimizer)
        return Progress.from_plain(self._meta(step)["progress"], tensors["window"])

    def drop_after(self, step: int) -> None:
        """Remove the states above a step, to which training was set back."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self._folder(later))

    def clear(self) -> None:
        """Remove all states: the run's output is final, and a forced run must train again."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _folder(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def _meta(self, step: int) -> dict[str, Any]:
        return json.loads((self._folder(step) / _META).read_text(encoding="utf-8"))


class Checkpoints:
    """The resume states of a run, as its loop uses them: parameters, the optimizer's moments and the progress.

    All workers call every method together; the leader writes, and notes what is written, read and passed over. Without
    a store (``states`` is None) nothing is written.
    """

    def __init__(
        self,
        states: StateStore | None,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        observer: Observer,
    ) -> None:
        self._states, self._objective, self._optimizer = states, objective, optimizer
        self._worker, self._observer = worker, observer

    def resume(self, seed: int) -> Progress:
        """Go on from the newest undamaged state, or begin.

        Raises:
            MertError: the state is of another architecture or seed.
        """
        step = self._newest()
        if self._states is None or step is None:
            return Progress(seed)
        self._observer.note(f"going on from step {step}")
        progress = self._states.load(step, self._objective, self._optimizer)
        if progress.seed != seed:
            raise MertError(
                f"the resume state in {self._states.folder} is of seed {progress.seed}, this run's is {seed}. Remove "
                "that folder to train from the start."
            )
        return progress

    def save(self, progress: Progress) -> None:
        """Write a state; a full disk or broken weights are told and leave the states before as they are."""
        if self._states is None:
            return
        tensors = gather_state(self._objective, self._optimizer, keep=self._worker.leads)
        if self._worker.leads:
            if not all(bool(weight.isfinite().all()) for weight in tensors["parameters"].values()):
                self._observer.note(
                    f"no resume state of step {progress.step}: weights are not finite. {self.intact()}."
                )
            else:
                try:
                    self._states.save(progress, tensors)
                except OSError as error:
                    self._observer.note(
                        f"the resume state of step {progress.step} could not be written ({error}). {self.intact()}; "
                        "training goes on without a newer one. Free some disk space."
                    )
        self._worker.wait()

    def roll_back(self, progress: Progress, rate_factor: float) -> Progress | None:
        """Return to the newest state without a standing fault, else to the newest, with a lower learning rate.

        What was spent and how often the policy has stepped in is kept, and so is the sampler's position.

        Returns:
            The progress to go on from; None when there is no state.
        """
        step = self._newest(healthy=True)
        if step is None:
            step = self._newest()
        if self._states is None or step is None:
            return None
        earlier = self._states.load(step, self._objective, self._optimizer)
        self._worker.wait()
        if self._worker.leads:
            self._states.drop_after(step)
        earlier.position, earlier.totals = progress.position, progress.totals
        earlier.health.interventions = progress.health.interventions
        earlier.health.rate_factor = progress.health.rate_factor * rate_factor
        self._observer.note(f"back to step {step}, learning rate × {earlier.health.rate_factor:g}")
        self._worker.wait()
        return earlier

    def intact(self) -> str:
        """Say which state is there to go on from."""
        step = self._states.newest()[0] if self._states is not None else None
        return "No resume state had been written yet" if step is None else f"The resume state of step {step} is intact"

    def _newest(self, healthy: bool = False) -> int | None:
        if self._states is None:
            return None
        step, damaged = self._states.newest(healthy)
        self._worker.wait()
        for sentence in damaged:
            self._observer.note(sentence)
        return step
