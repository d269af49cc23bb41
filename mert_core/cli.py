"""The command ``mert``: every stage of the line as plain Python, and the tools around it."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mert_core.errors import MertError
from mert_core.paths import Layout

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.records import Record

PARAMS_NAME = "params.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0, 1 (a check found a problem), 2 (bad input) or 130 (Ctrl-C)."""
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except MertError as error:
        print(f"mert {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nmert {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mert", description="From music to a probed, compared and exportable model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, (help_text, takes_run) in STAGES.items():
        stage = commands.add_parser(name, help=help_text, description=help_text)
        if takes_run:
            stage.add_argument("--run", required=True, metavar="NAME", help="a run of params.yaml")
        _common(stage)
        stage.set_defaults(action=_run_stage)

    teachers = commands.add_parser("teachers", help="list all teachers, or fit one")
    todo = teachers.add_subparsers(dest="todo", required=True, metavar="list|fit")
    listed = todo.add_parser("list", help="every teacher: what it gives, what it is fitted on, whether it is here")
    _common(listed)
    listed.set_defaults(action=_list_teachers)
    fit = todo.add_parser("fit", help="fit a teacher on the corpus, or take published weights")
    fit.add_argument("run", metavar="NAME", help="as `mert teachers list` names it")
    fit.add_argument("--download", action="store_true", help="fetch the published weights, if they are not here")
    _common(fit)
    fit.set_defaults(action=_run_stage)

    probe = commands.add_parser(
        "probe", help="probe a run, a floor (random-weights, mel-statistics) or any encoder on labelled tasks"
    )
    whom = probe.add_mutually_exclusive_group(required=True)
    whom.add_argument("--run", metavar="NAME", help="a run of params.yaml, or a floor")
    whom.add_argument(
        "--model", metavar="DIR", help="a folder (MERT; HuBERT or wav2vec 2.0 of transformers), or module:function"
    )
    probe.add_argument("--name", metavar="NAME", help="what tables call --model; default: the folder's name")
    probe.add_argument(
        "--task", dest="tasks", action="append", metavar="TASK",
        help="one task (again for more); default: with --run all of probe.tasks, with --model the fourteen",
    )  # fmt: skip
    probe.add_argument("--data", type=Path, metavar="DIR", help="where the one task's data set lies")
    _common(probe)
    probe.set_defaults(action=_probe_tasks)

    targets = commands.add_parser("targets", help="a teacher's targets for every track, then the label gate")
    targets.add_argument("run", metavar="TEACHER", help="as `mert teachers list` names it")
    _common(targets)
    targets.set_defaults(action=_run_stage)

    doctor = commands.add_parser("doctor", help="check this machine, the packages and the checkout")
    doctor.add_argument("--datasets", action="store_true", help="look at the labelled public data sets instead")
    doctor.add_argument("--quick", action="store_true", help="with --datasets: count files, compare no checksums")
    _common(doctor)
    doctor.set_defaults(action=_doctor)

    embed = commands.add_parser("embed", help="hidden states of one audio file as .npy")
    embed.add_argument("audio", type=Path, help="wav, flac, ogg, opus or mp3; any rate, any channels")
    embed.add_argument("--model", type=Path, required=True, help="folder with config.json and weights")
    embed.add_argument("--layer", default="all", help="hidden state 0…L, or all (the default)")
    embed.add_argument(
        "--chunk-seconds", type=_seconds, default=30.0, help="longer music is computed in chunks (default: 30)"
    )
    embed.add_argument(
        "--margin-seconds", type=_seconds, default=5.0, help="overlap thrown away at each end (default: 5)"
    )
    embed.add_argument("--out", type=Path, help="where to write; default: the audio file's name with .npy, here")
    embed.set_defaults(action=_embed)

    export = commands.add_parser("export", help="write a run's encoder as a folder that transformers.HubertModel loads")
    export.add_argument("--run", required=True, metavar="NAME")
    export.add_argument("--to", type=Path, required=True, metavar="DIR")
    _common(export)
    export.set_defaults(action=_export)

    import_ = commands.add_parser("import", help="take over a Hugging Face folder or a fairseq .pt, heads included")
    import_.add_argument("checkpoint", type=Path, help="folder with config.json and weights, or fairseq checkpoint")
    import_.add_argument("--encoder-only", action="store_true", help="leave the pre-training heads behind")
    import_.add_argument("--to", type=Path, required=True, metavar="DIR")
    import_.set_defaults(action=_import)

    leaderboard = commands.add_parser("leaderboard", help="scores of all probed runs beside floors and published ones")
    leaderboard.add_argument("--format", choices=("text", "csv", "html"), default="text", help="default: text")
    leaderboard.add_argument("--demo", action="store_true", help="the stand-ins from performed scores instead")
    leaderboard.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two probed runs, paired, task by task")
    leaderboard.add_argument("--out", type=Path, metavar="FILE", help="where to write; default: print it")
    _common(leaderboard)
    leaderboard.set_defaults(action=_leaderboard)

    lineage = commands.add_parser("lineage", help="the way from a score back to the music, with every hash")
    lineage.add_argument("id", help="the beginning of a record's or score's id, or RUN/TASK, as tiny/demo/gs_key")
    _common(lineage)
    lineage.set_defaults(action=_lineage)

    up = commands.add_parser("up", help="MLflow, Prefect and the deployments on 127.0.0.1, until Ctrl-C")
    up.add_argument("--mlflow-port", type=int, default=5000)
    up.add_argument("--prefect-port", type=int, default=4200)
    _common(up)
    up.set_defaults(action=_up)

    upload = commands.add_parser("upload", help="copy the shards of corpus and targets to an object store")
    upload.add_argument("--to", required=True, metavar="URL", help="s3://bucket/prefix; the bucket exists")
    _common(upload)
    upload.set_defaults(action=_upload)

    sweep = commands.add_parser("sweep", help="search the loss weights, or write a winner to params.yaml")
    sweep.add_argument("--apply", metavar="ID", help="write that sweep's winner to params.yaml (latest: the newest)")
    _common(sweep)
    sweep.set_defaults(action=_sweep)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help=f"parameters; default: {PARAMS_NAME} of the workdir"
    )
    parser.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="section.key=value", help="change one parameter"
    )
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="default: the repository that holds this folder")


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``params.yaml``, or ``start`` itself."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / PARAMS_NAME).is_file()), start)


