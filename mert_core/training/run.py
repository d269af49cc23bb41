"""One training run as data, its student, and the work of one of its workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.sampler import Music
from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model.checkpoint import (
    CONFIG_NAME,
    HEADS_NAME,
    load_weights,
    read_weights,
    save_pretrained,
    save_tensors,
)
from mert_core.model.config import load_config, preset
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.training.batches import CropSource
from mert_core.training.callbacks import Observer, SilentObserver
from mert_core.training.checkpoint import StateStore, parameters_of
from mert_core.training.cost import device_name
from mert_core.training.loss import Objective
from mert_core.training.targets import TargetSet, TargetSpec, codes_of, spectra_of
from mert_core.training.trainer import Report, Trainer, spectra_example, unigram_cross_entropy
from mert_core.training.worker import Worker, choose_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mert_core.config import Config, PretrainConfig
    from mert_core.data.targets import TargetStore
    from mert_core.model.config import MertConfig
    from mert_core.paths import Layout
    from mert_core.teachers.base import Teacher
    from mert_core.training.checkpoint import Progress


@dataclass(frozen=True)
class RunInputs:
    """What a run learns from: the corpus, stored targets, and the frozen teachers that compute some in the step."""

    music: Music
    stored: Mapping[str, TargetStore]
    teachers: Mapping[str, Teacher]


def open_inputs(config: Config, layout: Layout, params: PretrainConfig) -> RunInputs:
    """Open what the stages before have left for a run; little is read. Shards may lie on an object store.

    Raises:
        MertError: something is missing or damaged, there is too little music, or the parts do not fit together.
    """
    from mert_core.data.corpus import Corpus
    from mert_core.data.targets import TargetStore
    from mert_core.teachers.stage import open_teacher

    def shards(folder: Path) -> str | None:
        url = config.storage.shards
        return None if url is None else layout.copy_of(folder, url)

    music = Corpus.open(layout.corpus, shards=shards(layout.corpus))
    stored, teachers = {}, {}
    for term in params.teachers:
        name = term.teacher
        if term.weight and term.targets == "stored":
            stored[name] = TargetStore.open(layout.targets(name), shards=shards(layout.targets(name)))
        elif term.weight:
            teachers[name] = open_teacher(config, layout, name)[0]
    return RunInputs(music if params.hours is None else music.with_hours(params.hours), stored, teachers)


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


def build_objective(
    params: PretrainConfig, specs: Sequence[TargetSpec], seed: int, start: Path | None = None
) -> Objective:
    """Return the student and heads of a run, freshly initialized or as a checkpoint folder has them.

    Args:
        params: shape of the student, temperature of the heads, weights of the terms.
        specs: teachers to predict.
        seed: seed of fresh weights.
        start: folder of the checkpoint that ``params.start`` names; None: there is none.

    Raises:
        MertError: DeepNorm on a pre-LN encoder, or the checkpoint is of another shape or teacher than the run.
    """
    shape = preset(params.model.preset, **params.model.overrides)
    encoder = MertModel(shape, seed)
    codes = {name: (kind.codebooks, kind.entries) for name, kind in codes_of(specs).items()}
    spectra = {name: kind.bins for name, kind in spectra_of(specs).items()}
    heads = Heads(
        shape.hidden_size, codes, spectra, shape.final_dim, params.temperature, seed + 1, params.learn_temperature
    )
    if start is not None and params.start is not None:
        _load_start(encoder, heads, start, fresh_heads=params.start.heads == "fresh")
    return Objective(encoder, heads, params.weights, specs)


# What a run may change about an encoder without making another function of its weights.
_FREE = {
    *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"),
    *("feature_grad_mult", "attention_relax", "final_dim"),
}


def _load_start(encoder: MertModel, heads: Heads, folder: Path, *, fresh_heads: bool) -> None:
    """Copy a checkpoint's weights into a run's encoder and, unless they are to be fresh, into its heads."""
    stored, wanted = asdict(load_config(folder / CONFIG_NAME)), asdict(encoder.config)
    differences = [
        f"{name} is {old}, the run's {wanted[name]}"
        for name, old in stored.items()
        if name not in _FREE and old != wanted[name]
    ]
    if differences:
        raise MertError(
            f"the checkpoint in {folder} is another network than this run's: {'; '.join(differences)}. "
            "Choose the model that fits (the run's model: preset and the fields that differ)."
        )
    load_weights(encoder, read_weights(folder), str(folder))
    if fresh_heads:
        return
    if not (folder / HEADS_NAME).is_file():
        raise MertError(
            f"{folder} holds no {HEADS_NAME}, so that its heads cannot be trained on. "
            "To begin with new ones, set pretrain.start.heads: fresh."
        )
    try:
        heads.load(folder)
    except MertError as error:
        raise MertError(f"{error}\nIf the teacher is another one now, set pretrain.start.heads: fresh.") from error


def work(job: Job, worker: Worker, observer: Observer, report: Report | None = None) -> dict[str, Any]:
    """Do one worker's share of a run and return the facts of its outcome; only those under ``cost`` are volatile.

    The observer hears the leading worker alone.

    Raises:
        MertError: unusable data, the training diverged, or the model cannot be written.
    """
    from safetensors import SafetensorError

    observer = observer if worker.leads else SilentObserver()
    torch.set_num_threads(job.threads)
    precision = choose_precision(job.params.precision, worker.device)
    params = job.params.model_copy(update={"precision": precision})
    inputs = job.open_inputs()
    target_set = TargetSet(params.teachers, inputs.stored, inputs.teachers).to(worker.device)
    train_source = CropSource(inputs.music, target_set, params, "train", job.seed)
    valid_source = CropSource(inputs.music, target_set, params, "valid", job.seed, corrupt=False)
    objective = build_objective(params, target_set.specs, job.seed, job.start)
    observer.begin(worker.world, device_name(worker))
    states = StateStore(job.resume_folder, params.checkpoint_keep) if job.resume_folder is not None else None
    progress, cost = Trainer(
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
    ).train()
    validation_crops = params.validate_batches * params.validation_clips
    unigram = unigram_cross_entropy(train_source, valid_source, validation_crops, worker.device)
    if job.out_folder is not None:
        example = spectra_example(objective, valid_source, worker)
        parameters = parameters_of(objective, keep=worker.leads)
        if worker.leads:
            try:
                write_artifacts(job.out_folder, objective.encoder.config, parameters, progress, example)
            except (OSError, SafetensorError) as error:
                newest = states.newest()[0] if states is not None else None
                raise MertError(
                    f"the trained model cannot be written to {job.out_folder} ({error}). Free some disk space and run "
                    f"the stage again: it goes on from the resume state of step {newest or 0}."
                ) from error
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
            term: value for step, split, term, value in progress.curve if (step, split) == (progress.step, "valid")
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
    """Write ``model.safetensors``, ``config.json``, ``heads.safetensors``, ``curve.parquet`` and ``example.npz``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}

    save_pretrained(shape, part("encoder."), folder)
    save_tensors(part("heads."), folder / HEADS_NAME)
    names, types = ["step", "split", "term", "value"], (pa.int64(), pa.string(), pa.string(), pa.float64())
    columns = [pa.array(column, kind) for column, kind in zip(zip(*progress.curve, strict=True), types, strict=True)]
    with atomic_path(folder / "curve.parquet") as temporary:
        pq.write_table(pa.table(columns, names=names), temporary, compression="zstd")
    with atomic_path(folder / "example.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **example)  # type: ignore[arg-type]
