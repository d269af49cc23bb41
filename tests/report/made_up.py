"""A small, plausible set of stage outputs in their true formats, and what a page that was made of them shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from mert_core.audio.degrade import DEFORMATIONS
from mert_core.config import BASELINES, load_config
from mert_core.data.record import Record, write_record
from mert_core.files import write_json
from mert_core.paths import Layout
from mert_core.targets.quality import as_table, check_codebooks, check_lengths

PARAMS = Path(__file__).parents[2] / "params.yaml"
CODEBOOKS, ENTRIES, LAYERS = 8, 256, 5
METRICS: dict[str, dict[str, float]] = {
    "mtt": {"roc_auc": 0.84, "ap": 0.61},
    "gs_key": {"weighted_score": 0.52},
    "gtzan_genre": {"accuracy": 0.41},
    "gtzan_rhythm": {"f_measure": 0.71, "f_measure_20ms": 0.44},
    "emo": {"r2_brightness": 0.66, "r2_density": 0.28},
    "nsynth_instrument": {"accuracy": 0.66},
    "nsynth_pitch": {"accuracy": 0.81},
    "vocalset_technique": {"accuracy": 0.58},
    "vocalset_singer": {"accuracy": 0.37},
    "mtg_instrument": {"roc_auc": 0.80, "ap": 0.35},
    "mtg_mood": {"roc_auc": 0.71, "ap": 0.22},
    "mtg_genre": {"roc_auc": 0.77, "ap": 0.31},
    "mtg_top50": {"roc_auc": 0.79, "ap": 0.33},
    "musdb18": {
        **{f"sdr_{stem}": value for stem, value in (("bass", 3.1), ("chords", 1.2), ("lead", 2.4), ("other", 0.8))},
        **{f"sdr_{stem}_museval": value for stem, value in (("bass", 2.9), ("chords", 0.9), ("lead", 2.2))},
    },
}
"""What `tiny` scores at the proxy tasks."""

SHIFTS: dict[str, dict[str, float]] = {
    "tiny": {},
    "95m": dict.fromkeys(METRICS, 0.05) | {"musdb18": 0.6},
    "random-weights": dict.fromkeys(METRICS, -0.02) | {"gs_key": -0.31, "nsynth_pitch": -0.19, "emo": -0.75},
    "mel-statistics": dict.fromkeys(METRICS, 0.03) | {"gs_key": -0.28, "musdb18": -1.9, "emo": -0.12},
}
PROXY_TASKS = [f"demo/{name}" for name in METRICS]
PROTOCOL = "a1b2c3d4" * 8
NO_DATA = "no folder is given for giantsteps: set datasets.giantsteps"
DEFORMED = ("demo/gs_key", "demo/gtzan_genre", "demo/nsynth_pitch")
LEVELS = {name: tuple(map(deformation.label, deformation.levels)) for name, deformation in DEFORMATIONS.items()}


def write_corpus(layout: Layout, source: str = "scores", left_out: int = 3) -> Record:
    layout.corpus.mkdir(parents=True)
    columns = {
        "path": [f"broken/track {number}.wav" for number in range(left_out)],
        "reason": [("truncated", "silent", "too_short")[number % 3] for number in range(left_out)],
        "detail": ["0.4 s; needs 3 s"] * left_out,
    }
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    parquet.write_table(table, layout.corpus / "quarantine.parquet")
    facts = {
        "tracks": 225,
        "seconds": 4500.0,
        "pieces": 120,
        "artists": 9,
        "splits": {
            "train": {"tracks": 190, "seconds": 3800.0, "pieces": 100, "artists": 9},
            "valid": {"tracks": 35, "seconds": 700.0, "pieces": 20, "artists": 8},
        },
        "source_rates": {"24000": 225} if source == "scores" else {"44100": 200, "48000": 25},
        "licences": ["CC0 & more"],
    }
    return write_record(layout.corpus, stage="corpus", kind="corpus", inputs={}, params={"source": source}, facts=facts)


def write_targets(layout: Layout, corpus: Record) -> Record:
    folder = layout.targets("rvqvae")
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    counts = {split: np.zeros((CODEBOOKS, ENTRIES + 1), dtype=np.int64) for split in ("train", "valid", "test")}
    for codebook in range(CODEBOOKS):
        shares = random.dirichlet(np.full(ENTRIES, 0.25 + 0.1 * codebook))
        for split, frames in (("train", 285000), ("valid", 52500)):
            counts[split][codebook, :-1] = random.multinomial(frames, shares)
    rows = [
        {"split": split, "codebook": codebook, "entry": entry, "count": int(count)}
        for split, table in counts.items()
        for (codebook, entry), count in np.ndenumerate(table[:, :-1])
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "usage.parquet")
    limits = load_config(PARAMS).targets.gate
    tracks = pa.table({"track_id": ["a", "b"], "frames": [1500, 750], "seconds": [20.0, 10.0]})
    checks = check_codebooks(np.stack([counts["train"], counts["valid"]]), limits) + check_lengths(tracks, limits)
    write_json(folder / "gate.json", {"passed": True, "checks": as_table(checks)})
    targets = random.integers(0, ENTRIES, (450, CODEBOOKS)).astype(np.uint16)
    np.savez(folder / "example.npz", targets=targets, log_mel=random.gamma(2.0, 1.0, (450, 128)).astype(np.float16))
    inputs = {"corpus": corpus.id, "teacher": "7e" * 32}
    facts = {"kind": f"{CODEBOOKS} × {ENTRIES} codes"}
    return write_record(folder, stage="targets", kind="targets", run="rvqvae", inputs=inputs, params={}, facts=facts)


def write_training(layout: Layout, run: str, targets: Record, better: float = 0.0) -> Record:
    folder = layout.model(run)
    folder.mkdir(parents=True)
    random = np.random.default_rng(2)
    unigram = [4.6, 4.9, 5.0, 5.1, 5.15, 5.2, 5.2, 5.25]
    gains = [1.5, 1.1, 0.7, 0.5, 0.3, 0.2, 0.12, 0.05]
    rows = []
    for step in range(10, 1001, 10):
        learned = (1 - np.exp(-step / 260)) * (1 + better)
        terms = {
            "rvqvae": sum(unigram) + 3.5 * np.exp(-step / 40) - sum(gains) * learned,
            "cqt": 2.6 * np.exp(-step / 180) + 0.9,
            "feature_penalty": 0.02 + 0.3 * np.exp(-step / 90),
            "accuracy": 0.01 + 0.09 * learned,
        }
        terms["loss"] = terms["rvqvae"] + terms["cqt"] + 10 * terms["feature_penalty"]
        rows += [(step, "train", name, float(value * (1 + 0.01 * random.normal()))) for name, value in terms.items()]
        if step % 100 == 0:
            codebooks = enumerate(zip(unigram, gains, strict=True))
            terms |= {f"rvqvae_{index}": (base - gain * learned) / 1.01 for index, (base, gain) in codebooks}
            rows += [(step, "valid", name, float(value * 1.01)) for name, value in terms.items()]
    table = [dict(zip(("step", "split", "term", "value"), row, strict=True)) for row in rows]
    parquet.write_table(pa.Table.from_pylist(table), folder / "curve.parquet")
    true = random.gamma(0.5, 0.5, (149, 336)).astype(np.float32)
    np.savez(folder / "example.npz", true_cqt=true, predicted_cqt=true + 0.05, mask=np.arange(149) % 9 < 4)
    facts = {
        "steps": 1000,
        "parameters": 2412032,
        "audio_hours_seen": 8.9,
        "epochs": 8.4,
        "teachers": {
            "rvqvae": {"kind": f"{CODEBOOKS} × {ENTRIES} codes", "targets": "stored"},
            "cqt": {"kind": "336 bins", "targets": "crop"},
        },
        "unigram_cross_entropy_per_codebook": {"rvqvae": unigram},
    }
    inputs = {"corpus": targets.inputs["corpus"], "targets/rvqvae": targets.id}
    return write_record(folder, stage="pretrain", kind="checkpoint", run=run, inputs=inputs, params={}, facts=facts)


def value_of(run: str, task: str, metric: str) -> float:
    name = task.removeprefix("demo/")
    return METRICS[name][metric] + SHIFTS[run].get(name, 0.0)


def entry(task: str, metrics: dict[str, float], protocol: str = PROTOCOL, chosen: int | str = 2) -> dict[str, Any]:
    """Return a task's entry of scores.json, its main figure as the probes make it."""
    wide = 0.4 if "musdb18" in task else 0.03
    estimates = {name: {"value": value, "low": value - wide, "high": value + wide} for name, value in metrics.items()}
    first = next(iter(metrics))
    main = next((kind for kind in ("r2", "sdr") if first.startswith(f"{kind}_")), first)
    parts = [value for name, value in metrics.items() if name.startswith(main) and not name.endswith("_museval")]
    value = sum(parts) / len(parts) if main in {"r2", "sdr"} else metrics[first]
    return {
        "metric": main,
        "value": value,
        "low": value - wide,
        "high": value + wide,
        "metrics": estimates,
        "tracks": 700,
        "classes": 24,
        "input": chosen,
        "rate": 0.001,
        "validation": value + 0.01,
        "per_seed": [value] * 3,
        "protocol": protocol,
        "test_set": "7e57" * 16,
        "left_out": {},
    }


