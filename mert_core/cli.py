"""The command ``mert``: what its commands are called, which options they take, and what each of them does.

Whatever a command needs is imported when it runs: ``mert --help`` answers at once, and no stage loads the libraries of
another.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import os
import select
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.parallel import choose_waiting, set_threads
from mert_core.paths import PARAMS_NAME, Layout

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.data.record import Record
    from mert_core.tracking import Tracker

logger = logging.getLogger(__name__)

_STAGES = {
    "corpus": "mert_core.corpus.stage:run",
    "probe-set": "mert_core.corpus.stage:run_probe_set",
    "teachers": "mert_core.teachers.stage:run",
    "targets": "mert_core.targets.stage:run",
    "pretrain": "mert_core.training.stage:run",
    "probe": "mert_core.probing.stage:run",
    "report": "mert_core.report.stage:run",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit status: 0, 1 (a check found a problem), 2 (bad input), 130 (Ctrl-C) or 141 (nobody reads the output any
        more, as after ``mert config | head``).
    """
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()  # at the interpreter's exit it would be too late to answer for a closed pipe
    except BrokenPipeError:
        if not (closed := [stream for stream in (sys.stdout, sys.stderr) if _reader_is_gone(stream.fileno())]):
            raise  # a pipe or connection of the command's own
        for stream in closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


def _run(options: argparse.Namespace) -> int:
    choose_waiting()  # here, because nothing that has threads has been imported yet
    logging.basicConfig(format="%(message)s")  # to standard error: warnings of all, and what this package has to say
    logging.getLogger("mert_core").setLevel(logging.INFO)
    try:
        return options.action(options)
    except MertError as error:
        print(f"mert {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nmert {options.command}: interrupted", file=sys.stderr)
        return 130


