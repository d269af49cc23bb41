"""The exported card's cost is that of exactly this checkpoint, or is said to be unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mert_core.paths import Layout
from mert_core.report.model_card import model_card
from mert_core.training.cost import CostMeter, Totals
from mert_core.training.model_card import write_card
from mert_core.training.worker import Worker
from tests.report.made_up import METRICS, write_scores
from tests.trained_run import write_trained_run


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("MERT_HOME", raising=False)
    return Layout.at(tmp_path)


def ledger() -> dict[str, Any]:
    """Return a whole ledger with round figures, as training on a CPU leaves it."""
    times = {"busy_seconds": 50.0, "waited_seconds": 5.0, "held_seconds": 360.0}
    totals = Totals(updates=100, clips=800, masked_frames=4e4, **times, peak_memory_bytes=3 * 2**30)
    return CostMeter(totals, Worker(), 4.5, lambda masked: 2e9).card()


def cost_of(card: str) -> str:
    return card.partition("\n## Cost\n")[2].partition("\n## ")[0]


def test_the_exported_card_shows_what_training_cost(layout: Layout) -> None:
    write_card(layout.cards, write_trained_run(layout), ledger())
    card = model_card(layout, "95m")
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Training", "## Cost", "## Scores", "## Data and licence"]
    rows = {
        "| Updates per second | 2 |",
        "| Audio per second of training | 0.02 h |",
        "| Time waiting for data | 10.0% |",
        "| Peak memory of the fullest worker | 3.00 GiB |",
        "| GPU-hours | 0.000 |",
        "| Wall time | 0.100 h |",
    }
    assert rows <= set(cost_of(card).splitlines())
    assert "utilisation" not in card  # a CPU has no peak to compare with


def test_utilisation_and_gpu_hours_are_those_of_a_gpu(layout: Layout) -> None:
    gpu = {"device": "NVIDIA H100 80GB HBM3", "workers": 2, "mfu": 0.314, "gpu_hours": 0.2}
    write_card(layout.cards, write_trained_run(layout), ledger() | gpu)
    rows = cost_of(model_card(layout, "95m")).splitlines()
    assert "| Model FLOPs utilisation, of the dense bf16 peak | 31.4% |" in rows and "| GPU-hours | 0.200 |" in rows


def test_every_figure_of_exactly_these_weights_is_shown(layout: Layout) -> None:
    record = write_trained_run(layout)
    assert "has not been probed" in model_card(layout, "95m")
    write_scores(layout, "95m", record)
    table = model_card(layout, "95m").partition("\n## Scores\n")[2].partition("\n## ")[0]
    assert "not to be compared with published figures" in table
    rows = [line for line in table.splitlines() if line.startswith("| demo/")]
    assert len(rows) == sum(map(len, METRICS.values()))
    assert any(row.startswith("| demo/gs_key | weighted score | state 1 | 0.570 | 0.540 to 0.600 |") for row in rows)
    write_scores(layout, "95m", None)
    assert "has not been probed" in model_card(layout, "95m")


def test_another_checkpoints_cost_is_not_shown(layout: Layout) -> None:
    write_card(layout.cards, write_trained_run(layout, steps=1), ledger())
    write_trained_run(layout, steps=2)
    assert cost_of(model_card(layout, "95m")).strip().startswith("Not known here")
