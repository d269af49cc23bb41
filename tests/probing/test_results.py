from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mert_core.errors import MertError
from mert_core.files import sha256_file
from mert_core.probing.results import Predictions, predictions_path


def test_predictions_are_kept_byte_for_byte(tmp_path: Path) -> None:
    generator, ids = np.random.default_rng(0), ("a", "b", "c", "d")
    truth, outputs = generator.random((4, 3)) < 0.5, generator.normal(size=(2, 4, 3)).astype(np.float32)
    points = {"f_measure": generator.random((2, 4))}
    path = predictions_path(tmp_path, "demo/mtt")
    assert path == tmp_path / "answers" / "demo_mtt.npz"
    predictions = Predictions(ids, ("roc_auc", "ap"), ("x", "y", "z"), truth, outputs, points)
    predictions.save(path)
    before = sha256_file(path)
    predictions.save(path)
    assert sha256_file(path) == before
    stored = Predictions.load(path)
    assert (stored.ids, stored.metrics, stored.classes) == (ids, ("roc_auc", "ap"), ("x", "y", "z"))
    assert np.array_equal(stored.truth, truth) and np.array_equal(stored.outputs, outputs)
    assert np.array_equal(stored.points["f_measure"], points["f_measure"])
    assert [figure.name for figure in stored.figures()] == ["roc_auc", "ap"]
    Predictions(ids, points=points).save(path)
    assert Predictions.load(path).metrics == ()


def test_predictions_that_are_damaged_or_of_other_tracks_are_refused(tmp_path: Path) -> None:
    path, points = tmp_path / "task.npz", {"f_measure": np.ones((2, 4))}
    Predictions(("a", "b", "c", "d"), points=points).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MertError, match="cannot be read"):
        Predictions.load(path)
    with pytest.raises(MertError, match="expected one of each track"):
        Predictions(("a", "b", "c"), points=points)
