"""A small trained run `95m` with heads and record, as `mert pretrain` leaves it."""

from __future__ import annotations

from mert_core.config import load_config
from mert_core.data.record import Record, write_record
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from tests.conftest import REPOSITORY
from tests.model.test_hubert_parity import SMALL


def write_trained_run(layout: Layout, steps: int = 1234) -> Record:
    folder = layout.model("95m")
    MertModel(SMALL, seed=1).save_pretrained(folder)
    Heads(48, {"encodec": (8, 16)}, {"cqt": 336}, 8, 0.1).save(folder)
    run = load_config(REPOSITORY / "params.yaml").run("95m").model_dump(mode="json")
    facts = {
        "steps": steps,
        "parameters": 77,
        "precision": "fp32",
        "audio_hours_seen": 3.5,
        "epochs": 2.0,
        "teachers": {
            "encodec": {"kind": "8 × 16 codes", "targets": "stored"},
            "cqt": {"kind": "336 bins", "targets": "crop"},
        },
        "interventions": 0,
        "unigram_cross_entropy": {"encodec": 38.5},
        "valid": {"encodec": 12.25, "cqt": 0.5, "accuracy": 0.25},
    }
    return write_record(
        folder,
        stage="pretrain",
        kind="checkpoint",
        run="95m",
        inputs={"corpus": "c" * 64},
        params={"threads": 1, "pretrain": run},
        facts=facts,
    )
