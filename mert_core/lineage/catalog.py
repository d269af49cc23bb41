"""The lineage catalog in SQL: what was made from what, by content hash, from a score back to the music.

Records on disk are the truth (`mert_core.data.record`): each stage leaves one, `fill` takes in those that are new here,
and a catalog that is lost is filled again. Records that were replaced on disk since stay, as history.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from mert_core.data.record import RECORD_NAME, Record, read_record
from mert_core.errors import MertError
from mert_core.files import sha256_json

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

__all__ = ["fill", "lineage", "open_catalog", "record_stage", "score_id", "tables"]

SCORES_NAME = "scores.json"
SCORE_FIELDS = ("metric", "value", "low", "high", "tracks", "input")
SHORTEST_PREFIX = 4
MOST_CANDIDATES = 12

logger = logging.getLogger(__name__)

# Types that SQLite and Postgres share. Ids are SHA-256 in hexadecimal.
DIGEST, PRECISE = sa.String(64), sa.Float(53)
tables = sa.MetaData()


def _of_record(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, DIGEST, sa.ForeignKey("records.id", ondelete="CASCADE"), **options)


# What one stage once made. A record never changes: its id is the hash of all the rest.
records = sa.Table(
    "records",
    tables,
    sa.Column("id", DIGEST, primary_key=True),
    sa.Column("stage", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(64), nullable=False, index=True),
    sa.Column("run", sa.String(128), index=True),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)
# One input of a record each. The parent may be a record that this catalog has not seen.
edges = sa.Table(
    "edges",
    tables,
    _of_record("child_id", primary_key=True),
    sa.Column("role", sa.String(160), primary_key=True),
    sa.Column("parent_id", DIGEST, nullable=False, index=True),
)
# One file of a record each, by path within the record's folder.
files = sa.Table(
    "files",
    tables,
    _of_record("record_id", primary_key=True),
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("sha256", DIGEST, nullable=False, index=True),
)
# One task's main score each. Two columns keep the names that they have in catalogs that exist.
scores = sa.Table(
    "scores",
    tables,
    sa.Column("id", DIGEST, primary_key=True),
    _of_record("record_id", nullable=False, index=True),
    sa.Column("run", sa.String(128), nullable=False, index=True),
    sa.Column("task", sa.String(64), nullable=False, index=True),
    sa.Column("metric", sa.String(64), nullable=False),
    sa.Column("value", PRECISE, nullable=False),
    sa.Column("low", PRECISE, nullable=False),
    sa.Column("high", PRECISE, nullable=False),
    sa.Column("items", sa.Integer, key="tracks", nullable=False),
    sa.Column("layer", sa.Text, key="input", nullable=False),
    sa.Column("rate", PRECISE),
    sa.Column("validation", PRECISE),
)


def score_id(record_id: str, task: str) -> str:
    """Return the id of one task's score: the SHA-256 of its record's id and the task."""
    return hashlib.sha256(f"{record_id}/{task}".encode()).hexdigest()


def open_catalog(config: Config, layout: Layout) -> sa.Engine:
    """Connect to ``catalog.url``, or the SQLite file in the state folder, and make the tables where they are missing.

    Raises:
        MertError: ``catalog.url`` is no SQLAlchemy URL, its driver is missing, or the database cannot be reached.
    """
    url = config.catalog.url or f"sqlite:///{layout.state / 'catalog.db'}"
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = sa.create_engine(url)
        tables.create_all(engine)
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


def record_stage(config: Config, layout: Layout) -> None:
    """Take the records on disk into the catalog, after a stage. If that fails it is a warning: nothing is lost."""
    try:
        engine = open_catalog(config, layout)
        try:
            fill(engine, layout)
        finally:
            engine.dispose()
    except (MertError, SQLAlchemyError) as error:
        logger.warning("%s\n  The records are on disk; the catalog takes them in next time.", error)


def fill(engine: sa.Engine, layout: Layout) -> int:
    """Take in every record below the working directory and return how many there are. Filling twice changes nothing.

    Raises:
        MertError: a record is not what it says it is.
    """
    folders = []
    for top in (layout.data, layout.report):
        # Half-written folders of a running stage have names that begin with a dot.
        within = (path.parent for path in top.rglob(RECORD_NAME))
        folders += sorted(f for f in within if not any(part.startswith(".") for part in f.relative_to(top).parts))
    with engine.begin() as connection:
        known = set(connection.scalars(sa.select(records.c.id)))
        for folder in folders:
            record = read_record(folder)
            body = asdict(record)
            actual = sha256_json({key: value for key, value in body.items() if key != "id"})
            if record.id != actual:
                raise MertError(
                    f"{folder / RECORD_NAME} was changed: it says {str(record.id)[:12]}…, its content hashes to "
                    f"{actual[:12]}…. Run `dvc checkout`, or remove the folder and run `dvc repro`."
                )
            if record.id in known:
                continue
            known.add(record.id)
            rows: dict[sa.Table, list[dict[str, Any]]] = {
                records: [{column.key: body[column.key] for column in records.c}],
                edges: [{"child_id": record.id, "role": role, "parent_id": id_} for role, id_ in record.inputs.items()],
                files: [{"record_id": record.id, "path": path, "sha256": sha} for path, sha in record.files.items()],
                scores: _score_rows(record, folder) if record.kind == "scores" else [],
            }
            for table, values in rows.items():
                if values:
                    connection.execute(sa.insert(table), values)
    return len(folders)


def _score_rows(record: Record, folder: Path) -> list[dict[str, Any]]:
    path = folder / SCORES_NAME
    try:
        tasks: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    except (OSError, ValueError, KeyError) as error:
        raise MertError(f"{path} is no table of scores ({error!r}). Run `dvc repro` or `dvc checkout`.") from error
    rows = []
    for task, score in tasks.items():
        if lacking := [name for name in SCORE_FIELDS if name not in score]:
            raise MertError(
                f"the scores of {record.run}: {task} has no {', '.join(lacking)}; an earlier version wrote it. "
                f"Probe again: `dvc repro`, or `mert probe --run {record.run}`."
            )
        row = {name: score[name] for name in SCORE_FIELDS} | {"input": str(score["input"])}
        row |= {"rate": score.get("rate"), "validation": score.get("validation")}
        rows.append({"id": score_id(record.id, task), "record_id": record.id, "run": record.run, "task": task, **row})
    return rows


def lineage(config: Config, layout: Layout, wanted: str) -> str:
    """Return, as a tree, the way from a score (or any record) back to the music, with the hash of each.

    Args:
        config: parameters, which name the catalog.
        layout: folders whose records are taken in first.
        wanted: the beginning of an id, or ``RUN/TASK`` such as ``tiny/demo/gs_key``.

    Raises:
        MertError: nothing or more than one thing is meant; the message lists candidates.
    """
    engine = open_catalog(config, layout)
    try:
        fill(engine, layout)
        with engine.connect() as connection:
            return _draw(_tree(connection, _find(connection, layout, wanted)))
    finally:
        engine.dispose()


@dataclass
class Node:
    """One line of a lineage tree: what it is, its whole id, a remark, and what it was made from."""

    label: str
    id: str
    remark: str = ""
    record_id: str = ""
    parents: list[Node] = field(default_factory=list)


def _scores(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Node]:
    """Return scores without what they were made from, by run and task."""
    query = sa.select(scores).where(*conditions).order_by(scores.c.run, scores.c.task, scores.c.id)
    return [
        Node(
            f"score {row.run}/{row.task}: {row.metric} {row.value:.4f} [{row.low:.4f}, {row.high:.4f}]",
            row.id,
            f"{f'state {row.input}' if row.input.isdigit() else 'weighted sum of states'}, {row.tracks} test tracks",
            row.record_id,
        )
        for row in connection.execute(query)
    ]


def _records(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Node]:
    """Return records without what they were made from, by id."""
    count = sa.select(sa.func.count()).where(files.c.record_id == records.c.id).scalar_subquery()
    query = sa.select(records.c.id, records.c.kind, records.c.run, count.label("files")).where(condition)
    return [
        Node(
            f"{row.kind} {row.run}" if row.run else row.kind,
            row.id,
            f"{row.files} file{'s' if row.files != 1 else ''}",
            row.id,
        )
        for row in connection.execute(query.order_by(records.c.id))
    ]


def _listed(nodes: list[Node], digits: int = 64) -> str:
    return "\n".join(f"  {node.id[:digits]}  {node.label}" for node in nodes[:MOST_CANDIDATES])


def _find(connection: sa.Connection, layout: Layout, wanted: str) -> Node:
    """Return the score or record meant by ``RUN/TASK`` or by at least four hexadecimal digits of an id."""
    candidates = _listed(_scores(connection), 12)
    known = f"The catalog has:\n{candidates}" if candidates else "The catalog holds no scores yet. Run `dvc repro`."
    if "/" in wanted:
        run, _, task = wanted.partition("/")  # a proxy task's name has a slash of its own
        folders = layout.scores(run), layout.probed(run, task)
        current = [score_id(read_record(f).id, task) for f in folders if (f / RECORD_NAME).exists()]
        on_disk = [node for id_ in current for node in _scores(connection, scores.c.id == id_)]
        nodes = on_disk[:1] or _scores(connection, scores.c.run == run, scores.c.task == task)
        where = f"named {wanted}, none of them in {' or '.join(map(str, folders))}"
    else:
        prefix = wanted.lower()
        if len(prefix) < SHORTEST_PREFIX or not set(prefix) <= set("0123456789abcdef"):
            expected = f"RUN/TASK or at least {SHORTEST_PREFIX} hexadecimal digits of an id"
            raise MertError(f"found {wanted!r}, expected {expected}.\n{known}")
        nodes = _scores(connection, scores.c.id.startswith(prefix))
        nodes += _records(connection, records.c.id.startswith(prefix))
        where = f"whose id begins with {wanted!r}"
    if not nodes:
        raise MertError(f"there is no score or record {where.partition(',')[0]}.\n{known}")
    if len(nodes) > 1:
        raise MertError(f"there are {len(nodes)} scores or records {where}; give more digits:\n{_listed(nodes)}")
    return nodes[0]


def _tree(connection: sa.Connection, node: Node) -> Node:
    """Return a score or record with what it was made from, down to the music.

    An input that another input was itself made from is shown there alone: the corpus stands under the teacher that was
    fitted to it, not under everything that used it.
    """
    if node.id != node.record_id:
        node.parents = [_tree(connection, *_records(connection, records.c.id == node.record_id))]
        return node
    inputs = _inputs(connection, node.id)
    indirect = set().union(*(_ancestors(connection, parent) for parent in inputs))
    for parent, role in sorted(inputs.items(), key=lambda item: item[1]):
        if parent not in indirect:
            stored = _records(connection, records.c.id == parent)
            node.parents += [_tree(connection, stored[0])] if stored else [Node(role, parent, "not in this catalog")]
    return node


def _inputs(connection: sa.Connection, record_id: str) -> dict[str, str]:
    """Return the role of each input of a record, by the input's id."""
    query = sa.select(edges.c.parent_id, edges.c.role).where(edges.c.child_id == record_id).order_by(edges.c.role)
    return {row.parent_id: row.role for row in connection.execute(query)}


def _ancestors(connection: sa.Connection, record_id: str) -> set[str]:
    parents = set(_inputs(connection, record_id))
    return parents.union(*(_ancestors(connection, parent) for parent in parents))


def _draw(root: Node) -> str:
    """Return a tree as text, one line per node with its whole id."""

    def lines(node: Node, branch: str, indent: str) -> Iterator[tuple[str, Node]]:
        yield branch + node.label, node
        for parent in node.parents:
            last = parent is node.parents[-1]
            yield from lines(parent, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))

    drawn = list(lines(root, "", ""))
    width = max(len(text) for text, _ in drawn)
    return "\n".join(f"{text:<{width}}  {node.id}{f'  ({node.remark})' if node.remark else ''}" for text, node in drawn)
