"""The catalog's tables: records, edges, files and scores. Types that SQLite and Postgres share."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Engine, Float, ForeignKey, Integer, String, Text, create_engine, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.files import sha256_json
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

__all__ = ["catalog_url", "fill", "lineage", "open_catalog", "rebuild", "record_stage", "score_id"]


DIGEST = String(64)  # SHA-256 in hexadecimal


class Base(DeclarativeBase):
    """Base of the catalog's tables."""


class RecordRow(Base):
    """What one stage once made. Immutable: its id is the hash of all the rest."""

    __tablename__ = "records"

    id: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    stage: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(64), index=True)
    run: Mapped[str | None] = mapped_column(String(128), index=True)
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)

    inputs: Mapped[list[EdgeRow]] = relationship(cascade="all, delete-orphan", order_by="EdgeRow.role")
    files: Mapped[list[FileRow]] = relationship(cascade="all, delete-orphan", order_by="FileRow.path")
    scores: Mapped[list[ScoreRow]] = relationship(
        cascade="all, delete-orphan", order_by="ScoreRow.task", back_populates="record"
    )


class EdgeRow(Base):
    """One input of a record. The parent may be a record that this catalog has not seen."""

    __tablename__ = "edges"

    child_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(160), primary_key=True)
    parent_id: Mapped[str] = mapped_column(DIGEST, index=True)


class FileRow(Base):
    """One file of a record, by path within the record's folder."""

    __tablename__ = "files"

    record_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)
    sha256: Mapped[str] = mapped_column(DIGEST, index=True)


class ScoreRow(Base):
    """A task's main score with its 95 % interval. Its id is the hash of the record's id and the task.

    ``input`` is the hidden state that the probe heard, or ``weighted``.
    """

    __tablename__ = "scores"

    id: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    record_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), index=True)
    run: Mapped[str] = mapped_column(String(128), index=True)
    task: Mapped[str] = mapped_column(String(64), index=True)
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float] = mapped_column(Float(53))
    high: Mapped[float] = mapped_column(Float(53))
    tracks: Mapped[int] = mapped_column("items", Integer)  # columns keep the names they had in catalogs that exist
    input: Mapped[str] = mapped_column("layer", Text)
    rate: Mapped[float | None] = mapped_column(Float(53))
    validation: Mapped[float | None] = mapped_column(Float(53))

    record: Mapped[RecordRow] = relationship(back_populates="scores")


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
        id=score_id(record.id, task),
        run=record.run or "",
        task=task,
        metric=score["metric"],
        value=score["value"],
        low=score["low"],
        high=score["high"],
        tracks=score["tracks"],
        input=str(score["input"]),
        rate=score.get("rate"),
        validation=score.get("validation"),
    )


def _is_hidden(folder: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in folder.relative_to(top).parts)


SHORTEST_PREFIX = 4
MOST_CANDIDATES = 12


@dataclass
class Node:
    """One line of a lineage tree: what it is, its whole id, a remark, and what it was made from."""

    label: str
    id: str
    remark: str = ""
    parents: list[Node] = field(default_factory=list)


def find(session: Session, layout: Layout, wanted: str) -> ScoreRow | RecordRow:
    """Return the score or record meant by ``RUN/TASK`` or by the beginning of an id.

    Args:
        session: of the catalog.
        layout: says which of a run's scores are the current ones.
        wanted: ``tiny/gs_key``, ``tiny/demo/gs_key``, or at least four hexadecimal digits.

    Raises:
        MertError: nothing or more than one thing is meant; the message lists candidates.
    """
    if "/" in wanted:
        return _by_alias(session, layout, wanted)
    prefix = wanted.lower()
    if len(prefix) < SHORTEST_PREFIX or not set(prefix) <= set("0123456789abcdef"):
        expected = f"RUN/TASK or at least {SHORTEST_PREFIX} hexadecimal digits of an id"
        raise MertError(f"found {wanted!r}, expected {expected}.\n{_candidates(session)}")
    scores = session.scalars(select(ScoreRow).where(ScoreRow.id.startswith(prefix)).order_by(ScoreRow.id)).all()
    records = session.scalars(select(RecordRow).where(RecordRow.id.startswith(prefix)).order_by(RecordRow.id)).all()
    found: list[ScoreRow | RecordRow] = [*scores, *records]
    if not found:
        raise MertError(f"no score or record has an id that begins with {wanted!r}.\n{_candidates(session)}")
    if len(found) > 1:
        lines = [f"  {row.id}  {describe(row)}" for row in found[:MOST_CANDIDATES]]
        raise MertError(f"{wanted!r} begins the ids of {len(found)} things; give more digits:\n" + "\n".join(lines))
    return found[0]


