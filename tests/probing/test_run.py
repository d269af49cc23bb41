from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.model.mert import MertModel
from mert_core.paths import Layout
from mert_core.probing.run import validation_score
from tests.probing.material import write_probe_set


def test_validation_score_reads_no_test_item_and_leaves_the_model_alone(
    small: Config, probed: Layout, tmp_path: Path
) -> None:
    model = MertModel.from_preset("mert-tiny", seed=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score = validation_score(model, small, probed, "demo/nsynth_pitch")
    assert 0.9 < score <= 1
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert validation_score(model, small, probed, "demo/nsynth_pitch") == score
    with pytest.raises(MertError, match="no task for a sweep"):
        validation_score(model, small, probed, "demo/gtzan_rhythm")

    # The same probe set, the test items' pitches scrambled.
    other = Layout.at(tmp_path)
    write_probe_set(other.probe_set)
    path = other.probe_set / "labels.parquet"
    table = pd.read_parquet(path)
    table.loc[table["track_id"].str.startswith("note-test"), "pitch"] = 60
    pq.write_table(pa.Table.from_pandas(table, pq.read_schema(path), preserve_index=False), path)
    assert validation_score(model, small, other, "demo/nsynth_pitch") == score
