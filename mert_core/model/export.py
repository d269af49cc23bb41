"""The folder that ``transformers.HubertModel`` loads without remote code."""

from __future__ import annotations

from pathlib import Path

from mert_core.files import atomic_folder, write_json, write_text
from mert_core.model.checkpoint import CARD_NAME, CONFIG_NAME, check_writable, save_tensors
from mert_core.model.config import hubert_fields
from mert_core.model.mert import MertModel


def export_hubert(model: MertModel, folder: Path, card: str | None = None) -> None:
    """Write a folder that ``transformers.HubertModel.from_pretrained`` loads without remote code.

    Args:
        model: the encoder.
        folder: is made, or replaces an older checkpoint.
        card: content of the model card, ``README.md``.

    Raises:
        MertError: HubertModel cannot represent this encoder (CQT input, DeepNorm), or the folder holds other things;
            nothing is written.
    """
    check_writable(folder)
    configuration = hubert_fields(model.config)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": model.config.sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": False,
        "return_attention_mask": True,
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / CONFIG_NAME, configuration)
        write_json(temporary / "preprocessor_config.json", preprocessor)
        if card is not None:
            write_text(temporary / CARD_NAME, card)
        save_tensors(dict(model.named_parameters()), temporary)
