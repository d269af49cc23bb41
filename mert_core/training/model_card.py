"""The card of a checkpoint: what it is, how well it predicts, and what it cost to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.files import write_json, write_text

if TYPE_CHECKING:
    from mert_core.data.record import Record

_FORMATS = {
    "device": ("Device", "{}"),
    "workers": ("Workers", "{}"),
    "updates": ("Updates, undone ones included", "{:,}"),
    "audio_hours": ("Audio presented", "{:,.2f} h"),
    "steps_per_second": ("Updates per second", "{:.3g}"),
    "audio_hours_per_second": ("Audio per second of training", "{:.3g} h"),
    "data_wait_share": ("Time waiting for data", "{:.1%}"),
    "mfu": ("Model FLOPs utilisation, of the dense bf16 peak", "{:.1%}"),
    "gflop_per_clip": ("Forward and backward of one clip", "{:,.4g} GFLOP"),
    "total_pflop": ("Arithmetic in all", "{:,.3g} PFLOP"),
    "peak_memory_gib": ("Peak memory of the fullest worker", "{:.2f} GiB"),
    "wall_hours": ("Wall time", "{:.3f} h"),
    "gpu_hours": ("GPU-hours", "{:.3f}"),
}
_CARD = """# Checkpoint {record.run}

Record {record.id}: {parameters:,} parameters after {steps:,} updates ({epochs:.2f} epochs); the health policy stepped \
in {interventions} time(s).

Made from:

{made_from}

## Validation

| term | value |
|---|---|
{rows}

{cost}
"""


def cost_section(cost: dict[str, Any] | None) -> list[str]:
    """Return the lines of a card's section on cost, as `CostMeter.card` or `read_cost` returns them."""
    if cost is None:
        return ["## Cost", "", "Not known here: the checkpoint was made in another working directory."]
    rows = [f"| {title} | {form.format(cost[name])} |" for name, (title, form) in _FORMATS.items() if name in cost]
    return ["## Cost", "", "| | |", "|---|---|", *rows]


def write_card(folder: Path, record: Record, cost: dict[str, Any]) -> Path:
    """Write a checkpoint's card, and its cost as JSON for other cards; return the card's path.

    Both are named by the record's id, so that no checkpoint is given another one's figures.
    """
    write_json(folder / f"{record.id}.json", cost)
    rows = [f"| {term} | {value:.4f} |" for term, value in sorted(record.facts["valid"].items())]
    for name, nats in record.facts["unigram_cross_entropy"].items():
        rows.append(f"| {name}, guessing by frequency | {nats:.4f} |")
    made_from = "\n".join(f"- {role} {identity}" for role, identity in sorted(record.inputs.items()))
    cost_lines = "\n".join(cost_section(cost))
    path = folder / f"{record.id}.md"
    text = _CARD.format(record=record, **record.facts, made_from=made_from, rows="\n".join(rows), cost=cost_lines)
    write_text(path, text)
    return path


def read_cost(folder: Path, record_id: str) -> dict[str, Any] | None:
    """Return what a checkpoint cost, or None when it was not made here."""
    path = folder / f"{record_id}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
