"""The student: HuBERT's architecture at 24 kHz, with an optional CQT beside the convolution features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from mert_core.errors import MertError
from mert_core.files import atomic_folder, write_json, write_text
from mert_core.model.checkpoint import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_writable,
    load_weights,
    read_weights,
    save_pretrained,
    save_tensors,
)
from mert_core.model.config import MertConfig, hubert_fields, load_config, preset
from mert_core.model.frontend import FeatureExtractor, FeatureProjection
from mert_core.model.layers import EncoderLayer, TransformerEncoder


@dataclass(frozen=True)
class MertOutput:
    """What the encoder returns.

    Attributes:
        last_hidden_state: (batch, frames, width).
        hidden_states: layers + 1 states of that shape; state 0 is the first layer's input.
        conv_features: (batch, frames, channels), before LayerNorm and without the CQT; the feature penalty needs it.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    conv_features: Tensor


class MertModel(nn.Module):
    """MERT's encoder (arXiv 2306.00107); parameter names are those of the published checkpoints.

    Initial weights follow fairseq: kaiming-normal convolutions, N(0, 0.02) encoder linears, U(0, 1) mask vector.

    Args:
        config: shape of the encoder.
        seed: decides the initial weights; torch's global generator is left as it was.
    """

    def __init__(self, config: MertConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.feature_extractor = FeatureExtractor(config)
            self.feature_projection = FeatureProjection(config)
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))
            self.encoder = TransformerEncoder(config)
            self._reset()
        self.cqt: nn.Module | None = None
        if config.feature_extractor_cqt:
            from mert_core.features.cqt import ConstantQ

            self.cqt = ConstantQ()

    def _reset(self) -> None:
        for module in self.feature_extractor.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.encoder.pos_conv_embed.conv.reset()
        if self.config.deepnorm:
            for module in self.encoder.layers:
                if isinstance(module, EncoderLayer):
                    module.shrink((8 * self.config.num_hidden_layers) ** -0.25)

    @classmethod
    def from_preset(cls, name: str, seed: int = 0) -> Self:
        """Return a freshly initialised encoder of a named size: mert-tiny, mert-95m or mert-330m."""
        return cls(preset(name), seed)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Load an encoder from a folder with ``config.json`` and ``model.safetensors`` (or ``pytorch_model.bin``).

        Raises:
            MertError: files are missing, or tensors are missing, unknown or of another shape; all of them are named.
        """
        folder = Path(folder)
        model = cls(load_config(folder / CONFIG_NAME))
        load_weights(model, read_weights(folder), str(folder))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors`` with HuBERT's key names into a folder."""
        save_pretrained(self.config, dict(self.named_parameters()), Path(folder))

    def export_hubert(self, folder: Path, card: str | None = None) -> None:
        """Write a folder that ``transformers.HubertModel.from_pretrained`` loads without remote code.

        Args:
            folder: new, or holding an older checkpoint, which is replaced.
            card: content of the model card, ``README.md``; None writes none.

        Raises:
            MertError: HubertModel cannot represent this encoder (CQT input, DeepNorm), or the folder holds other
                things; nothing is written.
        """
        check_writable(folder)
        configuration = hubert_fields(self.config)
        preprocessor = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": self.config.sample_rate,
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
            save_tensors(dict(self.named_parameters()), temporary / WEIGHTS_NAME)

    def parameter_count(self) -> int:
        """Return the number of trained values, mask vector included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self, waveform: Tensor, sample_lengths: Tensor | None = None, *, mask: Tensor | None = None
    ) -> MertOutput:
        """Encode music.

        Args:
            waveform: (batch, samples), 24 kHz mono, −1 … 1, used as it is (no z-normalisation).
            sample_lengths: (batch,), true lengths of zero-padded rows; padding then changes nothing. Frames beyond
                a row's own are meaningless.
            mask: (batch, frames), true where the learned mask vector replaces the projected features.

        Raises:
            MertError: the waveform is not two-dimensional or shorter than one frame (400 samples).
        """
        if waveform.ndim != 2 or (frames := self.config.frames(waveform.shape[-1])) < 1:
            raise MertError(
                f"the waveform has shape {tuple(waveform.shape)}; expected (batch, samples) with at least 400 samples"
            )
        frame_lengths = None  # padding is silenced here, and kept out of norms and attention further on
        if sample_lengths is not None:
            sample_lengths = sample_lengths.to(waveform.device)
            inside = torch.arange(waveform.shape[-1], device=waveform.device) < sample_lengths[:, None]
            waveform = waveform * inside
            frame_lengths = torch.tensor([self.config.frames(int(n)) for n in sample_lengths], device=waveform.device)
        conv_features = self.feature_extractor(waveform, sample_lengths)
        features = conv_features
        if self.cqt is not None:
            with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
                spectrum = self.cqt(waveform.float())[:, :frames]
            features = torch.cat([features, spectrum.to(features.dtype)], dim=-1)
        states = self.feature_projection(features)
        if mask is not None:
            states = torch.where(mask[..., None], self.masked_spec_embed.to(states.dtype), states)
        hidden_states = self.encoder(states, frame_lengths)
        return MertOutput(hidden_states[-1], hidden_states, conv_features)
