"""``run`` in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from breakhis_search.cli import console
from breakhis_search.cli.compare import print_study, print_verdict
from breakhis_search.cli.exit_codes import ExitCode
from breakhis_search.cli.log_tail import LogTail
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.comparison.version_facts import VersionFacts
    from breakhis_search.workflow.outcome import RunOutcome
    from breakhis_search.workflow.preparation import Watcher
    from breakhis_search.workflow.request import RunRequest


def run_command(request: RunRequest, *, assume_yes: bool, crew: Crew) -> None:
    """Run a study with progress on screen, and end with what the user needs next."""
    from breakhis_search.cli.progress import TerminalObserver
    from breakhis_search.workflow.preparation import Watcher

    observer = TerminalObserver()
    watcher = Watcher(
        say=console.say,
        progress=_Preparation(),
        search=observer,
        confirm_slow=None if assume_yes else _confirm_slow,
    )
    try:
        run = _run_here if crew.workers == 0 else _run_supervised
        outcome = run(request, watcher, crew)
    except KeyboardInterrupt:
        console.out.print(
            f"Stopped{observer.done_in_words()}. What is finished is kept; the same command goes on"
            " where this ended.",
            soft_wrap=True,
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        observer.close()
    if outcome is None:
        console.tell("Nothing is left to train; the run that leads selects and registers.")
    else:
        _print_outcome(request, outcome)


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        workers: Worker processes; 0 for this process itself, ``None`` for one per GPU share.
        per_gpu: Workers that share a GPU.
        leads: Whether to select and register in the end; else another run does.
        engine: ``local`` or ``ray``.
        address: Of the Ray cluster; ``None`` for one of this machine's own.
    """

    workers: int | None = None
    per_gpu: int = 1
    leads: bool = True
    engine: str = "local"
    address: str | None = None


def _run_here(request: RunRequest, watcher: Watcher, crew: Crew) -> RunOutcome | None:
    """Run in this process, where a debugger can follow."""
    from breakhis_search.workflow.preparation import prepare_run

    settings = read_settings()
    prepared = prepare_run(request, settings, watcher, leads=crew.leads)
    console.say("starting Keras …")
    return _import_search()(prepared, watcher, leads=crew.leads)


def _import_search() -> Callable[..., RunOutcome | None]:
    """The heavy half, imported without the start-up messages of its backend."""
    from breakhis_search.training.devices import import_keras

    import_keras()
    from breakhis_search.workflow.search import search_and_register

    return search_and_register


def _run_supervised(request: RunRequest, watcher: Watcher, crew: Crew) -> RunOutcome | None:
    """Run with worker processes, which this one watches."""
    from breakhis_search.workflow.request import resolve_request

    settings = read_settings()
    resolved = resolve_request(request, settings)  # what is wrong with it is told at once
    from breakhis_search.engines.assignment import Assignment

    name, logs = resolved.study_name, settings.log_dir
    first = Assignment(
        0,
        request,
        settings,
        log=logs / f"{name}-worker.log",
        asks_before_hours=watcher.confirm_slow is not None,
        leads=crew.leads,
        is_verbose=console.is_verbose(),
    )
    if crew.engine == "ray":
        from breakhis_search.engines.ray_cluster import RayEngine
        from breakhis_search.study_file import find_study_file

        return RayEngine(
            first,
            study=find_study_file(request.study, settings.home / "experiments"),
            data=None if resolved.data.is_demo else resolved.data.folder,
            watcher=watcher,
            address=crew.address,
            workers=crew.workers,
            per_gpu=crew.per_gpu,
        ).run()
    from breakhis_search.engines.assignment import share_out, visible_gpus
    from breakhis_search.engines.local import Supervisor, assignments
    from breakhis_search.engines.memory import memory_share_gb
    from breakhis_search.processes import usable_cores

    gpus = [] if request.device == "cpu" else visible_gpus()
    workers = crew.workers or max(1, len(gpus) * crew.per_gpu)
    shares = share_out(workers, gpus, cores=usable_cores())
    first = replace(first, memory_gb=memory_share_gb(workers))
    given = assignments(first, shares, lambda i: logs / f"{name}-worker-{i}.log")
    with _shown([assignment.log for assignment in given]):
        return Supervisor(given, watcher).run()