def _reader_is_gone(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


# Names and options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mert", description="From music to a probed, compared and exportable model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, action: Callable[..., int], within: Any = commands) -> argparse.ArgumentParser:
        """Add a command that reads the parameters."""
        added = within.add_parser(name, help=about, description=about)
        parameters = "parameters; default: params.yaml of the workdir"
        added.add_argument("--params", type=Path, metavar="FILE", help=parameters)
        change = {"default": [], "metavar": "section.key=value", "help": "change one parameter"}
        added.add_argument("-S", dest="overrides", action="append", **change)
        added.add_argument("--workdir", type=Path, metavar="DIR", help="default: the repository that holds this folder")
        added.set_defaults(action=action)
        return added

    command("corpus", "music → PCM shards and manifest", _stage)
    command("probe-set", "labelled excerpts and single notes to probe on", _stage)
    pretrain = command("pretrain", "train a named run", _stage)
    pretrain.add_argument("--run", required=True, metavar="NAME", help="a run of params.yaml")
    command("report", "tables, figures, report.html and metrics.json", _stage)

    plan = command("plan", "render dvc.yaml from params.yaml", _plan)
    plan.add_argument("--check", action="store_true", help="say whether it is up to date, and write nothing")

    config = command("config", "the resolved parameters, each with where it comes from", _config)
    config.add_argument("--run", metavar="NAME", help="those of one run of params.yaml")

    teachers = commands.add_parser("teachers", help="list all teachers, or fit one")
    todo = teachers.add_subparsers(dest="todo", required=True, metavar="list|fit")
    listed = "every teacher: what it gives, what it is fitted on, whether it is here"
    command("list", listed, _list_teachers, todo)
    fit = command("fit", "fit a teacher on the corpus, or take published weights", _stage, todo)
    fit.add_argument("run", metavar="NAME", help="as `mert teachers list` names it")
    fit.add_argument("--download", action="store_true", help="fetch the published weights, if they are not here")

    probed = "probe a run, a baseline (random-weights, mel-statistics) or any encoder on labelled tasks"
    probe = command("probe", probed, _probe)
    whom = probe.add_mutually_exclusive_group(required=True)
    whom.add_argument("--run", metavar="NAME", help="a run of params.yaml, or a baseline")
    whom.add_argument(
        "--model", metavar="DIR", help="a folder (MERT; HuBERT or wav2vec 2.0 of transformers), or module:function"
    )
    probe.add_argument("--name", metavar="NAME", help="what tables call --model; default: the folder's name")
    probe.add_argument(
        "--task",
        dest="tasks",
        action="append",
        metavar="TASK",
        help="one task (again for more); default: with --run all of probe.tasks, with --model the fourteen",
    )
    probe.add_argument("--data", type=Path, metavar="DIR", help="where the one task's data set lies")

    targets = command("targets", "a teacher's targets for every track, then the label gate", _stage)
    targets.add_argument("run", metavar="TEACHER", help="as `mert teachers list` names it")

    doctor = command("doctor", "check this machine, the packages and the checkout", _doctor)
    doctor.add_argument("--datasets", action="store_true", help="look at the labelled public data sets instead")
    doctor.add_argument("--quick", action="store_true", help="with --datasets: count files, compare no checksums")

    embed = commands.add_parser("embed", help="hidden states of one audio file as .npy")
    embed.add_argument("audio", type=Path, help="wav, flac, ogg, opus or mp3; any rate, any channels")
    embed.add_argument("--model", type=Path, required=True, help="folder with config.json and weights")
    embed.add_argument("--layer", default="all", help="hidden state 0…L, or all (the default)")
    longer, overlap = "longer music is computed in chunks (default: 30)", "overlap thrown away at each end (default: 5)"
    embed.add_argument("--chunk-seconds", type=_seconds, default=30.0, help=longer)
    embed.add_argument("--margin-seconds", type=_seconds, default=5.0, help=overlap)
    embed.add_argument("--out", type=Path, help="where to write; default: the audio file's name with .npy, here")
    embed.set_defaults(action=_embed)

    export = command("export", "write a run's encoder as a folder that transformers.HubertModel loads", _export)
    export.add_argument("--run", required=True, metavar="NAME")
    export.add_argument("--to", type=Path, required=True, metavar="DIR")

    import_ = commands.add_parser("import", help="take over a Hugging Face folder or a fairseq .pt, heads included")
    import_.add_argument("checkpoint", type=Path, help="folder with config.json and weights, or fairseq checkpoint")
    import_.add_argument("--encoder-only", action="store_true", help="leave the pre-training heads behind")
    import_.add_argument("--to", type=Path, required=True, metavar="DIR")
    import_.set_defaults(action=_import)

    leaderboard = command("leaderboard", "scores of all probed runs beside baselines and published ones", _leaderboard)
    leaderboard.add_argument("--format", choices=("text", "csv", "html"), default="text", help="default: text")
    leaderboard.add_argument("--demo", action="store_true", help="the proxy tasks from performed scores instead")
    leaderboard.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two probed runs, paired, task by task")
    leaderboard.add_argument("--out", type=Path, metavar="FILE", help="where to write; default: print it")

    lineage = command("lineage", "the way from a score back to the music, with every hash", _lineage)
    lineage.add_argument("id", help="the beginning of a record's or score's id, or RUN/TASK, as tiny/demo/gs_key")

    up = command("up", "MLflow, Prefect and the deployments on 127.0.0.1, until Ctrl-C", _up)
    up.add_argument("--mlflow-port", type=int, default=5000)
    up.add_argument("--prefect-port", type=int, default=4200)

    upload = command("upload", "copy the shards of corpus and targets to an object store", _upload)
    upload.add_argument("--to", required=True, metavar="URL", help="s3://bucket/prefix; the bucket exists")

    sweep = command("sweep", "search the loss weights, or write a winner to params.yaml", _sweep)
    sweep.add_argument("--apply", metavar="ID", help="write that sweep's winner to params.yaml (latest: the newest)")
    return parser


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def _context(options: argparse.Namespace) -> tuple[Config, Layout]:
    """Return the parameters, with what the command line changes, and the folders; warn of an outdated ``dvc.yaml``."""
    from mert_core.config import load_config
    from mert_core.experiments.rendered import outdated
    from mert_core.model.config import check_models

    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / PARAMS_NAME).is_file()), here)
    layout = Layout.at(options.workdir or root)
    config = load_config(options.params or layout.params, options.overrides)
    check_models(config)
    checked = not options.params and options.command != "plan"
    if checked and (line := outdated(load_config(layout.params), layout)):
        print(f"warning: {line}", file=sys.stderr)
    return config, layout


