"""Figures of a corpus: for the record, the tracker and the data card."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.manifest import SPLITS, split_numbers
from mert_core.data.tables import hash_column, read_table


def manifest_facts(path: Path) -> dict[str, Any]:
    """Return a manifest's tracks, seconds, pieces and artists, in all and by split, and its rates and licences."""
    table = read_table(path, "split", "samples", "source_rate", "licence")
    of_track, samples = split_numbers(table["split"]), table["samples"].to_numpy()
    names = {column: hash_column(path, column) for column in ("piece", "artist")}

    def sizes(here: NDArray[np.bool_]) -> dict[str, Any]:
        distinct = {f"{column}s": len(np.unique(hashes[here])) for column, hashes in names.items()}
        seconds = round(int(samples[here].sum()) / SAMPLE_RATE, 3)
        return {"tracks": int(here.sum()), **distinct, "seconds": seconds}

    rates = table["source_rate"].value_counts().to_pylist()
    return {
        **sizes(np.ones(len(table), np.bool_)),
        "splits": {split: sizes(of_track == number) for number, split in enumerate(SPLITS) if number in of_track},
        "source_rates": {str(rate["values"]): rate["counts"] for rate in sorted(rates, key=itemgetter("values"))},
        "licences": sorted(table["licence"].unique().to_pylist()),
    }


def flat_metrics(facts: dict[str, Any]) -> dict[str, float]:
    """Return the facts that are figures, as ``corpus``-level metrics with ``/`` in their names."""
    metrics: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            metrics |= {f"{name}/{inner}": figure for inner, figure in flat_metrics(value).items()}
        elif isinstance(value, int | float):
            metrics[name] = float(value)
    return {name.replace(" ", "_"): figure for name, figure in metrics.items()}


def size_table(facts: dict[str, Any]) -> str:
    """Return a Markdown table of the splits."""
    lines = ["| split | tracks | hours | pieces | artists |", "|---|---|---|---|---|"]
    for split, part in [*facts["splits"].items(), ("all", facts)]:
        hours = part["seconds"] / 3600
        lines.append(f"| {split} | {part['tracks']:,} | {hours:.2f} | {part['pieces']:,} | {part['artists']:,} |")
    return "\n".join(lines)


def folder_card(facts: dict[str, Any]) -> str:
    """Return the data card of a corpus that was read from a folder."""
    licences = ", ".join(facts["licences"])
    rates = ", ".join(f"{int(rate):,} Hz: {count:,}" for rate, count in facts["source_rates"].items())
    left_out = [f"| {reason} | {count:,} |" for reason, count in facts["quarantined"].items()]
    table = "\n".join(["| reason | files |", "|---|---|", *left_out, "", "Paths: `quarantine.parquet`."])
    unit = {"artist": "artists (top-level folders, else file names)", "piece": "files, because there is one artist"}
    return f"""# Data card

Music read from a folder of audio files: channels averaged, resampled to 24 kHz (soxr HQ), 16 bits,
level as found.

{size_table(facts)}

- Licence, as given in `corpus.licence`: {licences}. It covers every track; the files were not asked.
- Sample rates of the files: {rates}.
- Splits go by {unit[facts["split_by"]]}; there is no test split, the probes bring their own music.
- Samples clipped at full scale: {facts["clipped_samples"]:,}.
- Files of other kinds, left alone: {sum(facts["ignored_files"].values()):,}.

## Left out

{table if left_out else "Nothing."}
"""
