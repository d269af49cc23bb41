"""Ray Train around the loop: how wide one run is. Nothing of Ray's own checkpoints or tracking is used."""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.cluster import cluster_gpus, ray_running
from mert_core.errors import MertError
from mert_core.files import write_json
from mert_core.parallel import choose_device
from mert_core.training.callbacks import JournalObserver, Observer, SilentObserver, follow
from mert_core.training.run import Job, work
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

_OBJECT_STORE_BYTES = 100 * 2**20  # nothing large passes through it
_NEEDLESS = {"PlacementGroupCleanerCallback", "DatasetsCallback"}
_JOURNAL, _FACTS, _STARTS, _REFUSAL = "journal.jsonl", "facts.json", "starts.json", "refusal.json"


def work_on_ray(job: Job, storage: Path, observer: Observer) -> dict[str, Any]:
    """Train with ``job.params.workers`` Ray workers and return the facts of the outcome.

    The leading worker keeps a journal, which this process passes on to the observer: so the tracker and the progress
    bar live in one place. On a cluster (``RAY_ADDRESS``), ``storage`` and all folders of the job must be shared.

    Args:
        job: the run.
        storage: absolute folder for Ray's own files of this run; they are removed afterwards.
        observer: is told what the workers do.

    A worker that dies is replaced, up to ``job.params.max_worker_failures`` times: Ray starts all of them again, and
    they go on from the newest resume state. A ``MertError`` would only come again, so it ends the run at once.

    Raises:
        MertError: a worker raised one, or workers died more often than allowed; the message carries the error.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    # A name used twice makes Ray return the first run's result without training.
    name = f"pretrain-{uuid.uuid4().hex}"
    folder = storage.resolve() / name
    folder.mkdir(parents=True)
    trainer_failure: list[BaseException] = []
    finished = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            trainer_failure.append(error)
        finally:
            finished.set()

    try:
        with ray_running(job.params.workers + 1, job.threads, _OBJECT_STORE_BYTES):
            cuda = use_gpus(job.params.device, job.params.workers)
            trainer = _trainer_class()(
                _worker,
                # as bytes, which Ray's controller passes on without importing what the job is made of, torch among it
                train_loop_config={"job": ray.cloudpickle.dumps(job), "folder": str(folder), "cuda": cuda},
                scaling_config=ScalingConfig(
                    num_workers=job.params.workers, use_gpu=cuda, resources_per_worker={"CPU": 1, "GPU": int(cuda)}
                ),
                torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
                run_config=RunConfig(
                    name=name,
                    storage_path=str(storage.resolve()),
                    failure_config=FailureConfig(max_failures=job.params.max_worker_failures),
                ),
            )
            # Ray waits in a thread; this one draws the bar and, being the main thread, is the one signals reach.
            threading.Thread(target=fit, name="ray-train", daemon=True).start()
            follow(folder / _JOURNAL, observer, finished)
        if (folder / _REFUSAL).exists():
            refusal = json.loads((folder / _REFUSAL).read_text(encoding="utf-8"))
            raise MertError(f"training worker {refusal['rank']} failed: {refusal['message']}")
        if trainer_failure:
            _raise(trainer_failure[0])
        return json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worker(config: dict[str, Any]) -> None:
    """Run in each worker process: find out which one it is, and do its share of the job."""
    import ray.train
    import ray.train.torch

    choose_device("cuda" if config["cuda"] else "cpu")  # the GPU that Ray has assigned must be one for torch, too
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    folder, job = Path(config["folder"]), ray.cloudpickle.loads(config["job"])
    if (folder / _REFUSAL).exists():  # Ray starts the workers again after any error; this one would only come again
        return
    observer: Observer = JournalObserver(folder / _JOURNAL) if worker.leads else SilentObserver()
    if worker.leads:
        _note_restart(folder, job, observer)
    try:
        facts = work(job, worker, observer)
    except MertError as error:
        write_json(folder / _REFUSAL, {"rank": worker.rank, "message": str(error)})
        if worker.world == 1:
            return
        raise  # so that Ray ends the other workers, who wait for this one
    if worker.leads:
        write_json(folder / _FACTS, facts)


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


def _note_restart(folder: Path, job: Job, observer: Observer) -> None:
    path = folder / _STARTS
    starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0
    write_json(path, starts + 1)
    if starts:
        observer.note(
            f"a training worker died; all were started again, {starts} of {job.params.max_worker_failures} allowed"
        )


def _trainer_class() -> type[TorchTrainer]:
    """Return Ray's trainer, without what has no use when this process starts the cluster itself.

    The placement group cleaner is an actor that asks the dashboard's state API each second whether the run's
    controller lives, to free what the run holds in a cluster that outlives it. Our own cluster has no dashboard, so
    that every question fails with a warning, and ends with this process. The datasets' manager is an actor for Ray
    Data, which we do not use. A Ray without these callbacks is used as it is.
    """
    from ray.train.torch import TorchTrainer

    if os.environ.get("RAY_ADDRESS"):
        return TorchTrainer

    class OwnClusterTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in callbacks if type(one).__name__ not in _NEEDLESS]

    return OwnClusterTrainer


def _raise(error: BaseException) -> None:
    from ray.train import WorkerGroupError

    if isinstance(error, WorkerGroupError) and error.worker_failures:
        rank, cause = sorted(error.worker_failures.items())[0]
        raise MertError(f"training worker {rank} failed: {cause}") from error
    raise MertError(f"Ray Train failed: {error}") from error
