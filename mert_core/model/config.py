"""The student's shape: one frozen dataclass with HuBERT's field names, and the table of published sizes."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from mert_core.errors import MertError
from mert_core.files import write_json

if TYPE_CHECKING:
    from mert_core.config import Config


@dataclass(frozen=True)
class MertConfig:
    """Shape of a MERT encoder; the first block has the names and meanings of ``transformers.HubertConfig``.

    Attributes:
        do_stable_layer_norm: pre-LN blocks and a final norm (330M) in place of post-LN (95M).
        deepnorm: DeepNet's residuals (arXiv 2203.00555), post-LN only: each residual is scaled by (2N)^¼, and the
            value, output and feed-forward projections start (8N)^¼ times smaller, for N layers. It bounds how far one
            update can move a deep post-LN network; MERT's authors report that their 330M collapsed with it at step
            20,000 all the same.
        attention_relax: above 0, attention scores are computed a factor smaller, their row maximum is subtracted, and
            the factor is multiplied back before the softmax (32 in MERT's code, from WavLM). The softmax does not
            change when a row is shifted, so the result is the same: this only keeps fp16 scores below 65504. It buys
            nothing in bf16 or fp32, and it gives up the fused attention kernel. 0 turns it off.
        feature_grad_mult: gradient scale of the convolution stack (0.1 for 95M, as published).
        final_dim: width of one codebook's prediction space in the pre-training heads.
        feature_extractor_cqt: concatenate the CQT of the (corrupted) input to the convolution features, an option
            of the published code that no release uses. It enters on its linear scale, as there.
        feature_extractor_cqt_bins: bins of that CQT.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    do_stable_layer_norm: bool
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    feat_proj_dropout: float = 0.0
    layerdrop: float = 0.0
    layer_norm_eps: float = 1e-5

    deepnorm: bool = False
    attention_relax: float = 0.0
    feature_grad_mult: float = 1.0
    final_dim: int = 64
    feature_extractor_cqt: bool = False
    feature_extractor_cqt_bins: int = 336
    sample_rate: int = 24000

    def __post_init__(self) -> None:
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride) >= 1:
            raise MertError(
                f"conv_dim, conv_kernel and conv_stride have {len(self.conv_dim)}, {len(self.conv_kernel)} and "
                f"{len(self.conv_stride)} entries; expected one each per convolution layer"
            )
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, name):
                raise MertError(f"hidden_size {self.hidden_size} is not a multiple of {name} {getattr(self, name)}")
        if self.deepnorm and self.do_stable_layer_norm:
            raise MertError("deepnorm is for post-LN layers (do_stable_layer_norm: false), but this encoder is pre-LN")
        if self.attention_relax < 0:
            raise MertError(f"attention_relax is {self.attention_relax:g}; expected 0 (off) or a factor above 0")

    @property
    def feature_size(self) -> int:
        """Channels that enter the feature projection."""
        return self.conv_dim[-1] + (self.feature_extractor_cqt_bins if self.feature_extractor_cqt else 0)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next: 320 for the published shapes."""
        return math.prod(self.conv_stride)

    @property
    def receptive_samples(self) -> int:
        """Samples that one frame of the convolutions sees: 400 for the published shapes."""
        samples = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def frames(self, samples: int) -> int:
        """Return the number of output frames for a number of input samples (24000 → 74, 120000 → 374)."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples


# mert-95m and mert-330m are the published sizes: 94,371,712 and 315,428,992 parameters.
PRESETS: dict[str, MertConfig] = {
    "mert-tiny": MertConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        do_stable_layer_norm=True,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=32,
        feature_extractor_cqt=True,
    ),
    "mert-95m": MertConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        do_stable_layer_norm=False,
        hidden_dropout=0.1,
        attention_dropout=0.1,
        feat_proj_dropout=0.1,
        layerdrop=0.05,
        feature_grad_mult=0.1,
    ),
    "mert-330m": MertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        do_stable_layer_norm=True,
        final_dim=128,
    ),
}

MODEL_TYPES = {"mert_model", "hubert"}

# Facts of the architecture that HuBERT's configuration states and ours does not vary. `mask_time_prob` above zero
# makes transformers create the mask vector; `apply_spec_augment` off keeps it from masking in train mode.
HUBERT_FIXED: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "initializer_range": 0.02,
    "apply_spec_augment": False,
    "mask_time_prob": 0.05,
}


