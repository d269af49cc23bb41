"""Opening an encoder: of a run, a baseline, a folder of weights, or a Python callable."""

from __future__ import annotations

from pathlib import Path

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.config import MEL_STATISTICS, RANDOM_WEIGHTS, Config
from mert_core.errors import MertError
from mert_core.model.config import preset
from mert_core.model.mert import MertModel
from mert_core.parallel import choose_device
from mert_core.paths import Layout
from mert_core.probing.encoders.base import Encoder, MelStatistics, ModelEncoder
from mert_core.probing.encoders.folder import read_model_folder
from mert_core.probing.encoders.function import load_function
from mert_core.probing.encoders.wav2vec import FAMILY, load_wav2vec


def open_encoder(spec: str, device: str = "cpu", normalize: bool | None = None) -> Encoder:
    """Open any encoder to probe it.

    Args:
        spec: a folder with ``config.json`` and weights: MERT (ours, exported or published), or HuBERT, wav2vec 2.0 or
            data2vec as ``transformers`` writes them; or ``module:function``, see `load_function`.
        device: where it shall compute.
        normalize: whether each window is brought to mean 0 and variance 1 before. By default MERT's is not, as in its
            pre-training, and others' as their ``preprocessor_config.json`` says (yes, if there is none).

    Raises:
        MertError: no such folder, callable or kind of model, or it does not load or answer as it should.
    """
    folder = Path(spec).expanduser()
    if ":" in spec and not folder.exists():
        if normalize is not None:
            raise MertError(f"{spec} is a callable, which gets the waveform as it is; let it normalize by itself")
        return load_function(spec, device)
    described = read_model_folder(folder)
    if described.model_type == "mert_model" or (described.model_type == "hubert" and described.rate == SAMPLE_RATE):
        if described.rate != SAMPLE_RATE:
            raise MertError(f"{folder} is a MERT for {described.rate} Hz; expected {SAMPLE_RATE}")
        return ModelEncoder(MertModel.from_pretrained(folder).to(device), normalize=bool(normalize))
    if described.model_type not in FAMILY:
        raise MertError(
            f"{folder / 'config.json'} describes a {described.model_type!r}; expected mert_model, "
            f"{', '.join(FAMILY)}, or give the encoder as a Python callable, module:function"
        )
    return load_wav2vec(described, device, normalize)


def load_encoder(config: Config, layout: Layout, run: str) -> Encoder:
    """Return the encoder of a run, or a baseline: ``random-weights`` is the untrained network of ``probe.floor_run``.

    Raises:
        MertError: no such run, or its checkpoint is missing.
    """
    if run == MEL_STATISTICS:
        return MelStatistics(config.probe.mel_bins, choose_device(config.device))
    settings = config.run(config.probe.floor_run if run == RANDOM_WEIGHTS else run)
    if run == RANDOM_WEIGHTS:
        shape = preset(settings.model.preset, **settings.model.overrides)
        model = MertModel(shape, seed=config.seed)
    else:
        model = MertModel.from_pretrained(layout.model(run))
    return ModelEncoder(model.to(choose_device(settings.device)))
