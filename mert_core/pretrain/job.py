"""One training run as data, and the work of one of its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mert_core.errors import MertError
from mert_core.pretrain.artefacts import write_artefacts
from mert_core.pretrain.data import Codes, CropSource, Music
from mert_core.pretrain.loop import Report, train
from mert_core.pretrain.objective import build_objective
from mert_core.pretrain.observe import Observer
from mert_core.pretrain.place import Place
from mert_core.pretrain.snapshot import parameters_of
from mert_core.pretrain.state import StateStore
from mert_core.pretrain.validate import cqt_example, unigram_cross_entropy

if TYPE_CHECKING:
    from mert_core.config import Pretrain


class Data(Protocol):
    """Says where music and codes lie; travels to the workers, who open them."""

    def open(self) -> tuple[Music, Codes]:
        """Open both, cheaply."""


@dataclass(frozen=True)
class StoredData:
    """Music and codes as the stages before left them.

    Attributes:
        corpus: its folder.
        targets: their folder.
        copies: addresses on an object store, by folder, to read a folder's shards from; the others' lie in the folder.
    """

    corpus: Path
    targets: Path
    copies: Mapping[Path, str] = field(default_factory=dict)

    def open(self) -> tuple[Music, Codes]:
        """Open the corpus and the target store."""
        from mert_core.corpus import Corpus
        from mert_core.targets import TargetStore

        copies = self.copies
        return (
            Corpus.open(self.corpus, shards=copies.get(self.corpus)),
            TargetStore.open(self.targets, shards=copies.get(self.targets)),
        )


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    Attributes:
        params: of the run.
        data: where music and codes lie.
        seed: of weights, crops, masks, noise and dropout.
        threads: CPU threads per worker.
        out_folder: where the leading worker puts the artefacts; None writes none.
        resume_folder: where the resume states lie; None keeps none. Every worker must reach it.
        start: the checkpoint folder of ``params.start``, absolute. Every worker must reach it.
        read_ahead: updates that are prepared ahead.
    """

    params: Pretrain
    data: Data
    seed: int
    threads: int
    out_folder: Path | None
    resume_folder: Path | None
    start: Path | None = None
    read_ahead: int = 1


def work(job: Job, place: Place, observer: Observer, report: Report | None = None) -> dict[str, Any]:
    """Do one worker's share of a run and return the facts of its outcome; only those under ``ledger`` are volatile.

    Raises:
        MertError: unusable data, or the training diverged.
    """
    torch.set_num_threads(job.threads)
    params = job.params
    music, codes = job.data.open()
    train_source = CropSource(music, codes, params, "train", job.seed)
    valid_source = CropSource(music, codes, params, "valid", job.seed, corrupt=False)
    objective = build_objective(params, codes.codebooks, codes.entries, job.seed, job.start)
    states = StateStore(job.resume_folder, params.checkpoint_keep) if job.resume_folder is not None else None
    progress, ledger = train(
        params, objective, train_source, valid_source,
        seed=job.seed, place=place, states=states, observer=observer, report=report,
        read_ahead=job.read_ahead,
    )  # fmt: skip
    unigram = unigram_cross_entropy(train_source, valid_source, params)
    if job.out_folder is not None:
        example = cqt_example(objective, valid_source, place)
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
        "codebooks": codes.codebooks,
        "entries": codes.entries,
        "audio_hours_seen": progress.position * train_source.crop_samples / 24000 / 3600,
        "epochs": progress.position / len(train_source),
        "unigram_cross_entropy": sum(unigram[codebook] for codebook in valid_source.asked(0)),
        "unigram_cross_entropy_per_codebook": unigram,
        "valid": {
            term: value for step, split, term, value in progress.curve if split == "valid" and step == progress.step
        },
        "interventions": progress.guard.interventions,
        "ledger": ledger,
    }
