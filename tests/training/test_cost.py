"""The cost meter: exact arithmetic, honest sums, and a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mert_core.data.record import Record
from mert_core.model.config import PRESETS, hubert_fields
from mert_core.model.heads import Heads
from mert_core.training.cost import (
    CostMeter,
    Totals,
    convolution_flops,
    encoder_flops,
    heads_flops,
    peak_flops,
    training_flops,
)
from mert_core.training.model_card import cost_section, read_cost, write_card
from mert_core.training.worker import Worker
from tests.training.music import train


@pytest.mark.parametrize(("preset", "gigaflop"), [("mert-95m", 329), ("mert-330m", 852)])
def test_a_five_second_clip_costs_what_was_published(preset: str, gigaflop: int) -> None:
    config = PRESETS[preset]
    assert round(training_flops(config, 120000, 0.583 * 374) / 1e9) == gigaflop
    share = 3 * sum(convolution_flops(config, 120000)) / training_flops(config, 120000, 0.583 * 374)
    assert share == pytest.approx({"mert-95m": 0.335, "mert-330m": 0.13}[preset], abs=0.003)


def test_the_formula_counts_what_torch_counts() -> None:
    """Of the same network made of plain convolutions and products: HubertModel. Ours saves some and pads others."""
    from transformers import HubertConfig, HubertModel

    config = replace(PRESETS["mert-tiny"], feature_extractor_cqt=False)
    fields = {name: value for name, value in hubert_fields(config).items() if name != "architectures"}
    model = HubertModel(HubertConfig(**fields, attn_implementation="eager")).eval()
    heads = Heads(config.hidden_size, {"a": (2, 16), "b": (1, 7)}, {"c": 336, "d": 48}, config.final_dim, 0.1)
    frames = config.frames(24000)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 24000))
        states = torch.zeros(frames, config.hidden_size)
        for head in (*heads.codes.values(), *heads.spectra.values()):
            head(states)
    dropped = 2 * config.num_conv_pos_embeddings * config.hidden_size**2 // 16  # the position convolution's last frame
    expected = sum(convolution_flops(config, 24000)) + encoder_flops(config, frames) + dropped
    assert counter.get_total_flops() == expected + heads_flops(config, frames, [(2, 16), (1, 7)], 384)


def test_peaks_are_found_by_name() -> None:
    cards = "H200", "H100 PCIe", "A100-SXM4-80GB", "GeForce GT 710"
    assert [peak_flops(f"NVIDIA {card}") for card in cards] == [989e12, 756e12, 312e12, None]


def test_sums_go_on_where_an_earlier_process_ended() -> None:
    totals = Totals(updates=10, clips=80, masked_frames=800.0, busy_seconds=4.0, waited_seconds=1.0, held_seconds=6.0)
    meter = CostMeter(totals, Worker(), 5.0, lambda masked: 1e9 + masked)
    with meter.waiting():
        pass
    meter.count(8, 80.0)
    figures = meter.read()
    assert {"speed/steps_per_second", "speed/data_wait_share", "cost/peak_memory_gib"} <= set(figures)
    assert "speed/mfu" not in figures and "cost/gpu_hours" not in figures  # no card, no peak to compare with
    card = meter.card()
    assert (card["updates"], card["device"], card["gpu_hours"]) == (11, "CPU", 0.0)
    assert card["audio_hours"] == pytest.approx(88 * 5 / 3600)
    assert card["gflop_per_clip"] == pytest.approx(1 + 10e-9)
    assert card["steps_per_second"] <= 11 / 4
    assert meter.audio_hours_per_second == 0  # the window is empty after a reading


def test_utilisation_and_gpu_hours_are_over_all_cards() -> None:
    totals = Totals(updates=10, clips=80, masked_frames=800.0, busy_seconds=4.0, held_seconds=6.0)
    card = CostMeter(totals, Worker(world=4), 5.0, lambda masked: masked * 1e12, "NVIDIA H200").card()
    assert card["device"] == "NVIDIA H200" and card["gpu_hours"] == pytest.approx(6 * 4 / 3600)
    assert card["mfu"] == pytest.approx(80 * 10e12 / 4.0 / (4 * 989e12))
    assert "| Model FLOPs utilisation, of the dense bf16 peak | 5.1% |" in cost_section(card)
    unknown = CostMeter(totals, Worker(), 5.0, lambda masked: masked, "NVIDIA Unheard-of").card()
    assert "mfu" not in unknown and unknown["gpu_hours"] > 0


def test_a_run_brings_its_cost_and_the_card_shows_it(tmp_path: Path) -> None:
    facts = train(max_steps=3)
    cost = facts.pop("cost")
    assert cost["updates"] == 3 and cost["peak_memory_gib"] > 0 and 0 <= cost["data_wait_share"] < 1
    assert cost["audio_hours"] == pytest.approx(facts["audio_hours_seen"])
    record = Record("pretrain", "checkpoint", "tiny", {"corpus": "c1"}, {}, {}, facts, "ab12")
    text = write_card(tmp_path, record, cost).read_text()
    assert "| Time waiting for data |" in text and "corpus c1" in text
    assert "utilisation" not in text  # there is no honest figure for a CPU
    assert read_cost(tmp_path, "ab12") == pytest.approx(cost)
    assert read_cost(tmp_path, "cd34") is None
    assert "another working directory" in cost_section(None)[-1]
