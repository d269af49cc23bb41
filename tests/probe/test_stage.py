from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mert_core.config import Config, load_config
from mert_core.corpus import Corpus
from mert_core.errors import MertError
from mert_core.model import MertModel
from mert_core.paths import Layout
from mert_core.probe import FLOORS, quick_score, stage
from mert_core.probe.embeddings import cached_embeddings, embed
from mert_core.probe.encoders import MelStatistics, ModelEncoder, load_encoder
from mert_core.probe.items import ask, read_items
from mert_core.probe.tasks import TASKS
from mert_core.records import write_record
from mert_core.tracking import NullTracker
from tests.probe.material import write_probe_set


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    small = [
        "threads=1",
        "probe.hidden=32",
        "probe.max_epochs=8",
        "probe.rates=[1.0e-3, 5.0e-3]",
        "probe.bootstrap=100",
    ]
    return load_config(repository / "params.yaml", small)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout.at(tmp_path_factory.mktemp("work"))
    write_probe_set(layout.probe_set)
    return layout


@pytest.fixture(autouse=True)
def _state_beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERT_HOME", raising=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_is_probed_and_probed_again_to_the_byte(config: Config, layout: Layout, floor: str) -> None:
    record = stage.run(config, layout, NullTracker(), floor)
    first = contents(layout.scores(floor))
    assert stage.run(config, layout, NullTracker(), floor) == record
    assert contents(layout.scores(floor)) == first
    assert record.inputs == {"probe_set": Corpus.open(layout.probe_set).record.id}

    scores = json.loads(first["scores.json"])
    assert scores["run"] == floor
    assert list(scores["tasks"]) == sorted(TASKS)
    for task, score in scores["tasks"].items():
        assert score["metric"] == TASKS[task].metric
        assert score["low"] <= score["value"] <= score["high"]
        assert len(score["per_seed"]) == 3
    assert scores["tasks"]["key"]["items"] == 23, "the item whose key is unknown is left out"
    assert scores["tasks"]["pitch"]["value"] > 0.9, "octaves of a sine are easy for any encoder"
    layers = json.loads(first["layers.json"])
    assert {len(rows) for rows in layers.values()} == {1 if floor == "mel-statistics" else 4}
    predictions = pq.read_table(layout.scores(floor) / "predictions.parquet").to_pylist()
    pitch = [row for row in predictions if row["task"] == "pitch"]
    assert len(pitch) == 3 * 24
    assert np.mean([row["truth"] == row["prediction"] for row in pitch]) == pytest.approx(
        scores["tasks"]["pitch"]["value"]
    )
    assert {row["truth"] for row in predictions if row["task"] == "family"} == {"keys", "brass", "strings"}


def test_a_run_is_probed_from_its_checkpoint(config: Config, layout: Layout) -> None:
    folder = layout.model("tiny")
    with pytest.raises(MertError):
        stage.run(config, layout, NullTracker(), "tiny")
    folder.mkdir(parents=True)
    MertModel.from_preset("mert-tiny", seed=99).save_pretrained(folder)
    checkpoint = write_record(folder, stage="pretrain", kind="checkpoint", run="tiny", inputs={}, params={}, facts={})
    record = stage.run(config, layout, NullTracker(), "tiny")
    assert record.inputs["checkpoint"] == checkpoint.id


def test_test_labels_change_neither_layer_nor_rate_nor_predictions(config: Config, layout: Layout) -> None:
    items = read_items(Corpus.open(layout.probe_set), "mix")
    features = embed(load_encoder(config, layout, "random-weights"), items)
    honest = ask(TASKS["composer"], items)
    swapped = [("loud" if name == "soft" else "soft") if split == "test" else name
               for name, split in zip(items.labels["composer"], items.splits, strict=True)]  # fmt: skip
    items.labels["composer"][:] = swapped
    verdicts = [
        stage.judge("composer", question, features, items, config, "cpu")
        for question in (honest, ask(TASKS["composer"], items))
    ]
    one, two = (verdict.score for verdict in verdicts)
    assert one["value"] != two["value"]
    assert [one[name] for name in ("layer", "rate", "validation")] == [
        two[name] for name in ("layer", "rate", "validation")
    ]
    assert verdicts[0].by_layer == verdicts[1].by_layer
    assert verdicts[0].predictions["prediction"].equals(verdicts[1].predictions["prediction"])


