"""One training run as data, and the work of one of its workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.sampler import Music
from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model.checkpoint import HEADS_NAME, save_pretrained, save_tensors
from mert_core.training.batches import CropSource
from mert_core.training.callbacks import Observer
from mert_core.training.checkpoint import StateStore, parameters_of
from mert_core.training.cost import Devices
from mert_core.training.loss import build_objective
from mert_core.training.targets import StoredTargets, TargetSet
from mert_core.training.trainer import Report, spectra_example, train, unigram_cross_entropy
from mert_core.training.worker import Worker, choose_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mert_core.config import PretrainConfig, TeacherInstance
    from mert_core.model.config import MertConfig
    from mert_core.teachers.base import Teacher
    from mert_core.training.checkpoint import Progress


@dataclass(frozen=True)
class RunInputs:
    """What a run learns from, opened.

    Attributes:
        music: the corpus.
        stored: target stores, by name of the teacher.
        teachers: frozen teachers that compute targets in the training step, by name.
    """

    music: Music
    stored: Mapping[str, StoredTargets]
    teachers: Mapping[str, Teacher]


def open_inputs(
    corpus: Path,
    targets: Mapping[str, Path],
    teachers: Mapping[str, Path | TeacherInstance],
    shards: Mapping[Path, str],
    hours: float | None,
) -> RunInputs:
    """Open what the stages before have left; little is read.

    Args:
        corpus: folder of the corpus.
        targets: folders of target stores, by name of the teacher.
        teachers: folder of a fitted teacher, or class and settings of one that needs no fitting, by name.
        shards: addresses on an object store from which a folder's shards are read; the others' lie in the folder.
        hours: music of the training split to learn from; None: all.

    Raises:
        MertError: something is missing or damaged, there is less music, or the parts do not fit together.
    """
    from mert_core.data.corpus import Corpus
    from mert_core.data.targets import TargetStore
    from mert_core.teachers.registry import load_teacher, new_teacher

    music = Corpus.open(corpus, shards=shards.get(corpus))
    return RunInputs(
        music if hours is None else music.with_hours(hours),
        {name: TargetStore.open(folder, shards=shards.get(folder)) for name, folder in targets.items()},
        {
            name: load_teacher(source)
            if isinstance(source, Path)
            else new_teacher(source.kind, source.settings, name).freeze()
            for name, source in teachers.items()
        },
    )


@dataclass(frozen=True)
class Job:
    """A run as its workers receive it; it travels to other processes and machines.

    Attributes:
        params: the run's parameters.
        open_inputs: opens corpus, targets and teachers where the worker is, usually `open_inputs` with its arguments.
        seed: seed of weights, crops, masks, noise and dropout.
        threads: CPU threads per worker.
        out_folder: folder of the artifacts, written by the leading worker; None writes none.
        resume_folder: folder of the resume states, which every worker must reach; None writes none.
        start: folder of the checkpoint that ``params.start`` names, absolute; every worker must reach it.
        read_ahead: updates that are prepared ahead.
    """

    params: PretrainConfig
    open_inputs: Callable[[], RunInputs]
    seed: int
    threads: int
    out_folder: Path | None
    resume_folder: Path | None
    start: Path | None = None
    read_ahead: int = 1


def work(job: Job, worker: Worker, observer: Observer, report: Report | None = None) -> dict[str, Any]:
    """Do one worker's share of a run and return the facts of its outcome; only those under ``cost`` are volatile.

    Raises:
        MertError: unusable data, or the training diverged.
    """
    torch.set_num_threads(job.threads)
    precision = choose_precision(job.params.precision, worker.device)
    params = job.params.model_copy(update={"precision": precision})
    inputs = job.open_inputs()
    target_set = TargetSet.of(params.teachers, inputs.stored, inputs.teachers).to(worker.device)
    train_source = CropSource(inputs.music, target_set, params, "train", job.seed)
    valid_source = CropSource(inputs.music, target_set, params, "valid", job.seed, corrupt=False)
    objective = build_objective(params, target_set.specs, job.seed, job.start)
    if worker.leads:
        observer.begin(worker.world, Devices.of(worker).name)
    states = StateStore(job.resume_folder, params.checkpoint_keep) if job.resume_folder is not None else None
    progress, cost = train(
        params,
        objective,
        train_source,
        valid_source,
        seed=job.seed,
        worker=worker,
        states=states,
        observer=observer,
        report=report,
        read_ahead=job.read_ahead,
    )
    validation_crops = params.validate_batches * params.validation_clips
    unigram = unigram_cross_entropy(train_source, valid_source, validation_crops, worker.device)
    if job.out_folder is not None:
        example = spectra_example(objective, valid_source, worker)
        parameters = parameters_of(objective, keep=worker.leads)
        if worker.leads:
            try:
                write_artifacts(job.out_folder, objective.encoder.config, parameters, progress, example)
            except MertError as error:
                newest = states.newest()[0] if states is not None else None
                raise MertError(f"{error}: it goes on from the resume state of step {newest or 0}.") from error
    worker.wait()
    return {
        "steps": progress.step,
        "parameters": objective.encoder.parameter_count(),
        "precision": precision,
        "teachers": {spec.teacher: {"kind": str(spec.kind), "targets": spec.targets} for spec in target_set.specs},
        "audio_hours_seen": progress.position * train_source.crop_samples / SAMPLE_RATE / 3600,
        "epochs": progress.position / len(train_source),
        "unigram_cross_entropy": {
            name: sum(unigram[name][book] for book in ids) for name, ids in valid_source.codebook_ids(0).items()
        },
        "unigram_cross_entropy_per_codebook": unigram,
        "valid": {
            term: value for step, split, term, value in progress.curve if split == "valid" and step == progress.step
        },
        "interventions": progress.health.interventions,
        "cost": cost,
    }


def write_artifacts(
    folder: Path,
    shape: MertConfig,
    parameters: dict[str, Tensor],
    progress: Progress,
    example: dict[str, NDArray[np.generic]],
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``heads.safetensors``, ``curve.parquet`` and ``example.npz``.

    Args:
        folder: an existing folder.
        shape: configuration of the encoder.
        parameters: whole parameters of the objective, by name.
        progress: the run's progress, whose curve is written.
        example: arrays of one validation crop, see `spectra_example`.

    Raises:
        MertError: the disk is full or fails.
    """
    from safetensors import SafetensorError

    try:
        _write(folder, shape, parameters, progress, example)
    except (OSError, SafetensorError) as error:
        raise MertError(
            f"the trained model cannot be written to {folder} ({error}). Free some disk space and run the stage again"
        ) from error


def _write(
    folder: Path,
    shape: MertConfig,
    parameters: dict[str, Tensor],
    progress: Progress,
    example: dict[str, NDArray[np.generic]],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    save_pretrained(shape, _part(parameters, "encoder."), folder)
    save_tensors(_part(parameters, "heads."), folder / HEADS_NAME)
    columns = zip(*progress.curve, strict=True)
    types = (pa.int64(), pa.string(), pa.string(), pa.float64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with atomic_path(folder / "curve.parquet") as temporary:
        pq.write_table(pa.table(arrays, names=["step", "split", "term", "value"]), temporary, compression="zstd")
    with atomic_path(folder / "example.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **example)  # type: ignore[arg-type]


def _part(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
