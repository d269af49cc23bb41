"""`python -m benchmarks.scale`: a corpus's manifest and its crops at up to a million tracks, made up on the spot.

Each figure is taken in a process of its own. Seconds are the processor's, which other work on the machine does not
lengthen much; memory is how far the peak (VmHWM) rises once the libraries are loaded. The shards are files with
nothing written in them: they have the right size and take no room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TRACKS = (1_000, 100_000, 1_000_000)
TRACK_SECONDS = 576.0  # a million of them are 160,000 hours
CROP_SECONDS, CLIPS = 5.0, 64
_SHARD_SAMPLES = 500_000_000  # 1 GB
_ROWS = 100_000  # made at a time


def make(folder: Path, tracks: int) -> None:
    """Write a corpus of ``tracks`` tracks of 10 s to 19 minutes, with artists of fifty tracks, and sparse shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE
    from mert_core.data.manifest import ROWS_NAME, SCHEMA, SHARDS_NAME
    from mert_core.data.record import write_record
    from mert_core.data.shards import DTYPE, shard_name

    (folder / SHARDS_NAME).mkdir(parents=True)
    generator = np.random.default_rng(tracks)
    seconds = generator.uniform(10, 2 * TRACK_SECONDS - 10, tracks)
    samples = (seconds * SAMPLE_RATE).astype(np.int64) // HOP_SAMPLES * HOP_SAMPLES
    shards, offsets, sizes = _places(samples)
    for shard, size in enumerate(sizes):
        with (folder / SHARDS_NAME / shard_name(shard)).open("wb") as stream:
            stream.truncate(size * DTYPE.itemsize)
    with pq.ParquetWriter(folder / ROWS_NAME, SCHEMA, compression="zstd") as writer:
        for first in range(0, tracks, _ROWS):
            numbers = range(first, min(first + _ROWS, tracks))
            here = slice(first, first + len(numbers))
            columns = {
                "track_id": _names(generator, len(numbers), 16),
                "content_hash": _names(generator, len(numbers), 64),
                "seconds": samples[here] / SAMPLE_RATE,
                "samples": samples[here],
                "clipped_samples": np.zeros(len(numbers), np.int64),
                "source_rate": generator.choice([44100, 48000], len(numbers)).astype(np.int32),
                "source": [f"artist {n // 50:06d}/album {n // 10:06d}/track {n:07d}.flac" for n in numbers],
                "source_sha256": _names(generator, len(numbers), 64),
                "piece": [f"artist {n // 50:06d}/album {n // 10:06d}/track {n:07d}" for n in numbers],
                "artist": [f"artist {n // 50:06d}" for n in numbers],
                "split": pa.nulls(len(numbers), pa.string()),
                "licence": ["CC-BY-4.0"] * len(numbers),
                "shard": shards[here],
                "offset_samples": offsets[here],
            }
            writer.write_table(pa.table(columns, schema=SCHEMA))
    (folder / "DATACARD.md").write_text("made up\n", encoding="utf-8")
    known = {path.relative_to(folder).as_posix(): "0" * 64 for path in (folder / SHARDS_NAME).iterdir()}
    write_record(folder, stage="corpus", kind="corpus", inputs={}, params={}, facts={}, known=known)


def _places(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return each track's shard and offset, and the shards' lengths, filled one after the other."""
    ends = np.cumsum(samples)
    shards, offsets = np.empty(len(samples), np.int32), ends - samples
    sizes: list[int] = []
    first = 0
    while first < len(samples):
        begin = int(ends[first] - samples[first])
        after = max(int(np.searchsorted(ends, begin + _SHARD_SAMPLES, side="right")), first + 1)
        shards[first:after] = len(sizes)
        offsets[first:after] -= begin
        sizes.append(int(ends[after - 1]) - begin)
        first = after
    return shards, offsets, sizes


def _names(generator: np.random.Generator, count: int, digits: int) -> list[str]:
    """Return hexadecimal names."""
    text = generator.bytes(count * digits // 2).hex()
    return [text[place : place + digits] for place in range(0, len(text), digits)]


def _split(folder: Path) -> dict[str, float]:
    """Do what `mert corpus` does at the end: splits, the manifest, its promises, its facts."""
    from mert_core.corpus.sources import assign_splits
    from mert_core.data.manifest import MANIFEST_NAME, ROWS_NAME, write_manifest
    from mert_core.data.statistics import manifest_facts

    rows = folder / ROWS_NAME
    splits, _ = assign_splits(rows, 1337, 0.01)
    write_manifest(folder, rows, splits)
    manifest_facts(folder / MANIFEST_NAME)
    return {}


def _open(folder: Path) -> dict[str, float]:
    from mert_core.data.corpus import Corpus

    Corpus.open(folder)
    return {}


def _filter(folder: Path) -> dict[str, float]:
    """Open the tracks of one artist in a thousand that are longer than a minute: a filter over text and numbers."""
    import pyarrow.compute as pc

    from mert_core.data.corpus import Corpus

    asked = (pc.field("seconds") > 60) & pc.match_substring(pc.field("artist"), "77")
    return {"found": len(Corpus.open(folder, where=asked).rows())}


def _crops(folder: Path) -> dict[str, float]:
    from mert_core.audio.grid import SAMPLE_RATE
    from mert_core.data.corpus import Corpus
    from mert_core.data.sampler import EpochCrops

    corpus = Corpus.open(folder)
    crops = EpochCrops(
        corpus.rows("train"), corpus.samples, round(CROP_SECONDS * SAMPLE_RATE), order=(1337,), offset=(1,)
    )
    ready, batches = time.process_time(), 500
    for number in range(batches):
        crops.locate(np.arange(number * CLIPS, (number + 1) * CLIPS))
    return {"crops": len(crops), "crops_per_second": batches * CLIPS / (time.process_time() - ready)}


FIGURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "split": _split,
    "open": _open,
    "filter": _filter,
    "crops": _crops,
}


def measure(figure: str, folder: Path) -> dict[str, float]:
    """Return a figure's CPU seconds, and its peak memory over that of the libraries (MiB), in a new process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", figure, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measured(figure: str, folder: Path) -> dict[str, float]:
    import mert_core.corpus.stage  # noqa: F401  # its libraries belong to no figure

    base, start = _peak_mib(), time.process_time()
    found = FIGURES[figure](folder)
    seconds = time.process_time() - start
    return {"seconds": seconds, **found, "mib": _peak_mib() - base}


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def table(found: dict[int, dict[str, dict[str, float]]]) -> str:
    """Return the Markdown table of all figures."""
    head = ["tracks", "5 s crops", "split, write, check", "open", "filter", "open and crop", "crops located"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for tracks, figures in found.items():
        timed = [f"{figures[name]['seconds']:.2f} CPU s, {figures[name]['mib']:.0f} MiB" for name in FIGURES]
        crops = figures["crops"]
        cells = [f"{tracks:,}", f"{crops['crops']:,}", *timed, f"{crops['crops_per_second']:,.0f} per CPU s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "--tracks", nargs="+", type=int, default=list(TRACKS), help="how many (1,000 100,000 1,000,000)"
    )
    parser.add_argument("--measure", nargs=2, metavar=("FIGURE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(arguments.measure[0], Path(arguments.measure[1]))))
        return
    found: dict[int, dict[str, dict[str, float]]] = {}
    for tracks in arguments.tracks:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "corpus"
            make(folder, tracks)
            found[tracks] = {figure: measure(figure, folder) for figure in FIGURES}
            print(f"{tracks:,}: {found[tracks]}", file=sys.stderr, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
