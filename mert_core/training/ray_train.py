"""A run on Ray: an actor for each worker, whose events this process hears.

    placement group     one bundle for each worker, so that two runs cannot hold half of a cluster each
    actors              a process for each bundle; they tell where they are and form torch's process group
    streams             what each worker says while it works, then its facts
    a failure           all actors are ended and started again; they go on from the newest resume state

Ray Train is not used: its controller, coordinator and synchronization actors are processes that start one after the
other. For the demo's student they took seven of the twenty seconds to the first update.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mert_core.cluster import cluster_gpus, ray_running
from mert_core.errors import MertError
from mert_core.training.callbacks import Event, Observer, QueueObserver, SilentObserver

if TYPE_CHECKING:
    from mert_core.training.run import Job

_OBJECT_STORE_BYTES = 100 * 2**20  # nothing large passes through it
_PATIENCE = timedelta(minutes=30)  # how long a worker waits for the others: reading a resume state, compiling
_FACTS = "facts"


@contextmanager
def start_ray(workers: int, threads: int) -> Iterator[None]:
    """Have Ray run for the block; `work_on_ray` then uses it. What a run needs is imported while Ray starts.

    Args:
        workers: number of workers of the run.
        threads: CPU threads of each worker.
    """
    import ray  # noqa: F401 - before the thread, so that no two threads import the same

    importing = threading.Thread(
        target=lambda: [import_module(name) for name in ("mert_core.training.stage", "mlflow")]
    )
    importing.start()
    with ray_running(workers, threads, _OBJECT_STORE_BYTES):
        importing.join()
        yield


def work_on_ray(job: Job, observer: Observer) -> dict[str, Any]:
    """Train with ``job.params.workers`` Ray workers and return the facts of the outcome.

    On a cluster (``RAY_ADDRESS``), all folders of the job must be shared.

    A worker that dies is replaced, up to ``job.params.max_worker_failures`` times: all of them start again, and go on
    from the newest resume state. A ``MertError`` would only come again, so it ends the run at once.

    Args:
        job: the run.
        observer: hears what the leading worker says, in this process, which has the tracker and the terminal.

    Raises:
        MertError: a worker raised one, or workers died more often than allowed; the message carries the error.
    """
    workers, allowed = job.params.workers, job.params.max_worker_failures
    with ray_running(workers, job.threads, _OBJECT_STORE_BYTES):
        cuda = use_gpus(job.params.device, workers)
        for failures in range(allowed + 1):
            try:
                return _train(job, cuda, observer)
            except _WorkerFailure as failure:
                if failures == allowed:
                    raise MertError(f"training worker {failure}") from failure
                observer.note(
                    f"a training worker died ({failure}); all are started again, {failures + 1} of {allowed} allowed"
                )
    raise AssertionError("a run ends with its facts or an error")


def use_gpus(wanted: str, workers: int) -> bool:
    """Return whether each worker asks for a GPU: where the cluster has any, unless the CPU is wanted.

    Raises:
        MertError: cuda is wanted and there is none, or the cluster has fewer than there are workers.
    """
    gpus = cluster_gpus(wanted)
    if 0 < gpus < workers:  # Ray would wait for the others without end
        raise MertError(
            f"the run asks for {workers} workers, each with a GPU, but the Ray cluster has {gpus}. "
            f"Set pretrain.workers: {gpus} or pretrain.device: cpu, or add machines."
        )
    return gpus > 0


class _WorkerFailure(Exception):
    """A worker was lost, or failed in a way that may not come again."""


def _train(job: Job, cuda: bool, observer: Observer) -> dict[str, Any]:
    """Start the workers, pass on what they say until all have finished, and end them."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    world = job.params.workers
    group = placement_group([{"CPU": 1.0, "GPU": 1.0} if cuda else {"CPU": 1.0}] * world, strategy="PACK")
    actors: list[Any] = []  # Ray types a handle as the class itself
    try:
        if not group.wait(timeout_seconds=10):
            each = "a CPU and a GPU" if cuda else "a CPU"
            observer.note(f"waiting for the Ray cluster: {world} workers ask for {each} each (see `ray status`)")
            while not group.wait(timeout_seconds=60):
                pass
        remote = ray.remote(num_cpus=1, num_gpus=int(cuda))(TrainWorker)
        for rank in range(world):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            actors.append(remote.options(scheduling_strategy=strategy).remote(rank, world))
        return _follow(actors, job, observer)
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)