def preset(name: str, **changes: Any) -> MertConfig:
    """Return the configuration of a named size.

    Args:
        name: mert-tiny, mert-95m or mert-330m.
        changes: fields of `MertConfig` that differ, for example ``hidden_size=192``.

    Raises:
        MertError: no such preset or field, or an impossible value.
    """
    if name not in PRESETS:
        raise MertError(f"no preset is named {name!r}; there are {', '.join(PRESETS)}")
    kinds = get_type_hints(MertConfig)
    if unknown := [field for field in changes if field not in kinds]:
        raise MertError(f"MertConfig has no {', '.join(unknown)}; it has {', '.join(kinds)}")
    return replace(PRESETS[name], **_checked(changes, f"preset {name} with changes"))


def check_models(config: Config) -> None:
    """Check the model of every run of ``params.yaml``.

    Raises:
        MertError: an unknown preset or field, or an impossible shape; the message names the run.
    """
    for name in config.runs:
        model = config.run(name).model
        try:
            preset(model.preset, **model.overrides)
        except MertError as error:
            raise MertError(f"runs.{name}.model: {error}") from error


def hubert_fields(config: MertConfig) -> dict[str, Any]:
    """Return ``config.json``'s content for ``transformers.HubertModel``.

    Raises:
        MertError: the encoder uses the CQT input or DeepNorm, which HubertModel has not.
    """
    if config.deepnorm:
        raise MertError(
            "this encoder scales its residuals (deepnorm: true), which transformers.HubertModel cannot represent. "
            "Load it with mert_core.MertModel.from_pretrained, or export a run without DeepNorm."
        )
    if config.feature_extractor_cqt:
        raise MertError(
            "this encoder concatenates the CQT to its convolution features (feature_extractor_cqt: true), which "
            "transformers.HubertModel cannot represent. Load it with mert_core.MertModel.from_pretrained, or export "
            "a run without the CQT input (mert-95m, mert-330m)."
        )
    # Attention relaxation changes no result, so HubertModel need not know of it.
    own = {field.name for field in fields(MertConfig)}
    own -= {"feature_grad_mult", "final_dim", "sample_rate", "deepnorm", "attention_relax"}
    shape = {name: value for name, value in asdict(config).items() if name in own and "cqt" not in name}
    return {"model_type": "hubert", "architectures": ["HubertModel"], **HUBERT_FIXED, **shape}


def save_config(config: MertConfig, path: Path) -> None:
    """Write ``config.json`` with model type ``mert_model`` and HuBERT's fields, like the published checkpoints."""
    write_json(path, {"model_type": "mert_model", **HUBERT_FIXED, **asdict(config)})


def load_config(path: Path) -> MertConfig:
    """Read a ``config.json`` of ours, of a published MERT or of a HuBERT of the same architecture.

    Raises:
        MertError: unreadable, a field is missing, or the architecture is another one.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MertError(
            f"cannot read {path}: {error.strerror}. Expected a folder with config.json and weights."
        ) from error
    except ValueError as error:  # neither JSON nor UTF-8
        raise MertError(f"{path} is not JSON: {error}. Make or fetch it again.") from error
    if not isinstance(stored, dict):
        raise MertError(f"{path} holds a {type(stored).__name__}; expected names and values, as in HuBERT's")
    if stored.get("model_type") not in MODEL_TYPES:
        raise MertError(f"{path} describes a {stored.get('model_type')!r}; expected {' or '.join(sorted(MODEL_TYPES))}")
    free = {"apply_spec_augment", "mask_time_prob", "initializer_range"}
    wrong = [
        f"{name}={stored[name]!r} (expected {value!r})"
        for name, value in HUBERT_FIXED.items()
        if name in stored and stored[name] != value and name not in free
    ]
    if wrong:
        raise MertError(f"{path} is of another architecture: {', '.join(wrong)}")
    stored.setdefault("do_stable_layer_norm", False)
    shape = fields(MertConfig)
    if missing := [field.name for field in shape if field.default is MISSING and field.name not in stored]:
        raise MertError(f"{path} lacks {', '.join(missing)}")
    known = _checked({field.name: stored[field.name] for field in shape if field.name in stored}, str(path))
    if "attention_relax" in known:
        known["attention_relax"] = max(0.0, known["attention_relax"])  # published configurations say −1 for off
    return MertConfig(**known)


_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number above 0",
    float: "a number",
    tuple[int, ...]: "a list of whole numbers above 0",
}


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return plain values as those of `MertConfig`'s fields, lists as tuples."""
    wrong = [
        f"{name}={values[name]!r} (expected {_EXPECTED[kind]})"
        for name, kind in get_type_hints(MertConfig).items()
        if name in values and not _fits(values[name], kind)
    ]
    if wrong:
        raise MertError(f"{where} has impossible values: {', '.join(wrong)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a plain value can be a field of that type."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and value > 0
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, list | tuple) and all(_fits(item, int) for item in value)
