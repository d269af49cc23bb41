"""What a finished run leaves: encoder, heads, curve and one example, byte-stable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mert_core.errors import MertError
from mert_core.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mert_core.pretrain.objective import Objective
    from mert_core.pretrain.state import Progress


def write_artefacts(
    folder: Path, objective: Objective, progress: Progress, example: dict[str, NDArray[np.generic]]
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``heads.safetensors``, ``curve.parquet`` and ``example.npz``.

    Raises:
        MertError: the disk is full or fails.
    """
    from safetensors import SafetensorError

    try:
        _write(folder, objective, progress, example)
    except (OSError, SafetensorError) as error:
        raise MertError(
            f"the trained model cannot be written to {folder} ({error}). Free some disk space and run the stage again"
        ) from error


def _write(folder: Path, objective: Objective, progress: Progress, example: dict[str, NDArray[np.generic]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    objective.encoder.save_pretrained(folder)
    objective.heads.save(folder)
    columns = zip(*progress.curve, strict=True)
    types = (pa.int64(), pa.string(), pa.string(), pa.float64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    with atomic_path(folder / "curve.parquet") as temporary:
        pq.write_table(pa.table(arrays, names=["step", "split", "term", "value"]), temporary, compression="zstd")
    with atomic_path(folder / "example.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **example)  # type: ignore[arg-type]