# Stages: each opens its MLflow run, and the catalog takes in its record


def _stage(options: argparse.Namespace) -> int:
    config, layout = _context(options)
    name: str = options.command
    run: str = getattr(options, "run", "")
    with ExitStack() as ray:
        if name == "pretrain" and (workers := config.run(run).workers):
            from mert_core.training.ray_train import start_ray

            ray.enter_context(start_ray(workers, config.worker_threads(config.run(run))))
        if getattr(options, "download", False):
            config = _downloaded(config, layout, run)
        set_threads(config.threads)
        from mert_core.lineage.catalog import record_stage
        from mert_core.tracking import open_run

        resume_run_id = None
        if name in {"teachers", "targets", "pretrain"}:  # a wrong name must not open a run in MLflow
            from mert_core.teachers.registry import check_teachers, configured_teacher

            check_teachers(config)
            if name == "pretrain":
                from mert_core.training.stage import resumable_run_id

                resume_run_id = resumable_run_id(config, layout, run)
            else:
                configured_teacher(config, run)
        with open_run(config, layout, name, run or None, resume_run_id=resume_run_id) as tracker:
            module, _, function = _STAGES[name].partition(":")
            work = getattr(importlib.import_module(module), function)
            record: Record = work(config, layout, tracker, *([run] if run else []))
            if name == "pretrain":
                _track_figures(config, layout, tracker, run)
        record_stage(config, layout)
    print(f"{name}{f' {run}' if run else ''}: {record.kind} {record.id[:12]}")
    return 0


def _downloaded(config: Config, layout: Layout, name: str) -> Config:
    """Fetch a teacher's published weights and return parameters that name the file."""
    from mert_core.teachers.codec.encodec import download
    from mert_core.teachers.registry import configured_teacher

    if configured_teacher(config, name).needs != "weights":
        raise MertError(f"--download: {name} has no published weights to fetch; say `mert teachers fit {name}`")
    file = download(layout.caches / "weights")
    settings = {**(config.teachers.get(name) or {}), "checkpoint": str(file)}
    return config.model_copy(update={"teachers": {**config.teachers, name: settings}})


def _track_figures(config: Config, layout: Layout, tracker: Tracker, run: str) -> None:
    """Show in the run itself how it went; the model is written by then, so what cannot be drawn is a warning."""
    from mert_core.report.figures.draw import draw_training
    from mert_core.report.load import read_training

    try:
        with TemporaryDirectory() as folder:
            draw_training([read_training(layout, run)], config.report.example_seconds, Path(folder))
            tracker.artifact(Path(folder), "figures")
    except (MertError, OSError, ValueError) as error:
        logger.warning("the figures of %s are not tracked: %s", run, error)


def _probe(options: argparse.Namespace) -> int:
    """Probe a run as the stage does, or ask any tasks of any encoder."""
    if options.run and not options.tasks:
        for flag in ("data", "name"):
            if getattr(options, flag):
                raise MertError(f"--{flag} goes with --{'task' if flag == 'data' else 'model'}")
        return _stage(options)
    from mert_core.probing.stage import requested

    config, layout = _context(options)
    given = {key: getattr(options, key) for key in ("run", "model", "name", "tasks", "data")}
    subject, tasks = requested(config, layout, **given)
    set_threads(config.threads)
    from mert_core.lineage.catalog import record_stage
    from mert_core.probing.stage import probe
    from mert_core.tracking import open_run

    with open_run(config, layout, "probe", subject.name) as tracker:
        text = probe(config, layout, tracker, subject, tasks)
    record_stage(config, layout)
    print(text)
    return 0


# The tools around the stages


def _plan(options: argparse.Namespace) -> int:
    from mert_core.experiments.plan import check_plan, write_plan

    config, layout = _context(options)
    if options.check:
        check_plan(config, layout)
    else:
        print("\n".join(write_plan(config, layout) or ["dvc.yaml is as params.yaml says"]))
    return 0