def _by_alias(session: Session, layout: Layout, wanted: str) -> ScoreRow:
    run, _, task = wanted.partition("/")  # a stand-in's name has a slash of its own
    folders = layout.scores(run), layout.probed(run, task)
    for folder in folders:
        if (folder / RECORD_NAME).exists():
            score = session.get(ScoreRow, score_id(read_record(folder).id, task))
            if score is not None:
                return score
    named = select(ScoreRow).where(ScoreRow.run == run, ScoreRow.task == task)
    found = session.scalars(named.order_by(ScoreRow.id)).all()
    if len(found) == 1:
        return found[0]
    if found:
        lines = [f"  {row.id}  {describe(row)}" for row in found[:MOST_CANDIDATES]]
        places = " or ".join(str(folder) for folder in folders)
        raise MertError(f"the catalog has {len(found)} scores {wanted}, none of them in {places}:\n" + "\n".join(lines))
    raise MertError(f"no score is named {wanted!r}.\n{_candidates(session)}")


def _candidates(session: Session) -> str:
    order = select(ScoreRow).order_by(ScoreRow.run, ScoreRow.task, ScoreRow.id)
    rows = session.scalars(order.limit(MOST_CANDIDATES)).all()
    if not rows:
        return "The catalog holds no scores yet. Run `dvc repro`."
    return "The catalog has:\n" + "\n".join(f"  {row.id[:12]}  {describe(row)}" for row in rows)


def describe(row: ScoreRow | RecordRow) -> str:
    """Return a score or record in a few words."""
    if isinstance(row, ScoreRow):
        return f"score {row.run}/{row.task}: {row.metric} {row.value:.4f} [{row.low:.4f}, {row.high:.4f}]"
    return f"{row.kind} {row.run}" if row.run else row.kind


def tree(session: Session, row: ScoreRow | RecordRow) -> Node:
    """Return what a score or record was made from, down to the music.

    An input that another input was itself made from is shown there alone: the corpus stands under the teacher that
    heard it, not under everything that used it.
    """
    if isinstance(row, ScoreRow):
        heard = f"state {row.input}" if row.input.isdigit() else "weighted sum of states"
        remark = f"{heard}, {row.tracks} test tracks"
        return Node(describe(row), row.id, remark, [_record_node(session, row.record_id)])
    return _record_node(session, row.id)


def _record_node(session: Session, record_id: str, role: str = "") -> Node:
    row = session.get(RecordRow, record_id)
    if row is None:
        return Node(role or "record", record_id, "not in this catalog")
    parents = {edge.parent_id: edge.role for edge in row.inputs}
    indirect = set().union(*(_ancestors(session, parent) for parent in parents)) if parents else set()
    shown = sorted(((name, parent) for parent, name in parents.items() if parent not in indirect))
    return Node(describe(row), row.id, _size(row), [_record_node(session, parent, name) for name, parent in shown])


def _ancestors(session: Session, record_id: str) -> set[str]:
    row = session.get(RecordRow, record_id)
    found = {edge.parent_id for edge in row.inputs} if row is not None else set()
    return found.union(*(_ancestors(session, parent) for parent in found)) if found else found


def _size(row: RecordRow) -> str:
    return f"{len(row.files)} file{'s' if len(row.files) != 1 else ''}"


def draw(node: Node) -> str:
    """Return a tree as text, one line per node with its whole id."""
    lines: list[tuple[str, Node]] = []
    _walk(node, "", "", lines)
    width = max(len(text) for text, _ in lines)
    return "\n".join(f"{text:<{width}}  {item.id}{f'  ({item.remark})' if item.remark else ''}" for text, item in lines)


def _walk(node: Node, branch: str, indent: str, lines: list[tuple[str, Node]]) -> None:
    lines.append((branch + node.label, node))
    for number, parent in enumerate(node.parents):
        last = number == len(node.parents) - 1
        _walk(parent, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "), lines)


def record_stage(config: Config, layout: Layout) -> None:
    """Take the records on disk into the catalog, after a stage. If it cannot be, that is a warning: nothing is lost."""
    from sqlalchemy.exc import SQLAlchemyError

    from mert_core.errors import MertError

    try:
        engine = open_catalog(config, layout)
        try:
            fill(engine, layout)
        finally:
            engine.dispose()
    except (MertError, SQLAlchemyError) as error:
        print(f"warning: {error}\n  The records are on disk; the catalog takes them in next time.", file=sys.stderr)


def lineage(config: Config, layout: Layout, wanted: str) -> str:
    """Return, as a tree, the way from a score (or any record) back to the music, with the hash of each.

    Args:
        config: names the catalog.
        layout: whose records are taken in first.
        wanted: the beginning of an id, or ``RUN/TASK`` such as ``tiny/demo/gs_key``.

    Raises:
        MertError: nothing or more than one thing is meant; the message lists candidates.
    """
    from sqlalchemy.orm import Session

    engine = open_catalog(config, layout)
    try:
        fill(engine, layout)
        with Session(engine) as session:
            return draw(tree(session, find(session, layout, wanted)))
    finally:
        engine.dispose()