def _context(options: argparse.Namespace) -> tuple[Config, Layout]:
    from mert_core.config import load_config

    layout = Layout.at(options.workdir) if options.workdir else Layout.at(find_root(Path.cwd()))
    return load_config(options.params or layout.root / PARAMS_NAME, options.overrides), layout


# Stages ---------------------------------------------------------------------------------------------------------------


def _corpus(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.corpus import stage

    return stage.run(config, layout, tracker)


def _probe_set(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.corpus import stage

    return stage.run_probe_set(config, layout, tracker)


def _downloaded(config: Config, layout: Layout, name: str) -> Config:
    """Fetch a teacher's published weights and return parameters that name the file."""
    from mert_core.teachers.download import download
    from mert_core.teachers.registry import teacher_class

    if teacher_class(name).needs != "weights":
        raise MertError(f"--download: {name} has no published weights to fetch; say `mert teachers fit {name}`")
    file = download(layout.caches / "weights")
    settings = {**(config.teachers.get(name) or {}), "checkpoint": str(file)}
    return config.model_copy(update={"teachers": {**config.teachers, name: settings}})


def _teachers(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.teachers import stage

    return stage.run(config, layout, tracker, run)


def _targets(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.targets import stage

    return stage.run(config, layout, tracker, run)


def _pretrain(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.pretrain import stage

    return stage.run(config, layout, tracker, run)


def _probe(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.probe import stage

    return stage.run(config, layout, tracker, run)


def _report(config: Config, layout: Layout, tracker: Any, run: str) -> Record:
    from mert_core.report import stage

    return stage.run(config, layout, tracker)


STAGES: dict[str, tuple[str, bool]] = {
    "corpus": ("music → PCM shards and manifest", False),
    "probe-set": ("labelled excerpts and single notes to probe on", False),
    "pretrain": ("train a named run", True),
    "report": ("tables, figures, report.html and metrics.json", False),
}
_ACTIONS: dict[str, Callable[[Config, Layout, Any, str], Record]] = {
    "corpus": _corpus,
    "probe-set": _probe_set,
    "teachers": _teachers,
    "targets": _targets,
    "pretrain": _pretrain,
    "probe": _probe,
    "report": _report,
}


def _set_threads(config: Config) -> None:
    # Thread pools are sized when the libraries load: numpy's and torch's sums depend on the count.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(config.threads)
    # Threads that wait spin only briefly: where others use the cores too, long spinning made a step many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    import torch

    torch.set_num_threads(config.threads)


def _run_stage(options: argparse.Namespace) -> int:
    config, layout = _context(options)
    name, run = options.command, getattr(options, "run", None)
    resume_run_id = None
    if getattr(options, "download", False):
        config = _downloaded(config, layout, run or "")
    _set_threads(config)
    from mert_core.catalog import record_stage
    from mert_core.tracking import open_run

    if name in {"teachers", "targets", "pretrain"}:
        from mert_core.teachers.registry import check_teachers, teacher_class

        check_teachers(config)
        if name != "pretrain":
            teacher_class(run or "")  # an unknown one must not open a run
    if name == "pretrain":
        from mert_core.pretrain.stage import resumable_run_id

        resume_run_id = resumable_run_id(config, layout, options.run)
    with open_run(config, layout, name, run, resume_run_id=resume_run_id) as tracker:
        record = _ACTIONS[name](config, layout, tracker, run or "")
    record_stage(config, layout)
    print(f"{name}{f' {run}' if run else ''}: {record.kind} {record.id[:12]}")
    return 0


def _probe_tasks(options: argparse.Namespace) -> int:
    if options.run and not options.tasks:
        for flag in ("data", "name"):
            if getattr(options, flag):
                raise MertError(f"--{flag} goes with --{'task' if flag == 'data' else 'model'}")
        return _run_stage(options)
    from mert_core.probe.adhoc import Request

    config, layout = _context(options)
    request = Request.of(config, options.run, options.model, options.name, options.tasks, options.data)
    _set_threads(config)
    from mert_core.catalog import record_stage
    from mert_core.probe.adhoc import probe
    from mert_core.tracking import open_run

    with open_run(config, layout, "probe", request.subject.name) as tracker:
        text = probe(config, layout, tracker, request)
    record_stage(config, layout)
    print(text)
    return 0


def _list_teachers(options: argparse.Namespace) -> int:
    from mert_core.teachers.listing import listing

    config, layout = _context(options)
    print(listing(config, layout))
    return 0


# Tools ----------------------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    if options.quick and not options.datasets:
        raise MertError("--quick goes with --datasets; `mert doctor` alone is quick")
    config, layout = _context(options)
    if options.datasets:
        from mert_core.corpus.datasets.survey import survey_all

        return survey_all(config, layout, options.quick)
    from mert_core.doctor import examine

    return examine(config, layout)


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
    from mert_core.model import MertModel, export_hubert
    from mert_core.report.model_card import model_card

    config, layout = _context(options)
    config.run(options.run)
    card = model_card(layout, options.run)
    model = MertModel.from_pretrained(layout.model(options.run))
    with writing(options.to):
        export_hubert(model, options.to, card)
    print(f"{options.to}: load it with transformers.HubertModel.from_pretrained")
    return 0


def _import(options: argparse.Namespace) -> int:
    from mert_core.files import writing
    from mert_core.model.importing import import_checkpoint

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


def _leaderboard(options: argparse.Namespace) -> int:
    from mert_core.files import write_text, writing
    from mert_core.report.leaderboard import leaderboard
    from mert_core.report.paired import compared

    _, layout = _context(options)
    width = 132 if options.out or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    if options.compare:
        if options.format != "text":
            raise MertError(f"--compare is text; found --format {options.format}")
        text = compared(layout, *options.compare, demo=options.demo, width=width)
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
    from mert_core.catalog import lineage, record_stage

    config, layout = _context(options)
    record_stage(config, layout)
    print(lineage(config, layout, options.id))
    return 0


def _up(options: argparse.Namespace) -> int:
    from mert_core.services.up import up

    config, layout = _context(options)
    return up(config, layout, mlflow_port=options.mlflow_port, prefect_port=options.prefect_port)


def _upload(options: argparse.Namespace) -> int:
    from mert_core.upload import upload

    _, layout = _context(options)
    print(upload(layout, options.to.rstrip("/")))
    return 0


def _sweep(options: argparse.Namespace) -> int:
    config, layout = _context(options)
    if options.apply:
        from mert_core.sweep.winner import apply_winner

        print(apply_winner(layout, options.params or layout.root / PARAMS_NAME, options.apply))
        return 0
    from mert_core.sweep.search import search

    print(search(config, layout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
