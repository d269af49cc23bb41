"""Everything probed here: what the line left, and what ``mert probe --task`` has added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.records import RECORD_NAME
from mert_core.report.collect import Scores, read_scores_of

STALE = "probed from other weights than the rest; probe it again"


def probed_names(layout: Layout) -> list[str]:
    """Return the runs, floors and other models that have been probed here, sorted."""
    found = {path.parent.name for path in layout.scores("any").parent.glob(f"*/{RECORD_NAME}")}
    top = layout.probed_top
    found |= {path.relative_to(top).parts[0] for path in top.glob(f"*/**/{RECORD_NAME}")}
    return sorted(name for name in found if not name.startswith("."))


def read_whole(layout: Layout, name: str) -> Scores:
    """Return all scores of one model: what the line has asked, and what was added.

    A name may have stood for other weights, before a run was trained anew, say. The line's are those that count, else
    the latest; what was probed from others is skipped, and says so.

    Raises:
        MertError: it was not probed, or a file cannot be read.
    """
    parts = [read_scores_of(folder, name) for folder in _folders(layout, name)]
    if not parts:
        raise MertError(f"{name} has not been probed here; found {', '.join(probed_names(layout)) or 'nothing'}")
    whole = parts[0]
    for part in parts[1:]:
        if part.record.facts.get("encoder") != whole.record.facts.get("encoder"):
            whole = replace(whole, skipped=dict.fromkeys(part.tasks.keys() - whole.tasks.keys(), STALE) | whole.skipped)
            continue
        whole = replace(
            whole,
            tasks=part.tasks | whole.tasks,
            layers=part.layers | whole.layers,
            robustness=part.robustness | whole.robustness,
            skipped={task: why for task, why in (part.skipped | whole.skipped).items() if task not in part.tasks},
            folders=part.folders | whole.folders,
        )
    return whole


def _folders(layout: Layout, name: str) -> list[Path]:
    """Return the line's folder, then what was added, the latest first."""
    line = layout.scores(name)
    records = sorted((layout.probed_top / name).rglob(RECORD_NAME), key=lambda path: path.stat().st_mtime_ns)
    added = [path.parent for path in reversed(records)]
    visible = [
        folder for folder in added if not any(part.startswith(".") for part in folder.relative_to(layout.data).parts)
    ]
    return [*([line] if (line / RECORD_NAME).exists() else []), *visible]
