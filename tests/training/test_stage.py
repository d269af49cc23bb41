"""The stage, from a corpus and a target store on disk to a checkpoint with its record."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mert_core.config import Config, load_config
from mert_core.data.record import read_record, write_record
from mert_core.data.track import SourceTrack
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.report.model_card import model_card
from mert_core.tracking import NullTracker
from mert_core.training import stage
from tests.stored import write_codes, write_corpus
from tests.training.music import TonesMusic, params, predicted


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("MERT_HOME", raising=False)
    layout = Layout.at(tmp_path)
    tracks = [
        SourceTrack(f"t{n}", pcm / 32768, 24000, "s", f"p{n}", "a", "train" if n < 10 else "valid", "CC0")
        for n, pcm in enumerate(TonesMusic(3.2).pcm)
    ]
    assert write_corpus(layout.corpus, tracks, shard_megabytes=1.0).tracks == 12
    write_codes(layout)
    return layout


@pytest.fixture
def small(repository: Path, tmp_path: Path) -> Config:
    tree = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    base = params(
        teachers=predicted(rvqvae=1.0, cqt=1.0), max_steps=3, checkpoint_every=1, validate_every=3
    ).model_dump(mode="json")
    tree |= {"threads": 1, "pretrain": base, "runs": {"tiny": {}}, "heavy": []}
    tree["sweep"]["run"] = "tiny"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return load_config(tmp_path / "params.yaml")


class Failing(NullTracker):
    """Knows its run, and dies when the last figures arrive."""

    run_id = "abc"  # type: ignore[assignment]

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if step == 3:
            raise KeyboardInterrupt


def test_stage_writes_a_loadable_model_and_forced_repeats_give_the_same_record(small: Config, layout: Layout) -> None:
    record = stage.run(small, layout, NullTracker(), "tiny")
    out = layout.model("tiny")
    assert read_record(out) == record and record.kind == "checkpoint"
    assert record.inputs["corpus"] == read_record(layout.corpus).id
    names = {"model.safetensors", "config.json", "heads.safetensors", "curve.parquet", "example.npz"}
    assert set(record.files) == names
    assert record.facts["teachers"]["rvqvae"] == {"kind": "2 × 16 codes", "targets": "stored"}
    assert record.facts["valid"]["rvqvae"] > 0
    assert MertModel.from_pretrained(out).config.num_hidden_layers == 3
    card = model_card(layout, "tiny")
    assert "| seed | 7 |" in card and "| precision | fp32 |" in card
    assert not list(layout.resume.iterdir())  # else a forced run would not train
    assert stage.run(small, layout, NullTracker(), "tiny") == record


def test_an_interrupted_stage_goes_on_in_the_same_tracked_run_and_with_other_engine_options(
    small: Config, layout: Layout
) -> None:
    def changed(assignment: str) -> Config:
        return load_config(layout.root / "params.yaml", [assignment])

    expected = stage.run(small, layout, NullTracker(), "tiny")
    assert stage.resumable_run_id(small, layout, "tiny") is None
    with pytest.raises(KeyboardInterrupt):
        stage.run(small, layout, Failing(), "tiny")
    assert stage.resumable_run_id(small, layout, "tiny") == "abc"
    assert stage.resumable_run_id(changed("pretrain.clip_norm=9.0"), layout, "tiny") is None
    assert stage.resumable_run_id(changed("pretrain.sharding=full"), layout, "tiny") == "abc"
    assert [path.name for path in layout.model("tiny").parent.iterdir()] == ["tiny"]  # nothing half-written
    assert read_record(layout.model("tiny")) == expected  # what stood there still stands
    assert stage.run(small, layout, NullTracker(), "tiny") == expected
    with pytest.raises(KeyboardInterrupt):
        stage.run(small, layout, Failing(), "tiny")
    recomputing = changed("pretrain.activation_checkpointing=true")
    assert stage.run(recomputing, layout, NullTracker(), "tiny").files == expected.files


def test_a_damaged_shard_stops_the_run_with_its_state_intact(small: Config, layout: Layout) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage.run(small, layout, Failing(), "tiny")
    for shard in (layout.targets("rvqvae") / "shards").iterdir():
        shard.write_bytes(b"\x07" + shard.read_bytes()[1:])
    with pytest.raises(MertError, match=r"after step 2: target shard .* has changed.*state of step 2 is intact"):
        stage.run(small, layout, NullTracker(), "tiny")
    for shard in (layout.corpus / "shards").iterdir():
        shard.write_bytes(shard.read_bytes()[:48000])
    with pytest.raises(MertError, match="has 48000 bytes; the manifest needs"):
        stage.run(small, layout, NullTracker(), "tiny")


def test_the_cost_is_tracked_and_on_the_card_but_not_in_the_record(small: Config, layout: Layout) -> None:
    seen: dict[str, float] = {}
    kept: list[Path] = []

    class Recorder(NullTracker):
        def metrics(self, values: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
            seen.update(values)

        def artifact(self, path: Path, name: str = "") -> None:
            kept.append(path)

    record = stage.run(small, layout, Recorder(), "tiny")
    names = {"steps_per_second", "audio_hours_per_second", "data_wait_share", "peak_memory_gib", "gpu_hours"}
    assert {f"total/{name}" for name in names} <= set(seen)
    assert "cost" not in record.facts
    assert kept == [layout.cards / f"{record.id}.md"]
    assert "## Cost" in kept[0].read_text()


def test_targets_of_another_corpus_are_refused(small: Config, layout: Layout) -> None:
    write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={"other": 1}, facts={})
    with pytest.raises(MertError, match="another corpus"):
        stage.run(small, layout, NullTracker(), "tiny")


def test_missing_inputs_are_named(small: Config, layout: Layout, tmp_path: Path) -> None:
    empty = Layout.at(tmp_path / "elsewhere")
    assert stage.resumable_run_id(small, empty, "tiny") is None
    with pytest.raises(MertError, match="dvc repro"):
        stage.run(small, empty, NullTracker(), "tiny")
