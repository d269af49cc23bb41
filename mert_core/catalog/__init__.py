"""How things hang together: corpus → targets → checkpoint → score, by content hash."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mert_core.catalog.build import catalog_url, fill, open_catalog, rebuild, score_id
from mert_core.catalog.queries import draw, find, tree

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout

__all__ = ["catalog_url", "fill", "lineage", "open_catalog", "rebuild", "record_stage", "score_id"]


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