def _follow(actors: list[Any], job: Job, observer: Observer) -> dict[str, Any]:
    """Let the actors work, tell the observer what the leading one says, and return its facts."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    facts: dict[str, Any] = {}
    streams: dict[Any, int] = {}
    rank = 0
    try:
        places: list[tuple[str, list[str]]] = ray.get([actor.place.remote() for actor in actors])
        address: str = ray.get(actors[0].free_address.remote())
        for rank, (actor, (node, gpus)) in enumerate(zip(actors, places, strict=True)):
            # NCCL reaches another GPU of the machine directly only where each process sees all of the run's.
            visible = sorted({gpu for place, ids in places if place == node for gpu in ids})
            streams[actor.work.remote(job, address, visible, visible.index(gpus[0]) if gpus else None)] = rank
        while streams:
            stream: Any = ray.wait(list(streams), num_returns=1)[0][0]
            rank = streams[stream]
            try:
                name, arguments = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            if name == _FACTS:
                facts = arguments
            else:
                getattr(observer, name)(*arguments)
    except RayTaskError as error:
        if isinstance(error.cause, MertError):
            raise MertError(f"training worker {rank} failed: {error.cause}") from error
        # Where one is killed, the others lose their connection to it and may be heard of first.
        raise _WorkerFailure(_lost(streams) or f"{rank} failed: {error.cause!r}") from error
    except RayError as error:  # its process died, memory ran out, or its machine went away
        raise _WorkerFailure(f"{rank} was lost: {error}") from error
    return facts


def _lost(streams: dict[Any, int], seconds: float = 3.0) -> str | None:
    """Say which worker's process is gone, if one is, within a time."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    end = time.monotonic() + seconds
    while streams and (left := end - time.monotonic()) > 0:
        ready: list[Any] = ray.wait(list(streams), num_returns=1, timeout=left)[0]
        for stream in ready:
            try:
                ray.get(next(stream))
            except (RayTaskError, StopIteration):
                del streams[stream]
            except RayError as error:
                return f"{streams[stream]} was lost: {error}"
    return None


class TrainWorker:
    """The actor: one worker of a run in a process of its own.

    Args:
        rank: which of the workers.
        world: how many there are.
    """

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._world = rank, world

    def place(self) -> tuple[str, list[str]]:
        """Return the machine's id, and the ids of the GPUs that Ray has given this process."""
        import ray

        context = ray.get_runtime_context()
        return context.get_node_id(), list(context.get_accelerator_ids().get("GPU", []))

    def free_address(self) -> str:
        """Return an address of this machine at which the workers can meet."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def work(self, job: Job, address: str, visible: list[str], gpu: int | None) -> Iterator[Event]:
        """Do this worker's share; the leading worker yields what its observer hears, then the facts.

        Args:
            job: the run.
            address: where the workers meet.
            visible: ids of the run's GPUs on this machine.
            gpu: index of the own one among them, None on the CPU.
        """
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        if visible:  # before CUDA starts in this process
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible)
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(_work, job, self._rank, self._world, address, gpu, events)
            outcome.add_done_callback(lambda _: events.put(None))
            while (event := events.get()) is not None:
                yield event
            facts = outcome.result()
        if self._rank == 0:
            yield _FACTS, facts


def _work(
    job: Job, rank: int, world: int, address: str, gpu: int | None, events: queue.SimpleQueue[Event | None]
) -> dict[str, Any]:
    """Meet the other workers and do one's share of the job."""
    import torch
    from torch import distributed

    from mert_core.parallel import choose_device
    from mert_core.training.run import work
    from mert_core.training.worker import Worker

    choose_device("cpu" if gpu is None else "cuda")  # the GPU that Ray has assigned must be one for torch, too
    device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
    if gpu is not None:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "gloo" if gpu is None else "nccl", init_method=address, rank=rank, world_size=world, timeout=_PATIENCE
    )
    worker = Worker(rank, world, device)
    return work(job, worker, QueueObserver(events) if worker.leads else SilentObserver())
