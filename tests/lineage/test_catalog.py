from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from mert_core.config import Config, load_config
from mert_core.data.record import Record, write_record
from mert_core.errors import MertError
from mert_core.files import write_json
from mert_core.lineage.catalog import fill, lineage, open_catalog, record_stage, records, score_id, tables
from mert_core.paths import Layout


def score(value: float) -> dict[str, object]:
    figures = {"value": value, "low": value - 0.02, "high": value + 0.02, "validation": value}
    return {"metric": "accuracy", "tracks": 700, "input": 3, "rate": 0.001, "per_seed": [value] * 3} | figures


def put(folder: Path, kind: str, inputs: dict[str, Record], run: str | None = None, seed: int = 1) -> Record:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content.bin").write_bytes(f"{kind} {run} {seed}".encode())
    if kind == "scores":
        put_scores(folder, {"demo/gs_key": score(0.4), "nsynth_pitch": score(0.7)})
    ids = {role: record.id for role, record in inputs.items()}
    return write_record(folder, stage=kind, kind=kind, run=run, inputs=ids, params={"seed": seed}, facts={"n": 0.1})


def put_scores(folder: Path, tasks: dict[str, dict[str, object]]) -> None:
    write_json(folder / "scores.json", {"run": "tiny", "tasks": tasks, "skipped": {"mtt": "no data"}})


@pytest.fixture
def config(repository: Path) -> Config:
    return load_config(repository / "params.yaml")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("MERT_HOME", raising=False)
    return Layout.at(tmp_path)


@pytest.fixture
def pipeline(layout: Layout) -> dict[str, Record]:
    made = {"corpus": put(layout.corpus, "corpus", {}), "probe_set": put(layout.probe_set, "probe_set", {})}

    def after(*names: str) -> dict[str, Record]:
        return {name: made[name] for name in names}

    made["teacher"] = put(layout.teacher("rvqvae"), "teacher", after("corpus"))
    made["targets"] = put(layout.targets("rvqvae"), "targets", after("corpus", "teacher"))
    made["checkpoint"] = put(layout.model("tiny"), "checkpoint", after("corpus", "teacher", "targets"), "tiny")
    made["scores"] = put(layout.scores("tiny"), "scores", after("probe_set", "checkpoint"), "tiny")
    made["baseline"] = put(layout.scores("random-weights"), "scores", after("probe_set"), "random-weights")
    return made


def dump(config: Config, layout: Layout) -> dict[str, list[tuple[object, ...]]]:
    engine = open_catalog(config, layout)
    with engine.connect() as connection:
        rows = {
            name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for name, table in tables.tables.items()
        }
    engine.dispose()
    return rows


def test_filling_twice_and_filling_anew_give_the_same(
    config: Config, layout: Layout, pipeline: dict[str, Record]
) -> None:
    engine = open_catalog(config, layout)
    assert fill(engine, layout) == 7
    once = dump(config, layout)
    fill(engine, layout)
    assert dump(config, layout) == once
    assert {name: len(rows) for name, rows in once.items()} == {"records": 7, "edges": 9, "files": 9, "scores": 4}
    engine.dispose()
    (layout.state / "catalog.db").unlink()
    record_stage(config, layout)
    assert dump(config, layout) == once


def test_a_score_leads_back_to_the_music_with_every_hash(
    config: Config, layout: Layout, pipeline: dict[str, Record]
) -> None:
    identity = hashlib.sha256(f"{pipeline['scores'].id}/demo/gs_key".encode()).hexdigest()
    assert score_id(pipeline["scores"].id, "demo/gs_key") == identity
    text = lineage(config, layout, identity[:10])
    assert text == lineage(config, layout, "tiny/demo/gs_key")
    lines = text.splitlines()
    assert lines[0].startswith("score tiny/demo/gs_key: accuracy 0.4000 [0.3800, 0.4200]")
    assert identity in lines[0]
    order = ["scores", "checkpoint", "targets", "teacher", "corpus", "probe_set"]
    assert [pipeline[name].id in text_line for name, text_line in zip(order, lines[1:], strict=True)] == [True] * 6
    depths = [text_line.index("─") for text_line in lines[1:]]
    assert depths == [1, 4, 7, 10, 13, 4]


