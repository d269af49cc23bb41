"""What a finished run leaves: encoder, heads, curve and one example, byte-stable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mert_core.errors import MertError
from mert_core.files import atomic_path
from mert_core.model.checkpoint import save_pretrained
from mert_core.model.heads import save_heads

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mert_core.model.config import MertConfig
    from mert_core.pretrain.state import Progress


def write_artefacts(
    folder: Path,
    shape: MertConfig,
    parameters: dict[str, Tensor],
    progress: Progress,
    example: dict[str, NDArray[np.generic]],
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``heads.safetensors``, ``curve.parquet`` and ``example.npz``.

    Args:
        folder: where to.
        shape: of the encoder.
        parameters: of the objective, by name.
        progress: of the run.
        example: see ``validate.spectra_example``.

    Raises:
        MertError: the disk is full or fails.
    """
    from safetensors import SafetensorError

    try:
        _write(folder, shape, parameters, progress, example)
    except (OSError, SafetensorError) as error:
        raise MertError(
            f"the trained model cannot be written to {folder} ({error}). Free some disk space and run the stage again"
        ) from error


def _write(
    folder: Path,
    shape: MertConfig,
    parameters: dict[str, Tensor],
    progress: Progress,
    example: dict[str, NDArray[np.generic]],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    save_pretrained(shape, _part(parameters, "encoder."), folder)
    save_heads(_part(parameters, "heads."), folder)
    columns = zip(*progress.curve, strict=True)
    types = (pa.int64(), pa.string(), pa.string(), pa.float64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with atomic_path(folder / "curve.parquet") as temporary:
        pq.write_table(pa.table(arrays, names=["step", "split", "term", "value"]), temporary, compression="zstd")
    with atomic_path(folder / "example.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **example)  # type: ignore[arg-type]


def _part(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