def write_scores(
    layout: Layout, run: str, checkpoint: Record | None, tasks: dict[str, dict[str, Any]] | None = None
) -> Record:
    """Write what a probe leaves; ``tasks`` are entries, by default those of all proxy tasks."""
    folder = layout.scores(run)
    folder.mkdir(parents=True, exist_ok=True)
    skipped = {} if tasks is not None and "gs_key" in tasks else {"gs_key": NO_DATA}
    if tasks is None:
        values = {
            task: {m: value_of(run, task, m) for m in METRICS[task.removeprefix("demo/")]} for task in PROXY_TASKS
        }
        tasks = {task: entry(task, metrics) for task, metrics in values.items()}
    layers, robustness = {}, {}
    states = 1 if run == "mel-statistics" else LAYERS
    for number, (task, score) in enumerate(tasks.items()):
        value, best = score["value"], number % (states + (states > 1))
        rows = [[layer, value - 0.03 * abs(layer - best) + 0.01] for layer in range(states)]
        rows += [["weighted", value - 0.02 + 0.03 * (best == states)]] if states > 1 else []
        layers[task], score["input"] = rows, max(rows, key=lambda row: row[1])[0]
        if task in DEFORMED:
            robustness[task] = {
                kind: [
                    {
                        "level": level,
                        "label": label,
                        "value": (v := value * 0.82**level),
                        "low": v - 0.03,
                        "high": v + 0.03,
                    }
                    for level, label in enumerate(("clean", *labels))
                ]
                for kind, labels in LEVELS.items()
                if kind != "pitch" or task not in {"demo/gs_key", "demo/nsynth_pitch"}
            }
    write_json(folder / "scores.json", {"run": run, "tasks": tasks, "skipped": skipped})
    write_json(folder / "layers.json", layers)
    write_json(folder / "robustness.json", robustness)
    inputs = {"probe_set": "5e" * 32} | ({"checkpoint": checkpoint.id} if checkpoint else {})
    return write_record(folder, stage="probe", kind="scores", run=run, inputs=inputs, params={}, facts={"tasks": tasks})


def write_pipeline(root: Path, runs: tuple[str, ...] = ("tiny",), source: str = "scores", left_out: int = 3) -> Layout:
    """Write the outputs of every stage before the report."""
    layout = Layout.at(root)
    targets = write_targets(layout, write_corpus(layout, source, left_out))
    for number, run in enumerate(runs):
        write_scores(layout, run, write_training(layout, run, targets, better=0.2 * number))
    for baseline in BASELINES:
        write_scores(layout, baseline, None)
    return layout


class Page(HTMLParser):
    """Collects a page's text and sources, and checks that every tag is closed in turn."""

    def __init__(self, raw: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(raw)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
