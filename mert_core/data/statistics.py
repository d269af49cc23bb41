"""Figures of a corpus: for the record, the tracker and the data card."""

from __future__ import annotations

from typing import Any

import numpy as np

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.data.manifest import SPLITS
from mert_core.data.tables import Rows, hashes, numbers, select


def manifest_facts(rows: Rows) -> dict[str, Any]:
    """Return tracks, seconds, pieces and artists, in all and per split, and the sources' rates and licences."""
    sizes = select(rows, "split", "samples").group_by("split").aggregate([("samples", "sum"), ([], "count_all")])
    of_splits = {row["split"]: {"tracks": row["count_all"], "samples": row["samples_sum"]} for row in sizes.to_pylist()}
    every = {name: sum(part[name] for part in of_splits.values()) for name in ("tracks", "samples")}
    numbers_of_splits = numbers(rows, "split", SPLITS)
    for column in ("piece", "artist"):
        names = hashes(rows, column)
        every[f"{column}s"] = len(np.unique(names))
        for split, part in of_splits.items():
            part[f"{column}s"] = len(np.unique(names[numbers_of_splits == SPLITS.index(split)]))
    rates = select(rows, "source_rate")["source_rate"].value_counts().to_pylist()
    return {
        **_in_seconds(every),
        "splits": {split: _in_seconds(of_splits[split]) for split in SPLITS if split in of_splits},
        "source_rates": {
            str(rate["values"]): rate["counts"] for rate in sorted(rates, key=lambda rate: rate["values"])
        },
        "licences": sorted(select(rows, "licence")["licence"].unique().to_pylist()),
    }


def _in_seconds(sizes: dict[str, int]) -> dict[str, Any]:
    counts = {name: count for name, count in sizes.items() if name != "samples"}
    return {**counts, "seconds": round(sizes["samples"] / SAMPLE_RATE, 3)}


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
    table = ["| reason | files |", "|---|---|", *left_out, "", "Paths: `quarantine.parquet`."]
    unit = {"artist": "artists (top-level folders, else file names)", "piece": "files, because there is one artist"}
    return "\n".join(
        [
            "# Data card",
            "",
            "Music read from a folder of audio files: channels averaged, resampled to 24 kHz (soxr HQ), 16 bits,",
            "level as found.",
            "",
            size_table(facts),
            "",
            f"- Licence, as given in `corpus.licence`: {licences}. It covers every track; the files were not asked.",
            f"- Sample rates of the files: {rates}.",
            f"- Splits go by {unit[facts['split_by']]}; there is no test split, the probes bring their own music.",
            f"- Samples clipped at full scale: {facts['clipped_samples']:,}.",
            f"- Files of other kinds, left alone: {sum(facts['ignored_files'].values()):,}.",
            "",
            "## Left out",
            "",
            *(table if left_out else ["Nothing."]),
            "",
        ]
    )
