"""On what was measured: processor, memory, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from mert_core.training.worker import multiplies_bf16

_PACKAGES = ("torch", "torchaudio", "transformers", "encodec", "nnAudio", "librosa", "webdataset", "soundfile", "numpy")


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