def test_quick_score_reads_no_test_item_and_leaves_the_model_alone(
    config: Config, layout: Layout, tmp_path: Path
) -> None:
    model = MertModel.from_preset("mert-tiny", seed=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score = quick_score(model, config, layout, "pitch")
    assert 0.9 < score <= 1
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert quick_score(model, config, layout, "pitch") == score

    # The same probe set, the test items' pitches scrambled.
    other = Layout.at(tmp_path)
    write_probe_set(other.probe_set)
    path = other.probe_set / "labels.parquet"
    table = pq.read_table(path)
    pitches = [
        60 if "note-test" in name else pitch
        for name, pitch in zip(table["track_id"].to_pylist(), table["pitch"].to_pylist(), strict=True)
    ]
    where = table.column_names.index("pitch")
    pq.write_table(table.set_column(where, "pitch", pa.array(pitches, pa.int16())), path)
    assert quick_score(model, config, other, "pitch") == score


def test_embeddings_do_not_depend_on_the_batch(layout: Layout) -> None:
    items = read_items(Corpus.open(layout.probe_set), "note")
    encoder = ModelEncoder(MertModel.from_preset("mert-tiny", seed=3))
    whole = embed(encoder, items)
    assert whole.shape == (4, 72, 128)
    alone = embed(encoder, items, np.array([17]))
    np.testing.assert_allclose(alone[:, 0], whole[:, 17], atol=1e-5)
    waveform = torch.from_numpy(items.pcm(np.array([17])).astype(np.float32) / 32768)
    with torch.no_grad():
        states = encoder.model.eval()(waveform).hidden_states
    np.testing.assert_allclose(alone[3, 0], states[3][0].mean(dim=0), atol=1e-5)


def test_the_cache_serves_the_same_model_and_no_other(layout: Layout, tmp_path: Path) -> None:
    items = read_items(Corpus.open(layout.probe_set), "note")
    one, two = (ModelEncoder(MertModel.from_preset("mert-tiny", seed=seed)) for seed in (1, 2))
    first = cached_embeddings(one, items, tmp_path)
    (folder,) = (tmp_path / "embeddings").iterdir()
    written = (folder / "embeddings.npy").stat().st_mtime_ns
    assert np.array_equal(cached_embeddings(one, items, tmp_path), first)
    assert (folder / "embeddings.npy").stat().st_mtime_ns == written
    assert not np.array_equal(cached_embeddings(two, items, tmp_path), first)
    cached_embeddings(MelStatistics(64), items, tmp_path)
    assert len(list((tmp_path / "embeddings").iterdir())) == 3


def test_the_cache_refuses_another_model_and_damage(layout: Layout, tmp_path: Path) -> None:
    items = read_items(Corpus.open(layout.probe_set), "note")
    encoder = MelStatistics(64)
    cached_embeddings(encoder, items, tmp_path)
    (folder,) = (tmp_path / "embeddings").iterdir()
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "encoder": "0" * 64}))
    with pytest.raises(MertError, match="encoder is"):
        cached_embeddings(encoder, items, tmp_path)
    (folder / "card.json").write_text(json.dumps(card))
    damaged = bytearray((folder / "embeddings.npy").read_bytes())
    damaged[-1] ^= 1
    (folder / "embeddings.npy").write_bytes(damaged)
    with pytest.raises(MertError, match="not those that were written"):
        cached_embeddings(encoder, items, tmp_path)


def test_a_diverged_model_is_named(layout: Layout) -> None:
    model = MertModel.from_preset("mert-tiny")
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(MertError, match="not finite"):
        embed(ModelEncoder(model), read_items(Corpus.open(layout.probe_set), "note"))


def test_random_weights_are_the_floor_runs_network(config: Config, layout: Layout) -> None:
    encoder = load_encoder(config, layout, "random-weights")
    assert isinstance(encoder, ModelEncoder)
    reference = MertModel.from_preset(config.run(config.probe.floor_run).preset, seed=config.seed)
    assert all(torch.equal(value, encoder.model.state_dict()[name]) for name, value in reference.state_dict().items())


def test_unknown_names_are_errors(config: Config, layout: Layout, repository: Path) -> None:
    with pytest.raises(MertError, match="no run is named 'tinny'"):
        stage.run(config, layout, NullTracker(), "tinny")
    with pytest.raises(MertError, match="floor_run"):
        load_config(repository / "params.yaml", ["probe.floor_run=none"])
    with pytest.raises(MertError, match="no item of kind 'loop'"):
        read_items(Corpus.open(layout.probe_set), "loop")
