"""When resume states are written and read: at the start, every so many updates, and to set back a run gone wrong."""

from __future__ import annotations

import torch

from mert_core.errors import MertError
from mert_core.pretrain import snapshot
from mert_core.pretrain.health import are_finite
from mert_core.pretrain.objective import Objective
from mert_core.pretrain.observe import Observer
from mert_core.pretrain.place import Place
from mert_core.pretrain.state import Progress, StateStore


class Checkpoints:
    """The resume states of a run, as its loop uses them. All workers call every method together; the leader writes.

    Args:
        states: where they lie; None keeps none.
        objective: the model with its heads.
        optimiser: of it.
        place: of this worker.
        observer: is told what is written, read and passed over.
    """

    def __init__(
        self,
        states: StateStore | None,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        place: Place,
        observer: Observer,
    ) -> None:
        self._states, self._objective, self._optimiser = states, objective, optimiser
        self._place, self._observer = place, observer

    def resume(self, seed: int) -> Progress:
        """Go on from the newest undamaged state, or begin.

        Raises:
            MertError: the state is of another architecture or seed.
        """
        if self._states is None:
            return Progress(seed)
        step = self._newest(healthy=False)
        if step is None:
            return Progress(seed)
        self._say(f"going on from step {step}")
        progress = self._load(self._states, step)
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
        tensors = snapshot.take(self._objective, self._optimiser, keep=self._place.leads)
        if self._place.leads:
            if not are_finite(tensors["parameters"].values()):
                self._say(f"no resume state of step {progress.step}: weights are not finite. {self.intact()}.")
            else:
                try:
                    self._states.save(progress, tensors)
                except OSError as error:
                    self._say(
                        f"the resume state of step {progress.step} could not be written ({error}). {self.intact()}; "
                        "training goes on without a newer one. Free some disk space."
                    )
        self._place.wait()

    def roll_back(self, progress: Progress, rate_factor: float) -> Progress | None:
        """Return to the newest state without a standing fault, else to the newest, with a lower learning rate.

        What was spent and how often the policy has stepped in is kept, and so is the sampler's position.

        Returns:
            The progress to go on from; None when there is no state.
        """
        if self._states is None:
            return None
        step = self._newest(healthy=True)
        if step is None:
            step = self._newest(healthy=False)
        if step is None:
            return None
        earlier = self._load(self._states, step)
        self._place.wait()
        if self._place.leads:
            self._states.drop_after(step)
        guard = progress.guard
        earlier.position, earlier.totals = progress.position, progress.totals
        earlier.guard.interventions = guard.interventions
        earlier.guard.rate_factor = guard.rate_factor * rate_factor
        self._say(f"back to step {step}, learning rate × {earlier.guard.rate_factor:g}")
        self._place.wait()
        return earlier

    def intact(self) -> str:
        """Say which state is there to go on from."""
        step = self._states.newest()[0] if self._states is not None else None
        return "No resume state had been written yet" if step is None else f"The resume state of step {step} is intact"

    def _load(self, states: StateStore, step: int) -> Progress:
        shapes = {name: parameter.shape for name, parameter in self._objective.named_parameters()}
        progress, tensors = states.load(step, shapes)
        snapshot.put(tensors, self._objective, self._optimiser)
        return progress

    def _newest(self, healthy: bool) -> int | None:
        assert self._states is not None
        step, damaged = self._states.newest(healthy)
        self._place.wait()
        for sentence in damaged:
            self._say(sentence)
        return step

    def _say(self, text: str) -> None:
        if self._place.leads:
            self._observer.note(text)
