"""How much arithmetic one clip costs, and how much a card can do: the two sides of model FLOPs utilisation (MFU)."""

from __future__ import annotations

from collections.abc import Sequence

from mert_core.audio.cqt import CQT_BINS
from mert_core.model.config import MertConfig

# Dense bf16 peak in FLOP/s, from NVIDIA's data sheets (their figures with sparsity are twice these). The first entry
# whose name is part of `torch.cuda.get_device_name()` counts, so longer names stand before shorter ones.
PEAK_BF16: dict[str, float] = {
    "GB200": 2.5e15,
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H20": 148e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364.2e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def peak_flops(device_name: str) -> float | None:
    """Return a card's dense bf16 peak in FLOP/s, or None for one that is not in the table."""
    return next((peak for name, peak in PEAK_BF16.items() if name in device_name), None)


def convolution_flops(config: MertConfig, samples: int) -> list[int]:
    """Return the forward FLOPs of each layer of the convolution stack for one clip of ``samples``."""
    flops, inputs = [], 1
    for channels, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
        flops.append(2 * samples * channels * inputs * kernel)
        inputs = channels
    return flops


def encoder_flops(config: MertConfig, frames: int) -> int:
    """Return the forward FLOPs of projection, position convolution and encoder layers for one clip of ``frames``."""
    width, inner = config.hidden_size, config.intermediate_size
    projection = 2 * frames * config.feature_size * width
    # The even kernel's last output, which is computed and dropped, is not counted.
    position = 2 * frames * config.num_conv_pos_embeddings * width * width // config.num_conv_pos_embedding_groups
    linears = 2 * frames * width * (4 * width + 2 * inner)
    attention = 2 * 2 * frames * frames * width  # scores and mixed values, over all heads
    return projection + position + config.num_hidden_layers * (linears + attention)


def heads_flops(config: MertConfig, masked_frames: float, codes: Sequence[tuple[int, int]], bins: int) -> float:
    """Return the forward FLOPs of the heads, which see masked frames only: projections, similarities, spectra."""
    projected = sum(codebooks for codebooks, _ in codes) * config.final_dim + bins
    compared = sum(codebooks * entries for codebooks, entries in codes) * config.final_dim
    return 2 * masked_frames * (config.hidden_size * projected + compared)


def training_flops(
    config: MertConfig,
    samples: int,
    masked_frames: float,
    codes: Sequence[tuple[int, int]] = ((8, 1024),),
    bins: int = CQT_BINS,
) -> float:
    """Return the FLOPs of forward and backward for one clip of ``samples``.

    Multiplications and additions of matrix products and convolutions count, and nothing else: no activations, norms,
    CQT target or recomputation. The backward pass is twice the forward, but for the first convolution, whose input
    needs no gradient. With 58.3 % of the frames masked, 5 s cost 329 GFLOP for mert-95m and 852 GFLOP for mert-330m.

    Args:
        config: the student's shape.
        samples: of one clip.
        masked_frames: of one clip, on average.
        codes: codebooks and entries of each teacher of codes.
        bins: of all teachers of spectra together.
    """
    stack = convolution_flops(config, samples)
    encoder = encoder_flops(config, config.frames(samples))
    return 3 * (sum(stack) + encoder + heads_flops(config, masked_frames, codes, bins)) - stack[0]
