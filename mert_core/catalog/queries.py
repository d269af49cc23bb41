"""Questions to the catalog: above all, where a score comes from."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from mert_core.catalog.build import score_id
from mert_core.catalog.tables import RecordRow, ScoreRow
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.records import RECORD_NAME, read_record

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
