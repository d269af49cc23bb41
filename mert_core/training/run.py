"""One training run as data, and the work of one of its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model.checkpoint import save_pretrained
from mert_core.model.heads import save_heads
from mert_core.training.batches import CropSource, Music, StoredTargets
from mert_core.training.callbacks import Observer
from mert_core.training.checkpoint import StateStore, parameters_of
from mert_core.training.cost import Devices
from mert_core.training.loss import build_objective
from mert_core.training.targets import TargetSet, TargetSpec
from mert_core.training.trainer import Report, spectra_example, train, unigram_cross_entropy
from mert_core.training.worker import Worker, check_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mert_core.config import PretrainConfig
    from mert_core.model.config import MertConfig
    from mert_core.teachers.base import Teacher
    from mert_core.training.checkpoint import Progress


def write_artefacts(
    folder: Path,
    shape: MertConfig,
    parameters: dict[str, Tensor],
    progress: Progress,
    example: dict[str, NDArray[np.generic]],
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``heads.safetensors``, ``curve.parquet`` and ``example.npz``.

    Args:
        folder: where to.
        shape: of the encoder.
        parameters: of the objective, by name.
        progress: of the run.
        example: see ``validate.spectra_example``.

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
    save_heads(_part(parameters, "heads."), folder)
    columns = zip(*progress.curve, strict=True)
    types = (pa.int64(), pa.string(), pa.string(), pa.float64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with atomic_path(folder / "curve.parquet") as temporary:
        pq.write_table(pa.table(arrays, names=["step", "split", "term", "value"]), temporary, compression="zstd")
    with atomic_path(folder / "example.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **example)  # type: ignore[arg-type]


def _part(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class RunInputs:
    """What is learned from.

    Attributes:
        music: the tracks.
        stored: targets of the teachers whose targets are stored, by name.
        teachers: the others, by name.
    """

    music: Music
    stored: Mapping[str, StoredTargets]
    teachers: Mapping[str, Teacher]


class Data(Protocol):
    """Says where music, targets and teachers lie; travels to the workers, who open them."""

    def open(self) -> RunInputs:
        """Open all, cheaply."""


@dataclass(frozen=True)
class StoredData:
    """Music, targets and teachers as the stages before left them.

    Attributes:
        corpus: its folder.
        targets: the folders of target stores, by teacher.
        teachers: by teacher that is asked in the training step: the folder of a fitted one, or the settings of one that
            needs no fitting.
        copies: addresses on an object store, by folder, to read a folder's shards from; the others' lie in the folder.
    """

    corpus: Path
    targets: dict[str, Path]
    teachers: dict[str, Path | dict[str, Any] | None]
    copies: Mapping[Path, str] = field(default_factory=dict)

    def open(self) -> RunInputs:
        """Open the corpus, the target stores and the teachers."""
        from mert_core.data.corpus import Corpus
        from mert_core.data.targets import TargetStore
        from mert_core.teachers.registry import load_teacher, new_teacher

        copies = self.copies
        teachers = {
            name: load_teacher(of) if isinstance(of, Path) else new_teacher(name, of).freeze()
            for name, of in self.teachers.items()
        }
        stored = {name: TargetStore.open(folder, shards=copies.get(folder)) for name, folder in self.targets.items()}
        return RunInputs(Corpus.open(self.corpus, shards=copies.get(self.corpus)), stored, teachers)


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    Attributes:
        params: of the run.
        data: where music, targets and teachers lie.
        seed: of weights, crops, masks, noise and dropout.
        threads: CPU threads per worker.
        out_folder: where the leading worker puts the artefacts; None writes none.
        resume_folder: where the resume states lie; None keeps none. Every worker must reach it.
        start: the checkpoint folder of ``params.start``, absolute. Every worker must reach it.
        read_ahead: updates that are prepared ahead.
    """

    params: PretrainConfig
    data: Data
    seed: int
    threads: int
    out_folder: Path | None
    resume_folder: Path | None
    start: Path | None = None
    read_ahead: int = 1


def teaching_of(params: PretrainConfig, material: RunInputs) -> TargetSet:
    """Return a run's lessons; a teacher without weight gives none."""
    lessons = []
    for term in params.teachers:
        if term.weight:
            stored = term.targets == "stored"
            kind = material.stored[term.teacher].kind if stored else material.teachers[term.teacher].kind
            lessons.append(TargetSpec(term.teacher, kind, term.targets, term.weight))
    return TargetSet(lessons, material.teachers)


def work(job: Job, place: Worker, observer: Observer, report: Report | None = None) -> dict[str, Any]:
    """Do one worker's share of a run and return the facts of its outcome; only those under ``ledger`` are volatile.

    Raises:
        MertError: unusable data, or the training diverged.
    """
    torch.set_num_threads(job.threads)
    params = job.params
    check_precision(params.precision, place.device)
    material = job.data.open()
    teaching = teaching_of(params, material)
    cut = material.music, material.stored, teaching, params
    train_source = CropSource(*cut, "train", job.seed)
    valid_source = CropSource(*cut, "valid", job.seed, corrupt=False)
    objective = build_objective(params, teaching, job.seed, job.start)
    if place.leads:
        observer.begin(place.world, Devices.of(place).name)
    states = StateStore(job.resume_folder, params.checkpoint_keep) if job.resume_folder is not None else None
    progress, ledger = train(
        params,
        objective,
        train_source,
        valid_source,
        seed=job.seed,
        place=place,
        states=states,
        observer=observer,
        report=report,
        read_ahead=job.read_ahead,
    )
    unigram = unigram_cross_entropy(train_source, valid_source, params)
    if job.out_folder is not None:
        example = spectra_example(objective, valid_source, place)
        parameters = parameters_of(objective, keep=place.leads)
        if place.leads:
            try:
                write_artefacts(job.out_folder, objective.encoder.config, parameters, progress, example)
            except MertError as error:
                kept = states.newest()[0] if states is not None else None
                raise MertError(f"{error}: it goes on from the resume state of step {kept or 0}.") from error
    place.wait()
    return {
        "steps": progress.step,
        "parameters": objective.encoder.parameter_count(),
        "teachers": {one.teacher: {"kind": str(one.kind), "targets": one.targets} for one in teaching.lessons},
        "audio_hours_seen": progress.position * train_source.crop_samples / 24000 / 3600,
        "epochs": progress.position / len(train_source),
        "unigram_cross_entropy": {
            name: sum(unigram[name][book] for book in books) for name, books in valid_source.asked(0).items()
        },
        "unigram_cross_entropy_per_codebook": unigram,
        "valid": {
            term: value for step, split, term, value in progress.curve if split == "valid" and step == progress.step
        },
        "interventions": progress.guard.interventions,
        "ledger": ledger,
    }
