"""A hundred thousand tracks: memory stays bounded, and what is read lazily is what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.scale import make, measure
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import GROUP_ROWS, MANIFEST_NAME, ROWS_NAME, SCHEMA, write_manifest
from mert_core.data.tables import in_groups
from mert_core.errors import MertError

TRACKS = 100_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, dict[str, dict[str, float]]]:
    folder = tmp_path_factory.mktemp("scale") / "corpus"
    make(folder, TRACKS)
    figures = {name: measure(name, folder) for name in ("split", "crops")}
    return Corpus.open(folder), figures


def test_memory_is_bounded(corpus: tuple[Corpus, dict[str, dict[str, float]]]) -> None:
    """One array over all crops would be 90 MB, the rows as Python dictionaries 200."""
    figures = {name: found["mib"] for name, found in corpus[1].items()}
    assert figures["split"] < 260 and figures["crops"] < 120, figures
    assert corpus[1]["crops"]["crops"] > 10_000_000


def test_row_groups_are_whole_and_columns_lazy(corpus: tuple[Corpus, dict[str, dict[str, float]]]) -> None:
    opened, _ = corpus
    file = pq.ParquetFile(opened.folder / MANIFEST_NAME)
    assert [file.metadata.row_group(n).num_rows for n in range(2)] == [GROUP_ROWS, TRACKS - GROUP_ROWS]
    assert not (opened.folder / ROWS_NAME).exists()
    table = opened.tracks
    assert len(opened) == table.num_rows == TRACKS and set(opened.column("split")) == {"train", "valid"}
    for name in ("samples", "shard", "offset_samples", "split", "artist"):
        assert np.array_equal(opened.column(name), table[name].to_numpy())
    assert opened.arrow("piece").equals(table["piece"])
    assert sorted(np.concatenate([opened.rows("train"), opened.rows("valid")])) == list(range(TRACKS))
    with pytest.raises(MertError, match="no column tempo"):
        opened.column("tempo")


def test_a_filter_gives_the_rows_that_pass_it(corpus: tuple[Corpus, dict[str, dict[str, float]]]) -> None:
    folder, table = corpus[0].folder, corpus[0].tracks
    chosen = Corpus.open(folder, where=(pc.field("seconds") > 600) & (pc.field("artist") == "artist 000123"))
    expected = np.flatnonzero((table["seconds"].to_numpy() > 600) & (table["artist"].to_numpy() == "artist 000123"))
    assert 10 < len(expected) < 50 and np.array_equal(chosen.rows(), expected)
    both = np.concatenate([chosen.rows("train"), chosen.rows("valid")])
    assert np.array_equal(np.sort(both), expected)
    assert len(chosen) == TRACKS and chosen.seconds == pytest.approx(table["seconds"].to_numpy()[expected].sum())
    with pytest.raises(MertError, match=r"tempo(?s:.*)Its columns are track_id"):
        Corpus.open(folder, where=pc.field("tempo") > 100)


def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(10)]
    length = pa.array([320] * 10)
    table = pa.table(
        {
            "track_id": names,
            "content_hash": names,
            "seconds": [320 / 24000] * 10,
            "samples": length,
            "clipped_samples": length,
            "source_rate": [24000] * 10,
            "source": names,
            "source_sha256": pa.nulls(10, pa.string()),
            "piece": names,
            "artist": names,
            "split": ["train"] * 10,
            "licence": names,
            "shard": [0] * 10,
            "offset_samples": [320 * number for number in range(10)],
        },
        schema=SCHEMA,
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=3)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 6), table.slice(7)])
    written = []
    for number, rows in enumerate((table, pieces, tmp_path / "rows.parquet")):
        (tmp_path / str(number)).mkdir()
        write_manifest(tmp_path / str(number), rows)
        written.append((tmp_path / str(number) / MANIFEST_NAME).read_bytes())
        assert [len(group) for group in in_groups(rows, 4)] == [4, 4, 2]
    assert written[0] == written[1] == written[2]
