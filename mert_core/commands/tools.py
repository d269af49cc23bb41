"""The tools around the stages as commands."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mert_core.commands.context import PARAMS_NAME, context
from mert_core.errors import MertError

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout


def plan(options: argparse.Namespace) -> int:
    """Render ``dvc.yaml`` from ``params.yaml``, or say whether that has been done."""
    from mert_core.experiments.plan import check_plan, write_plan

    config, layout = context(options)
    if options.check:
        check_plan(config, layout)
        return 0
    print("\n".join(write_plan(config, layout) or ["dvc.yaml is as params.yaml says"]))
    return 0


def config(options: argparse.Namespace) -> int:
    """Print the resolved parameters, each with where it comes from."""
    from mert_core.config import describe_config

    _, layout = context(options)
    print(describe_config(options.params or layout.root / PARAMS_NAME, options.overrides, options.run))
    return 0


def list_teachers(options: argparse.Namespace) -> int:
    """List all teachers."""
    from mert_core.teachers.registry import listing

    config, layout = context(options)
    print(listing(config, layout))
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Examine machine and checkout, or the labelled data sets."""
    if options.quick and not options.datasets:
        raise MertError("--quick goes with --datasets; `mert doctor` alone is quick")
    config, layout = context(options)
    if options.datasets:
        return _survey_datasets(config, layout, options.quick)
    from mert_core.doctor import examine

    return examine(config, layout)


def _survey_datasets(config: Config, layout: Layout, quick: bool) -> int:
    """Print each labelled data set's state; 1 when files are damaged. A missing set is no problem."""
    from mert_core.datasets.registry import survey_all

    surveys = []
    for survey, text in survey_all(config, layout, quick):
        surveys.append(survey)
        print(text)
    complete = sum(survey.state == "complete" for survey in surveys)
    damaged = sum(bool(survey.damaged) for survey in surveys)
    print(f"{complete} of {len(surveys)} complete; {f'{damaged} damaged' if damaged else 'none damaged'}")
    return 1 if damaged else 0


def embed(options: argparse.Namespace) -> int:
    """Write the hidden states of one file."""
    from mert_core.embed import embed_file
    from mert_core.files import writing

    out = options.out or Path(options.audio.name).with_suffix(".npy")
    chunks = options.chunk_seconds, options.margin_seconds
    with writing(out):
        shape = embed_file(options.audio, options.model, options.layer, out, *chunks)
    print(f"{out}: {shape[0]} state(s) × {shape[1]} frames × {shape[2]} units, float32, 75 frames per second")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a run's encoder for transformers."""
    from mert_core.files import writing
    from mert_core.model.export import export_hubert
    from mert_core.model.mert import MertModel
    from mert_core.report.model_card import model_card

    config, layout = context(options)
    config.run(options.run)
    card = model_card(layout, options.run)
    model = MertModel.from_pretrained(layout.model(options.run))
    with writing(options.to):
        export_hubert(model, options.to, card)
    print(f"{options.to}: load it with transformers.HubertModel.from_pretrained")
    return 0


def import_(options: argparse.Namespace) -> int:
    """Take over a checkpoint."""
    from mert_core.files import writing
    from mert_core.model.convert import import_checkpoint

    with writing(options.to):
        done = import_checkpoint(options.checkpoint, options.to, encoder_only=options.encoder_only)
    heads = [f"{name} ({books} × {entries} codes)" for name, (books, entries) in done.codes.items()]
    heads += [f"{name} ({bins} bins)" for name, bins in done.spectra.items()]
    found = f"heads for {', '.join(heads)}" if heads else "no heads"
    print(f"{options.to}: encoder of {done.parameters:,} parameters, {found}; load it with MertModel.from_pretrained")
    print("To go on training from it, in params.yaml, for pretrain or for one of the runs:")
    stored = "stored" if heads else "fresh"
    print(f"  start: {{folder: {options.to.resolve()}, sha256: {done.sha256}, heads: {stored}}}")
    return 0


def leaderboard(options: argparse.Namespace) -> int:
    """Print or write the tables of scores, or compare two models."""
    from mert_core.files import write_text, writing
    from mert_core.report.compare import compare_models
    from mert_core.report.leaderboard import leaderboard

    _, layout = context(options)
    width = 132 if options.out or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    if options.compare:
        if options.format != "text":
            raise MertError(f"--compare is text; found --format {options.format}")
        text = compare_models(layout, *options.compare, demo=options.demo, width=width)
    else:
        text = leaderboard(layout, options.format, demo=options.demo, width=width)
    if options.out:
        with writing(options.out):
            write_text(options.out, text)
        print(f"{options.out}: {len(text.encode()):,} bytes")
    else:
        print(text, end="")
    return 0


def lineage(options: argparse.Namespace) -> int:
    """Print the way from a score to the music."""
    from mert_core.lineage.catalog import lineage, record_stage

    config, layout = context(options)
    record_stage(config, layout)
    print(lineage(config, layout, options.id))
    return 0


def up(options: argparse.Namespace) -> int:
    """Start the services."""
    from mert_core.services.up import up

    config, layout = context(options)
    return up(config, layout, mlflow_port=options.mlflow_port, prefect_port=options.prefect_port)


def upload(options: argparse.Namespace) -> int:
    """Copy shards to an object store."""
    from mert_core.upload import upload

    _, layout = context(options)
    print(upload(layout, options.to.rstrip("/")))
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Search the loss weights, or apply a winner."""
    config, layout = context(options)
    if options.apply:
        from mert_core.experiments.winner import apply_winner

        print(apply_winner(layout, options.params or layout.root / PARAMS_NAME, options.apply))
        return 0
    from mert_core.experiments.sweep import search

    print(search(config, layout))
    return 0