def _config(options: argparse.Namespace) -> int:
    from mert_core.config import describe_config

    _, layout = _context(options)
    print(describe_config(options.params or layout.params, options.overrides, options.run))
    return 0


def _list_teachers(options: argparse.Namespace) -> int:
    from mert_core.teachers.registry import listing

    print(listing(*_context(options)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Examine machine and checkout, or the labelled data sets, of which a missing one is no problem."""
    if options.quick and not options.datasets:
        raise MertError("--quick goes with --datasets; `mert doctor` alone is quick")
    config, layout = _context(options)
    if not options.datasets:
        from mert_core.doctor import examine

        return examine(config, layout)
    from mert_core.datasets.registry import survey_all

    surveys = []
    for survey, text in survey_all(config, layout, options.quick):
        surveys.append(survey)
        print(text)
    complete = sum(survey.state == "complete" for survey in surveys)
    damaged = sum(bool(survey.damaged) for survey in surveys)
    print(f"{complete} of {len(surveys)} complete; {damaged or 'none'} damaged")
    return 1 if damaged else 0


def _embed(options: argparse.Namespace) -> int:
    from mert_core.embed import embed_file
    from mert_core.files import writing

    out = options.out or Path(options.audio.name).with_suffix(".npy")
    chunks = options.chunk_seconds, options.margin_seconds
    with writing(out):
        shape = embed_file(options.audio, options.model, options.layer, out, *chunks)
    print(f"{out}: {shape[0]} state(s) × {shape[1]} frames × {shape[2]} units, float32, 75 frames per second")
    return 0


def _export(options: argparse.Namespace) -> int:
    from mert_core.files import writing
    from mert_core.model.mert import MertModel
    from mert_core.report.model_card import model_card

    config, layout = _context(options)
    config.run(options.run)
    card = model_card(layout, options.run)
    model = MertModel.from_pretrained(layout.model(options.run))
    with writing(options.to):
        model.export_hubert(options.to, card)
    print(f"{options.to}: load it with transformers.HubertModel.from_pretrained")
    return 0


def _import(options: argparse.Namespace) -> int:
    from mert_core.files import writing
    from mert_core.model.convert import import_checkpoint

    with writing(options.to):
        done = import_checkpoint(options.checkpoint, options.to, encoder_only=options.encoder_only)
    heads = [f"{name} ({books} × {entries} codes)" for name, (books, entries) in done.codes.items()]
    heads += [f"{name} ({bins} bins)" for name, bins in done.spectra.items()]
    taken = f"heads for {', '.join(heads)}" if heads else "no heads"
    print(f"{options.to}: encoder of {done.parameters:,} parameters, {taken}; load it with MertModel.from_pretrained")
    print("To go on training from it, in params.yaml, for pretrain or for one of the runs:")
    stored = "stored" if heads else "fresh"
    print(f"  start: {{folder: {options.to.resolve()}, sha256: {done.sha256}, heads: {stored}}}")
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from mert_core.files import write_text, writing
    from mert_core.report.leaderboard import compare_models, leaderboard

    _, layout = _context(options)
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


def _lineage(options: argparse.Namespace) -> int:
    from mert_core.lineage.catalog import lineage, record_stage

    config, layout = _context(options)
    record_stage(config, layout)
    print(lineage(config, layout, options.id))
    return 0


def _up(options: argparse.Namespace) -> int:
    from mert_core.services.up import up

    return up(*_context(options), mlflow_port=options.mlflow_port, prefect_port=options.prefect_port)


def _upload(options: argparse.Namespace) -> int:
    from mert_core.upload import upload

    _, layout = _context(options)
    print(upload(layout, options.to.rstrip("/")))
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from mert_core.experiments.sweep import apply_winner, describe, run
    from mert_core.tracking import open_run

    config, layout = _context(options)
    if options.apply:
        print(apply_winner(layout, options.params or layout.params, options.apply))
        return 0
    with open_run(config, layout, stage="sweep") as tracker:
        print(describe(run(config, layout, tracker)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
