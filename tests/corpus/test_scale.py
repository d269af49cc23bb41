"""A hundred thousand tracks: memory stays bounded, and what is read lazily is what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.scale import make, measure
from mert_core.data.corpus import Corpus
from mert_core.data.manifest import GROUP_ROWS, MANIFEST_NAME, ROWS_NAME, write_manifest
from mert_core.data.tables import in_groups
from mert_core.errors import MertError
from tests.data.test_manifest import manifest

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
    assert len(opened) == table.num_rows == TRACKS
    for name in ("samples", "shard", "offset_samples"):
        assert np.array_equal(getattr(opened, name), table[name].to_numpy())
    assert np.array_equal(opened.column("artist"), table["artist"].to_numpy())
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
    assert len(chosen) == TRACKS
    with pytest.raises(MertError, match=r"tempo(?s:.*)Its columns are track_id"):
        Corpus.open(folder, where=pc.field("tempo") > 100)


def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path: Path) -> None:
    table = manifest(tracks=10)
    written = []
    for group_rows in (3, 10):
        rows, folder = tmp_path / f"rows-{group_rows}.parquet", tmp_path / str(group_rows)
        folder.mkdir()
        pq.write_table(table, rows, row_group_size=group_rows)
        assert [len(group) for group in in_groups(rows, 4)] == [4, 4, 2]
        write_manifest(folder, rows)
        written.append((folder / MANIFEST_NAME).read_bytes())
    assert written[0] == written[1]
