"""The commands, and what an error becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from breakhis_search import __version__
from breakhis_search.cli import console
from breakhis_search.cli.completion import (
    PROGRAM,
    VARIABLE,
    complete_profile,
    complete_study,
    is_about_completion,
)
from breakhis_search.cli.data import data_app
from breakhis_search.cli.exit_codes import ExitCode
from breakhis_search.cli.exit_codes import in_words as exit_codes
from breakhis_search.cli.options import (
    AsJson,
    OnDemo,
    Study,
    at_least_one,
    known_device,
    known_engine,
    registered_of,
    run_of,
)
from breakhis_search.cli.usage import misplaced_option
from breakhis_search.cli.volume import Quiet, Verbose, with_volume
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.garbage import garbage_kept

app = typer.Typer(
    name="breakhis_search",
    help="Honest, patient-disjoint model search on BreaKHis breast-histology images.",
    epilog=f"{exit_codes()}\n\nExample: python -m breakhis_search run --study multiclass",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    _version_option: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    _quiet: Quiet = False,
    _verbose: Verbose = False,
) -> None:
    pass


@app.command(epilog="Example: python -m breakhis_search run --study binary --data BreaKHis_v1")
@with_volume
def run(
    study: Study = "multiclass",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with BreaKHis_v1 (else BREAKHIS_ROOT, data.root, ./data, demo)."),
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with pretrained no-top weight files.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_profile, help="Profile of the study file: full, quick, demo."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(callback=at_least_one, help="Budget of the study in trials, 1 or more."),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Stop asking for new trials after, such as 2h or 90m.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|gpu|cpu", callback=known_device, help="Where to train.")
    ] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override section.key=value; repeatable.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Worker processes (default: one per GPU; on a CPU one); 0: in this process.",
        ),
    ] = None,
    workers_per_gpu: Annotated[
        int, typer.Option(min=1, metavar="K", help="Workers that share a GPU, for small models.")
    ] = 1,
    join: Annotated[
        bool,
        typer.Option("--join", help="Only train, for a study that another `run` leads to its end."),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            callback=known_engine,
            help="Where workers run: on this machine, or on the nodes of a Ray cluster.",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Of the Ray cluster (default: one of this machine's own)."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before hours on a CPU.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Start a new version of the study.")] = False,
    i_know_this_leaks: Annotated[
        bool, typer.Option(help="Allow a protocol that splits patients.")
    ] = False,
) -> None:
    """Search, then refit, verify and register the best model. Run it again to continue."""
    from breakhis_search.cli.run import Crew, run_command
    from breakhis_search.workflow.request import RunRequest

    if address is not None and engine != "ray":
        raise typer.BadParameter("--address names a Ray cluster: add --engine ray")
    if engine == "ray" and workers == 0:
        raise typer.BadParameter("--workers 0 trains in this process: leave --engine ray out")
    crew = Crew(workers, workers_per_gpu, leads=not join, engine=engine, address=address)
    request = RunRequest(
        study=study,
        data=data,
        weights_dir=weights_dir,
        profile=profile,
        trials=trials,
        timeout=timeout,
        device=cast("Literal['auto', 'gpu', 'cpu']", device),
        overrides=tuple(set_ or ()),
        new=new,
        accepts_leakage=i_know_this_leaks,
    )
    run_command(request, assume_yes=yes, crew=crew)


@app.command(epilog="Example: python -m breakhis_search compare --study binary --top 5")
@with_volume
def compare(
    study: Annotated[
        list[str],
        typer.Option(
            "--study",
            "-s",
            autocompletion=complete_study,
            help="Study, or study@vN; repeatable.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    history: Annotated[
        bool, typer.Option("--history", help="Who was champion when, and why.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Where the time went; writes a page with all runs.")
    ] = False,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Any two models: trial numbers, or run ids; of one study, or one of each of two.",
        ),
    ] = None,
    demo: OnDemo = False,
    as_json: AsJson = False,
) -> None:
    """Rank the finalists of one or more studies; say which is selected, and why."""
    if sum((history, profile, pair is not None)) > 1:
        raise typer.BadParameter("--history, --profile and --pair are questions of their own")
    study = [run_of(name, demo=demo) for name in study]
    if pair is not None:
        from breakhis_search.cli.compare import pair_command

        pair_command(study, pair, as_json=as_json)
        return
    if history:
        from breakhis_search.cli.models import history_command

        history_command(study, as_json=as_json)
        return
    with garbage_kept():
        if profile:
            from breakhis_search.cli.profile import profile_command

            profile_command(study, as_json=as_json)
            return
        from breakhis_search.cli.compare import compare_command

        compare_command(study, top=top, as_json=as_json)


@app.command(epilog="Example: python -m breakhis_search promote --study binary --dry-run")
@with_volume
def promote(
    study: Study,
    version: Annotated[
        str | None, typer.Option(help="Version to promote (default: the challenger).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data with the sealed test (default: where its study was).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what is known without opening the sealed test.")
    ] = False,
    demo: OnDemo = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote against the gate; it is written down.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Open the sealed test once more; it is marked.")
    ] = False,
) -> None:
    """Ask the gate whether a version may be champion; opens the sealed test for it."""
    from breakhis_search.cli.models import promote_command
    from breakhis_search.workflow.promotion import PromotionRequest

    name, demo = registered_of(study, demo=demo)
    promote_command(PromotionRequest(name, version, data, demo, dry_run, force, again))


@app.command(epilog="Example: python -m breakhis_search rollback --study binary")
@with_volume
def rollback(
    study: Study,
    demo: OnDemo = False,
) -> None:
    """Make the previous champion champion again."""
    from breakhis_search.cli.models import rollback_command

    name, demo = registered_of(study, demo=demo)
    rollback_command(name, demo=demo)


@app.command(epilog="Example: python -m breakhis_search card --study binary --out paper_trail")
@with_volume
def card(
    study: Study,
    version: Annotated[
        str | None, typer.Option(help="Version (default: the champion, else the challenger).")
    ] = None,
    demo: OnDemo = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write the two files to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the model card and the decision log of a registered version, in Markdown."""
    from breakhis_search.cli.card import card_command

    name, demo = registered_of(study, demo=demo)
    card_command(name, version=version, demo=demo, out=out, as_json=as_json)