@contextmanager
def _shown(logs: list[Path]) -> Iterator[None]:
    """Show what workers write, if all is to be said, and where it is kept."""
    if not console.is_verbose():
        yield
        return
    for log in logs:
        console.detail(f"log: {log}")
    tail = LogTail(logs)
    try:
        yield
    finally:
        tail.close()


class _Preparation:
    """Says every tenth how far reading the images is; silent for what takes no time."""

    def __init__(self) -> None:
        self._last = ("", 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        if total < 1000:
            return
        tenth = 10 * done // total
        if (what, tenth) != self._last:
            self._last = (what, tenth)
            console.say(f"{what}: {done}/{total}")


_SHORT_H = 0.5
"""A search that ends within so many hours is started without a question."""


def _confirm_slow(hours: float, basis: str) -> None:
    """Say what the full profile costs on this CPU, and ask."""
    from breakhis_search.errors import ConfigError

    cost = f"There is no GPU. The whole search may take {_in_words(hours)} ({basis})."
    if hours < _SHORT_H:
        console.note(cost)
        return
    console.tell(cost)
    console.out.print("The profile quick is made for a CPU: add --profile quick.")
    if not console.out.is_terminal or not typer.confirm("Start the full profile all the same?"):
        raise ConfigError(
            "the full profile was not started on a CPU",
            remedy="use --profile quick, a machine with a GPU, or --yes",
        )


def _in_words(hours: float) -> str:
    """Return a duration as people say it.

    >>> _in_words(0.2), _in_words(30.04)
    ('12 minutes', '30.0 hours')
    """
    return f"{hours:,.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"


def _print_outcome(request: RunRequest, outcome: RunOutcome) -> None:
    from breakhis_search.tracking.store import open_store, tracking_errors
    from breakhis_search.workflow.comparison import compare_studies

    settings = read_settings()
    with tracking_errors(settings.tracking_uri):
        comparison = compare_studies(open_store(settings), [outcome.study])
    if not console.is_quiet():
        console.out.print()
    for study in comparison.studies:
        if console.is_quiet():
            print_verdict(study)
        else:
            print_study(study, top=12)
    if outcome.registered:
        registered = outcome.registered
        console.out.print(
            f"Registered: [bold]{registered.name} version {registered.version}[/]"
            f" as {registered.alias} ({registered.why}).",
            soft_wrap=True,
        )
    else:
        console.out.print(f"Nothing new was registered: {outcome.not_registered}.")
    if outcome.is_demo:
        console.print_demo_banner()
    if not console.is_quiet():
        versions = [version for study in comparison.studies for version in study.registered]
        _print_next(request, outcome, versions[-1] if versions else None)


def _print_next(request: RunRequest, outcome: RunOutcome, version: VersionFacts | None) -> None:
    """Print what to type next.

    Args:
        request: As typed.
        outcome: What the study came to.
        version: What it registered last, now or by an earlier run.
    """
    program = "python -m breakhis_search"
    options = " --demo" if outcome.is_demo else ""
    promote = ""
    if version and "champion" not in version.aliases:
        if not version.below_floors:
            promote = f"{program} promote --study {request.study}{options}"
        options += f" --version {version.version}"
    more = (
        f"{program} run --study {request.study} --data FOLDER_WITH_BreaKHis_v1"
        if outcome.is_demo
        else f"{program} compare --study {outcome.study}"
    )
    console.out.print("\nNext:")
    console.say(
        "(pages of every complete trial: in MLflow, a run → Artifacts → figures/trial.html)"
    )
    console.out.print(f"  look at it in MLflow    {program} ui")
    console.out.print(
        f"  {'give it the real data' if outcome.is_demo else 'compare the trials   '}   {more}",
        soft_wrap=True,
    )
    console.out.print(
        f"  all of it on one page   {program} report --study {outcome.study}", soft_wrap=True
    )
    if promote:
        console.out.print(f"  make it champion        {promote}", soft_wrap=True)
    console.out.print(
        f"  predict                 {program} predict --study {request.study}{options}"
        f" {shlex.quote(outcome.example)}",
        soft_wrap=True,
    )
    console.say("                          (this image was learned from: take one of your own)")
