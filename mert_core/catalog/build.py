"""Filling the catalog from the stages' own records, and from nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from mert_core.catalog.tables import Base, EdgeRow, FileRow, RecordRow, ScoreRow
from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.paths import Layout
from mert_core.records import RECORD_NAME, Record, read_record

if TYPE_CHECKING:
    from mert_core.config import Config

SCORES_NAME = "scores.json"


def score_id(record_id: str, task: str) -> str:
    """Return the id of a score: SHA-256 of its record's id and its task."""
    return hashlib.sha256(f"{record_id}/{task}".encode()).hexdigest()


def catalog_url(config: Config, layout: Layout) -> str:
    """Return ``catalog.url``, or that of the SQLite file in the state folder."""
    return config.catalog.url or f"sqlite:///{layout.state / 'catalog.db'}"


def open_catalog(config: Config, layout: Layout) -> Engine:
    """Connect to the catalog and make its tables where they are missing.

    Raises:
        MertError: ``catalog.url`` is no SQLAlchemy URL, its driver is missing, or the database cannot be reached.
    """
    url = catalog_url(config, layout)
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = create_engine(url)
        Base.metadata.create_all(engine)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise MertError(
            f"catalog.url is {url!r} ({error}); expected null for SQLite, or an SQLAlchemy URL such as "
            "postgresql+psycopg://user@host/mert, with its driver installed"
        ) from error
    except SQLAlchemyError as error:
        raise MertError(
            f"the catalog {engine.url!r} cannot be reached: {str(error).splitlines()[0]}. "
            "Start the database, or see catalog.url in params.yaml."
        ) from error
    return engine


def fill(engine: Engine, layout: Layout) -> int:
    """Take in every record below the working directory and return how many there are. Filling twice changes nothing.

    Records that were replaced on disk since stay, as history; ``rebuild`` leaves them out.

    Raises:
        MertError: a record is not what it says it is.
    """
    folders = list(record_folders(layout))
    with Session(engine) as session, session.begin():
        for folder in folders:
            record = verified(folder)
            if session.get(RecordRow, record.id) is None:
                session.add(row_of(record, folder))
    return len(folders)


def rebuild(engine: Engine, layout: Layout) -> int:
    """Drop all rows and fill again from the records on disk."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    return fill(engine, layout)


def record_folders(layout: Layout) -> Iterator[Path]:
    """Yield the folders that hold a record: those of the data folder and the report, sorted."""
    for top in (layout.corpus.parent, layout.report):
        # Half-written folders of a running stage have names that begin with a dot.
        found = (path.parent for path in top.rglob(RECORD_NAME))
        yield from sorted(folder for folder in found if not _is_hidden(folder, top))


def verified(folder: Path) -> Record:
    """Read a folder's record and check that its id is the hash of its content.

    Raises:
        MertError: it is not, or there is no readable record.
    """
    record = read_record(folder)
    body = asdict(record)
    claimed = body.pop("id")
    actual = sha256_json(body)
    if claimed != actual:
        raise MertError(
            f"{folder / RECORD_NAME} was changed: it says {str(claimed)[:12]}…, its content hashes to {actual[:12]}…. "
            "Run `dvc checkout`, or remove the folder and run `dvc repro`."
        )
    return record


def row_of(record: Record, folder: Path) -> RecordRow:
    """Return a record as a row with its inputs, files and, for a probe, its scores."""
    row = RecordRow(
        id=record.id, stage=record.stage, kind=record.kind, run=record.run, params=record.params, facts=record.facts
    )
    row.inputs = [EdgeRow(role=role, parent_id=parent) for role, parent in sorted(record.inputs.items())]
    row.files = [FileRow(path=path, sha256=digest) for path, digest in sorted(record.files.items())]
    if record.kind == "scores":
        row.scores = [_score_row(record, task, score) for task, score in sorted(_read_scores(folder).items())]
    return row


def _read_scores(folder: Path) -> dict[str, Any]:
    path = folder / SCORES_NAME
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["tasks"])
    except (OSError, ValueError, KeyError) as error:
        raise MertError(f"{path} is no table of scores ({error!r}). Run `dvc repro` or `dvc checkout`.") from error


def _score_row(record: Record, task: str, score: dict[str, Any]) -> ScoreRow:
    if lacking := [name for name in ("metric", "value", "low", "high", "tracks", "input") if name not in score]:
        raise MertError(
            f"the scores of {record.run}: {task} has no {', '.join(lacking)}; an earlier version wrote it. "
            f"Probe again: `dvc repro`, or `mert probe --run {record.run}`."
        )
    return ScoreRow(
        id=score_id(record.id, task), run=record.run or "", task=task, metric=score["metric"], value=score["value"],
        low=score["low"], high=score["high"], tracks=score["tracks"], input=str(score["input"]),
        rate=score.get("rate"), validation=score.get("validation"),
    )  # fmt: skip


def _is_hidden(folder: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in folder.relative_to(top).parts)