@app.command(epilog="Example: python -m breakhis_search report --study binary")
@with_volume
def report(
    study: Annotated[
        str,
        typer.Option("--study", "-s", autocompletion=complete_study, help="Study, or study@vN."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file (default: mlruns/reports/STUDY.html).")
    ] = None,
    demo: OnDemo = False,
) -> None:
    """Write one page about a study that works offline, and the same in Markdown."""
    with garbage_kept():
        from breakhis_search.cli.report import report_command

        report_command(run_of(study, demo=demo), out=out)


@app.command(epilog="Example: python -m breakhis_search predict --study binary slide.png")
@with_volume
def predict(
    study: Study,
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    version: Annotated[str | None, typer.Option(help="Version (default: the champion).")] = None,
    demo: OnDemo = False,
    out: Annotated[Path | None, typer.Option(help="CSV file to write all answers to.")] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Write each image with a map of the reasons (Grad-CAM), to explained/ or"
            " beside --out.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score images with the registered model; exit 3 where some could not be scored."""
    from breakhis_search.cli.models import predict_command

    name, demo = registered_of(study, demo=demo)
    predict_command(
        name,
        images,
        version=version,
        demo=demo,
        as_json=as_json,
        out=out,
        explains=explain,
    )


@app.command(epilog="Example: python -m breakhis_search serve --study binary --port 5001")
@with_volume
def serve(
    study: Study,
    version: Annotated[str | None, typer.Option(help="Version (default: the champion).")] = None,
    alias: Annotated[
        str | None, typer.Option(help="Alias, such as challenger (default: champion).")
    ] = None,
    demo: OnDemo = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anyone who reaches it may ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5001,
) -> None:
    """Answer images over HTTP with the registered model (MLflow's scoring server)."""
    from breakhis_search.cli.models import serve_command
    from breakhis_search.workflow.serving import ServeRequest

    if version is not None and alias is not None:
        raise typer.BadParameter("--version and --alias both pin one: give one of them")
    name, demo = registered_of(study, demo=demo)
    serve_command(ServeRequest(name, version, alias, demo, host, port))


@app.command(epilog="Example: python -m breakhis_search status --json")
@with_volume
def status(
    as_json: AsJson = False,
    deliver: Annotated[
        bool, typer.Option("--deliver", help="Bring to MLflow what waits for it.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Show what dead processes left; end it, if you say so."),
    ] = False,
    gc: Annotated[
        bool,
        typer.Option(
            "--gc", help="Show what takes room; delete models of beaten trials, if you say so."
        ),
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="With --gc: models of a study that stay (default: its search.models_kept).",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Repair or delete without asking.")] = False,
) -> None:
    """Show studies, trials, registered models and records that wait for delivery."""
    from breakhis_search.cli import status as commands

    acts = deliver or repair or gc
    if as_json and acts:
        raise typer.BadParameter("--json is the status alone: leave --deliver, --repair, --gc out")
    if keep is not None and not gc:
        raise typer.BadParameter("--keep says what --gc leaves: add --gc")
    if yes and not (repair or gc):
        raise typer.BadParameter("--yes answers --repair or --gc: add one of them")
    if deliver:
        commands.deliver_command()
    if repair:
        commands.repair_command(assume_yes=yes)
    if gc:
        commands.gc_command(keep=keep, assume_yes=yes)
    if not acts:
        with garbage_kept():
            commands.status_command(as_json=as_json)


@app.command(epilog="Example: python -m breakhis_search replay --study binary --trial 7")
@with_volume
def replay(
    run_id: Annotated[
        str | None, typer.Argument(help="MLflow run of a complete trial; or --study and --trial.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", "-s", autocompletion=complete_study, help="Study, or study@vN."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Number of its trial.")
    ] = None,
    demo: OnDemo = False,
    data: Annotated[
        Path | None, typer.Option(help="Its images (default: where its study had them).")
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with pretrained no-top weight files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a trial again from what MLflow holds of it, and compare; exit 3 where it differs."""
    from breakhis_search.cli.replay import replay_command

    named: str | tuple[str, int]
    if run_id is not None and study is None and trial is None and not demo:
        named = run_id
    elif run_id is None and study is not None and trial is not None:
        named = (run_of(study, demo=demo), trial)
    else:
        raise typer.BadParameter("name a trial by RUN_ID, or by both --study and --trial")
    replay_command(named, data=data, weights_dir=weights_dir, as_json=as_json)


@app.command(epilog="Example: python -m breakhis_search ui --port 5000")
@with_volume
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    dashboard_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of Optuna Dashboard, where it is installed.")
    ] = 8080,
) -> None:
    """Open the MLflow UI, and Optuna Dashboard beside it; Ctrl-C ends both."""
    from breakhis_search.cli.models import ui_command

    ui_command(port, dashboard_port)


@app.command(epilog="Example: python -m breakhis_search doctor --data BreaKHis_v1")
@with_volume
def doctor(
    data: Annotated[Path | None, typer.Option(help="Folder with BreaKHis_v1.")] = None,
    weights_dir: Annotated[Path | None, typer.Option(help="Folder with weight files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, store, data and weights; say what to do."""
    from breakhis_search.cli.status import doctor_command

    doctor_command(data, weights_dir, as_json=as_json)


def run_app(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; errors become one line."""
    console.set_volume(console.Volume.NORMAL)
    typed = list(arguments)
    commands = [
        command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    if (told := misplaced_option(typed, commands)) is not None:
        console.print_error(told)
        return ExitCode.USAGE
    name = PROGRAM if is_about_completion(typed) else "python -m breakhis_search"
    try:
        app(typed, prog_name=name, complete_var=VARIABLE)
    except BreakhisSearchError as error:
        console.print_error(str(error))
        return ExitCode.ERROR
    except OSError as error:  # the disk or the network, where nothing below knew better
        place = f" ({error.filename})" if error.filename else ""
        console.print_error(
            f"the system refused: {error.strerror or error}{place}; to do: free space or correct"
            " the permissions, then run the same command again"
        )
        return ExitCode.ERROR
    except SystemExit as done:  # typer exits by itself, with 2 for wrong usage
        return done.code if isinstance(done.code, int) else ExitCode.ERROR
    return ExitCode.OK