def test_the_weighted_sum_is_called_so_and_older_scores_are_refused(config: Config, layout: Layout) -> None:
    folder = layout.scores("tiny")
    put(folder, "scores", {}, "tiny")
    put_scores(folder, {"demo/emo": score(0.4) | {"input": "weighted"}})
    assert "(weighted sum of states, 700 test tracks)" in lineage(config, layout, "tiny/demo/emo").splitlines()[0]
    put(folder, "scores", {}, "tiny", seed=2)
    put_scores(folder, {"demo/emo": {key: value for key, value in score(0.4).items() if key != "input"}})
    with pytest.raises(MertError, match="demo/emo has no input; an earlier version wrote it"):
        lineage(config, layout, "tiny/demo/emo")


def test_a_baseline_has_no_checkpoint(config: Config, layout: Layout, pipeline: dict[str, Record]) -> None:
    text = lineage(config, layout, "random-weights/nsynth_pitch")
    assert "checkpoint" not in text
    assert pipeline["probe_set"].id in text


def test_an_old_score_stays_and_the_alias_means_the_new_one(
    config: Config, layout: Layout, pipeline: dict[str, Record]
) -> None:
    record_stage(config, layout)
    new = put(layout.scores("tiny"), "scores", {"checkpoint": pipeline["checkpoint"]}, "tiny", seed=2)
    assert score_id(new.id, "demo/gs_key") in lineage(config, layout, "tiny/demo/gs_key")
    assert pipeline["scores"].id in lineage(config, layout, score_id(pipeline["scores"].id, "demo/gs_key"))
    (layout.scores("tiny") / "record.json").unlink()
    with pytest.raises(MertError, match="there are 2 scores or records named tiny/demo/gs_key, none of them in"):
        lineage(config, layout, "tiny/demo/gs_key")
    added = put(layout.probed("tiny", "nsynth_pitch"), "scores", {"checkpoint": pipeline["checkpoint"]}, "tiny", seed=3)
    assert score_id(added.id, "nsynth_pitch") in lineage(config, layout, "tiny/nsynth_pitch")


def test_unknown_and_ambiguous_ids_list_candidates(config: Config, layout: Layout, pipeline: dict[str, Record]) -> None:
    for wanted in ("tiny/genre", "nonsense", "abc", "0000000000000000"):
        with pytest.raises(MertError, match="score tiny/demo/gs_key"):
            lineage(config, layout, wanted)
    twins = ["abcd" + "0" * 60, "abcd" + "1" * 60]
    engine = open_catalog(config, layout)
    with engine.begin() as connection:
        for twin in twins:
            row = {"id": twin, "stage": "corpus", "kind": "corpus", "run": None, "params": {}, "facts": {}}
            connection.execute(insert(records), row)
    engine.dispose()
    with pytest.raises(MertError, match="there are 2 scores or records whose id begins with 'abcd'") as raised:
        lineage(config, layout, "abcd")
    assert all(twin in str(raised.value) for twin in twins)
    assert lineage(config, layout, "abcd0").startswith("corpus")


def test_a_changed_record_is_refused_and_a_half_written_folder_ignored(
    config: Config, layout: Layout, pipeline: dict[str, Record], caplog: pytest.LogCaptureFixture
) -> None:
    put(layout.corpus.parent / ".corpus.x1", "corpus", {}, seed=5)
    engine = open_catalog(config, layout)
    assert fill(engine, layout) == 7
    engine.dispose()
    path = layout.corpus / "record.json"
    path.write_text(path.read_text().replace('"n": 0.1', '"n": 0.2'))
    with pytest.raises(MertError, match="was changed"):
        lineage(config, layout, "tiny/demo/gs_key")
    record_stage(config, layout)
    assert "was changed" in caplog.text


def test_a_missing_ancestor_is_named(config: Config, layout: Layout, pipeline: dict[str, Record]) -> None:
    (layout.corpus / "record.json").unlink()
    text = lineage(config, layout, "tiny/demo/gs_key")
    (shown,) = [text_line for text_line in text.splitlines() if pipeline["corpus"].id in text_line]
    assert shown.endswith("(not in this catalog)")


def test_a_wrong_url_is_named_and_does_not_stop_a_stage(
    layout: Layout, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(repository / "params.yaml", ["catalog.url=nothing at all"])
    with pytest.raises(MertError, match=r"catalog\.url is 'nothing at all'"):
        lineage(config, layout, "tiny/demo/gs_key")
    record_stage(config, layout)
    assert "takes them in next time" in caplog.text


def test_postgres_takes_the_same_tables() -> None:
    dialect = postgresql.dialect()
    made = {name: str(CreateTable(table).compile(dialect=dialect)) for name, table in tables.tables.items()}
    assert "params JSON NOT NULL" in made["records"]
    assert "value DOUBLE PRECISION" in made["scores"] or "value FLOAT(53)" in made["scores"]
