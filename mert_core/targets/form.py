"""What lies in a target store: names of files, the numbers of a shard, and how its card says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mert_core.files import write_json
from mert_core.teachers.kinds import Codes, Kind, Spectrum

SHARDS_NAME = "shards"
FACTS_NAME = "facts"
INDEX_NAME = "index.parquet"
CHECKSUMS_NAME = "shards.json"
USAGE_NAME = "usage.parquet"
BINS_NAME = "bins.parquet"
GATE_NAME = "gate.json"
EXAMPLE_NAME = "example.npz"

CODE_TYPE = np.dtype("<u2")
BIN_TYPE = np.dtype("<f2")
MOST_ENTRIES = 65536
"""Values that a code of 16 bits can have."""

INDEX_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("shard", pa.int32()), ("offset_frames", pa.int64()), ("frames", pa.int64())]
)


@dataclass(frozen=True)
class ShardEntry:
    """What the card says of one shard.

    Attributes:
        shard: number of the PCM shard that it goes with.
        name: file name.
        sha256: of its bytes.
        frames: how many it has.
        pcm_sha256: of the PCM shard that was labelled.
        teacher: id of the teacher that labelled it.
        facts_sha256: of the facts about its tracks, a file of its own.
    """

    shard: int
    name: str
    sha256: str
    frames: int
    pcm_sha256: str
    teacher: str
    facts_sha256: str


def number_type(kind: Kind) -> np.dtype[Any]:
    """Return a shard's type of number, little-endian: uint16 for codes, float16 for spectra."""
    return CODE_TYPE if isinstance(kind, Codes) else BIN_TYPE


def suffix(kind: Kind) -> str:
    """Return the ending of a shard's file name."""
    return ".codes" if isinstance(kind, Codes) else ".frames"


def shard_name(shard: int, kind: Kind) -> str:
    """Return a shard's file name."""
    return f"{shard:05d}{suffix(kind)}"


def facts_name(name: str) -> str:
    """Return the file name of the facts about a shard's tracks."""
    return f"{name.partition('.')[0]}.npz"


def write_card(folder: Path, teacher: str, teacher_id: str, kind: Kind, shards: Iterable[ShardEntry]) -> None:
    """Write ``shards.json``: whose targets these are, what they look like, and every shard's checksums."""
    form = {"codes": asdict(kind)} if isinstance(kind, Codes) else {"spectrum": asdict(kind)}
    write_json(
        folder / CHECKSUMS_NAME,
        {"teacher": teacher, "teacher_id": teacher_id, "kind": form, "shards": [asdict(shard) for shard in shards]},
    )


def kind_of(card: dict[str, Any]) -> Kind:
    """Return what a card says that the targets are.

    Raises:
        KeyError, TypeError: the card is not one of this version.
    """
    ((name, numbers),) = card["kind"].items()
    return {"codes": Codes, "spectrum": Spectrum}[name](**numbers)


def entries_of(card: dict[str, Any]) -> list[ShardEntry]:
    """Return a card's shards.

    Raises:
        KeyError, TypeError: the card is not one of this version.
    """
    return [ShardEntry(**entry) for entry in card["shards"]]
