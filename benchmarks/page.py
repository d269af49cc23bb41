"""`docs/benchmarks.md`, from the rows of one run and what they were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from benchmarks.row import Row
from mert_core.training.worker import multiplies_bf16

_PACKAGES = ("torch", "torchaudio", "transformers", "encodec", "nnAudio", "librosa", "webdataset", "soundfile", "numpy")

_INTRODUCTION = """# Benchmarks

`make bench` writes this page. Both sides of a row run in turn, round by round, in one process (memory: each in a
process of its own), and the ratio is the median of the rounds' ratios; one round before is not counted. Absolute times
are of this machine alone. The comparators stand in `benchmarks/comparators`, written as their users run them and at
equal numerics, which is checked before timing: with the same weights the losses of the two steps agree to 1e-5
(gradients in `tests/benchmarks`), the constant-Q transforms to 2e-3 (relative L2), the probes' logits to 1e-4, and
EnCodec's codes are the same but for ties. The student is `mert-95m` with its dropouts and without layer drop, whose
randomness would be in the timings; a micro-batch is one clip of 5 s where nothing else is said. What a processor
without bf16 instructions does: [benchmarks-without-bf16.md](benchmarks-without-bf16.md).
"""

_COMPARATORS = {
    "HubertModel": "transformers' model of the same shape and dropouts, masked through `mask_time_indices`, default "
    "attention (SDPA); a tenth of the gradient into its convolutions, and the feature penalty, by a hook",
    "materialized NCE": "fairseq's form of HuBERT's heads: per codebook the true entry and all entries laid out beside "
    "every masked frame, cosine similarities, the true one among the others taken out",
    "nnAudio": "`CQT1992v2` with MERT's settings; in the step, of the clean crop in every update",
    "librosa": "magnitudes of `librosa.cqt` with the same bins, hop and scale, as one calls it; in float32",
    "EnCodec's package": "`EncodecModel.encodec_model_24khz` at 6 kbps, one `encode` per song with all threads; ours "
    "takes several songs in a batch, a batch per core. The weights are random, conditioned on music, the same on both "
    "sides; before timing all codes are checked to be the same, but for frames that two entries are equally near, to "
    "1e-5 (about one in 10,000)",
    "WebDataset FLAC": "one tar of FLAC songs, each decoded whole (soundfile), one random crop of it",
    "WebDataset raw": "the same of raw int16 samples; the crop alone is converted",
    "probes one by one": "a `DataLoader` with shuffle over a `TensorDataset` of what the probe reads, `nn.Sequential`, "
    "`torch.optim.Adam`, accuracy on validation after each epoch, the best weights kept; all threads. Every nineteenth "
    "of the 252 probes is trained. Before timing, the logits of both are checked to agree to 1e-4 with the same draws",
    "embedding in every epoch": "MARBLE's way: the frozen model runs on every clip in each epoch of each probe. Some "
    "epochs are measured; each does the same work, so the time of all follows",
    "FLAC seek": "a random place of a random FLAC file through soundfile's `seek`",
}

_PROBES = (
    "A step of one probe with a hidden layer of 512 is 0.1 GFLOP in two products, which both sides must do. A core "
    "with AVX512 does some 100 GFLOP in a second at best, so that on two cores no bank takes less than 0.5 ms per step "
    "of a probe: the 20 times that are aimed at are out of a processor's reach there."
)
_MEMORY = (
    "With one clip alone, what both sides have alike (weights, gradients, moments and libraries, some 2 GiB) is most "
    "of the memory; the published micro-batch is 16 clips."
)


def page(rows: list[Row], machine: dict[str, str], notes: list[str]) -> str:
    """Return the page as Markdown."""
    lines = [
        _INTRODUCTION,
        "| figure | target | measured | rounds from … to | ours | theirs | rounds | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        low, high = row.spread
        verdict = "met" if row.met else "**missed**"
        lines.append(
            f"| {row.figure} | {sign} {row.target:g}× | {row.ratio:.3g}× | {low:.3g} … {high:.3g} | {row.ours} | "
            f"{row.theirs} | {row.rounds} | {verdict} |"
        )
    for note in (_PROBES, _MEMORY, *notes):
        lines += ["", note]
    lines += ["", "## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in machine.items()]
    lines += ["", "## What stands on the other side", "", "| comparator | what it is |", "|---|---|"]
    lines += [f"| {name} | {what} |" for name, what in _COMPARATORS.items()]
    return "\n".join([*lines, ""])


def describe() -> dict[str, str]:
    """Return the machine's and the packages' names and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    bf16 = "with" if multiplies_bf16(torch.device("cpu")) else "without"
    facts = {
        "Processor": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "Instructions": f"{torch.backends.cpu.get_cpu_capability()}, {bf16} bf16",
        "Memory": f"{memory:.0f} GiB",
        "System": f"{platform.system()}, Python {platform.python_version()}",
    }
    return facts | {"Packages": ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
