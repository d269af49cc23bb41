from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from mert_core.probing.separation.score import global_sdr, museval_sdr


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    """museval's metrics by their file: the package itself refuses to be imported where there is no ffmpeg."""
    package = importlib.util.find_spec("museval")
    assert package is not None
    assert package.submodule_search_locations is not None
    spec = importlib.util.spec_from_file_location(
        "museval_metrics", f"{package.submodule_search_locations[0]}/metrics.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pair(stems: int, channels: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(stems, channels, samples)) * generator.uniform(0.05, 1, (stems, 1, 1))
    leak = generator.uniform(0, 0.5, (stems, stems, 1, 1))
    return truth, 0.8 * truth + (leak * truth[None]).sum(axis=1) + 0.1 * generator.normal(size=truth.shape)


@pytest.mark.parametrize(("channels", "samples"), [(1, 4100), (2, 3000), (1, 700)])
def test_is_musevals(metrics: ModuleType, channels: int, samples: int) -> None:
    truth, estimate = _pair(3, channels, samples, samples)
    truth[1, :, 1100:2100] = 0  # silent in one whole window
    swapped = [np.swapaxes(stems, 1, 2) for stems in (truth, estimate)]
    reference = metrics.bss_eval(*swapped, window=1000, hop=1000, filters_len=64)[0]
    ours = museval_sdr(truth, estimate, 1000)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, np.nanmedian(reference, axis=1), atol=1e-6)


def test_global_is_the_ratio_of_energies() -> None:
    truth, estimate = _pair(2, 2, 500, 0)
    for stem in range(2):
        expected = 10 * np.log10(np.sum(truth[stem] ** 2) / np.sum((truth[stem] - estimate[stem]) ** 2))
        assert global_sdr(truth, estimate)[stem] == pytest.approx(expected)
    assert global_sdr(truth, 0 * truth) == pytest.approx(0)
    assert np.isinf(global_sdr(truth, truth)).all()
    np.testing.assert_allclose(
        global_sdr(truth.astype(np.float32), estimate.astype(np.float32)), global_sdr(truth, estimate), rtol=1e-5
    )


def test_a_silent_stem_has_no_ratio() -> None:
    truth, estimate = _pair(2, 1, 500, 1)
    truth[0] = 0
    assert np.isnan(global_sdr(truth, estimate)).tolist() == [True, False]
    assert np.isnan(museval_sdr(truth, estimate, 100)).all()
