"""``status`` and ``doctor`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from breakhis_search.cli import console
from breakhis_search.cli.console import READING
from breakhis_search.cli.options import registered_of
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.comparison.version_facts import VersionFacts
    from breakhis_search.workflow.overview import Overview, StudyStatus


def status_command(*, as_json: bool) -> None:
    """Print studies, registered models and undelivered records."""
    settings = read_settings()
    with console.at_work(READING):
        from breakhis_search.workflow.overview import Overview, read_overview

        # Looking must not create the databases.
        overview = Overview([], [], 0) if settings.is_unused else read_overview(settings)
    if as_json:
        console.print_json(asdict(overview))
        return
    if overview.mlflow_says:
        console.warn(
            f"{overview.mlflow_says}: registered models and what is outstanding are not shown"
        )
    if not overview.studies and not overview.models:
        console.tell(f"Nothing was searched here yet: looked in {settings.state_dir}.")
        if not (settings.home / "experiments").is_dir():
            console.tell(
                "This folder has no experiments/ either: cd to the clone, or to where a study ran."
            )
        return
    _print_studies(overview.studies)
    if not overview.mlflow_says:
        _print_models(overview.models)
    _print_waiting(overview)


def _print_waiting(overview: Overview) -> None:
    for uid, why in overview.set_aside.items():
        console.warn(
            f"the records of run {uid} are set aside: {why}; `status --deliver` tries again"
        )
    for machine, records in overview.elsewhere.items():
        console.tell(
            f"{records} records wait on {machine}: `status --deliver`, typed there in this folder,"
            " brings them over"
        )
    if not overview.undelivered:
        if not overview.elsewhere:
            console.out.print("everything is delivered to MLflow")
        return
    waiting = overview.waiting
    since = f", the oldest since {_at(waiting.oldest)}" if waiting.oldest is not None else ""
    console.tell(
        f"{waiting.records} records of {overview.undelivered} runs wait for delivery{since}:"
        " `status --deliver` brings them over"
    )


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006 - as seen


def deliver_command() -> None:
    """Bring to MLflow what interrupted runs left behind."""
    from breakhis_search.study.report import make_report
    from breakhis_search.tracking.delivery import Delivery
    from breakhis_search.tracking.journals import open_journals, take_up_set_aside
    from breakhis_search.tracking.store import open_store

    settings = read_settings()
    if settings.is_unused:
        console.tell("Nothing was searched here yet.")
        return
    delivery = Delivery(open_store(settings), settings, make_report, complain=console.warn)
    take_up_set_aside(*settings.journal_dirs)
    runs = delivery.deliver_all(*settings.journal_dirs)
    left = len(open_journals(*settings.journal_dirs))
    console.tell(
        f"{runs} runs delivered"
        + (f"; {left} belong to processes that are at work, which deliver them" if left else "")
    )


def gc_command(*, keep: int | None, assume_yes: bool) -> None:
    """Show what takes room; with leave, delete the models that better ones have beaten."""
    from breakhis_search.workflow.housekeeping import (
        delete_model,
        find_beaten_models,
        room_taken,
    )

    settings = read_settings()
    if settings.is_unused:
        console.tell("Nothing was searched here yet.")
        return
    for what, size in room_taken(settings).items():
        console.tell(f"{_megabytes(size)}  {what}")
    beaten = find_beaten_models(settings, keep=keep)
    if not beaten:
        many = "it keeps (search.models_kept)" if keep is None else keep
        console.tell(f"No study has more models of search trials than {many}: nothing to delete.")
        return
    for model in beaten:
        score = f"score {model.score:.4f}"
        console.tell(
            f"{_megabytes(model.size)}  model of {model.study} trial {model.trial} ({score}): would"
            " be deleted; its scores, predictions and pages stay"
        )
    total = _megabytes(sum(model.size for model in beaten)).strip()
    if not assume_yes and not (console.out.is_terminal and typer.confirm(f"Free {total}?")):
        console.tell(f"Nothing was changed; add --yes to free {total}.")
        return
    for model in beaten:
        delete_model(settings, model)
    console.tell(f"deleted: {len(beaten)} models, {total}")
    if not settings.has_local_store:
        console.tell("Their files are the server's: `mlflow gc` frees the room there.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:8,.1f} MB"


def repair_command(*, assume_yes: bool) -> None:
    """Show what dead processes left behind; with leave, bring it to an end."""
    from breakhis_search.workflow.repair import find_orphans, repair

    settings = read_settings()
    orphans = [] if settings.is_unused else find_orphans(settings)
    if not orphans:
        console.tell("Nothing was left behind by a dead process.")
        return
    for orphan in orphans:
        console.tell(f"{orphan.name}: would be {orphan.remedy}")
    console.tell("To go on with it instead, run the study again.")
    if not assume_yes and not (console.out.is_terminal and typer.confirm("Repair?")):
        console.tell("Nothing was changed; add --yes to repair.")
        return
    from breakhis_search.study.report import make_report

    repair(settings, orphans, make_report, console.warn)
    console.tell(f"repaired: {len(orphans)}")


def _print_studies(studies: Sequence[StudyStatus]) -> None:
    columns = ["study", "complete", "pruned", "failed", "interrupted", "running", "queued"]
    columns += ["objective", "best"]
    rows = [
        [
            s.name,
            s.complete,
            s.pruned,
            s.failed,
            s.interrupted,
            s.running,
            s.queued,
            s.objective or None,
            s.best,
        ]
        for s in studies
    ]
    right = [column for column in columns[1:] if column != "objective"]
    notes = ["best: pooled out-of-fold objective of images, by one seed, so chosen by luck too"]
    newest = {registered_of(s.name, demo=False): s.name for s in studies}
    notes += [
        f"{s.name}: {_to_do(s, is_newest=s.name in newest.values())}"
        for s in studies
        if s.outstanding or s.is_unreadable
    ]
    notes += [
        f"{s.name}: {count} failed: {cause}" for s in studies for cause, count in s.causes.items()
    ]
    console.print_table("Studies", columns, rows, right=right, notes=notes)


def _to_do(status: StudyStatus, *, is_newest: bool) -> str:
    """What a study has not done yet, and what goes on with it: nothing where it has a successor."""
    outstanding = status.outstanding
    if outstanding is None:
        return "not at its end; how far it is cannot be told without its study.yaml in MLflow"
    if outstanding.is_led:
        return f"{outstanding.in_words()}; a run is at it"
    if not is_newest:
        return outstanding.in_words()
    study, _ = registered_of(status.name, demo=False)
    return (
        f"{outstanding.in_words()}; to do: type the command that began it again (python -m"
        f" breakhis_search run --study {study} …, with the same options but --new)"
    )


def _print_models(models: Sequence[VersionFacts]) -> None:
    columns = ["model", "version", "alias", "study", "objective", "score"]
    rows = [
        [m.name, m.version, ", ".join(m.aliases), m.study, m.objective or None, m.score]
        for m in models
    ]
    notes = [f"{m.name} version {m.version}: {'; '.join(m.remarks)}" for m in models if m.remarks]
    console.print_table("Registered models", columns, rows, right=["score"], notes=notes)


def doctor_command(data: Path | None, weights_dir: Path | None, *, as_json: bool) -> None:
    """Print what works and what does not, with what to do."""
    from breakhis_search.workflow.doctor import examine

    findings = examine(read_settings(), data=data, weights_dir=weights_dir)
    if as_json:
        console.print_json([asdict(f) for f in findings])
    else:
        colors = {"ok": "green", "note": "yellow", "error": "red"}
        for finding in findings:
            console.print_finding(
                colors[finding.state], finding.state, finding.subject, finding.detail
            )
    broken = [f.subject for f in findings if f.state == "error"]
    if broken:
        raise BreakhisSearchError(
            f"not everything works: {', '.join(broken)}", remedy="see the lines above"
        )
