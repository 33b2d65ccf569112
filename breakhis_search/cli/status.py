"""``status`` and ``doctor`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from breakhis_search.cli import console
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    from breakhis_search.comparison.version_facts import VersionFacts
    from breakhis_search.workflow.overview import StudyStatus


def status_command(*, as_json: bool) -> None:
    """Print studies, registered models and undelivered records."""
    from breakhis_search.workflow.overview import Overview, read_overview

    settings = read_settings()
    # Looking must not create the databases.
    overview = Overview([], [], 0) if settings.is_unused else read_overview(settings)
    if as_json:
        console.print_json(asdict(overview))
        return
    if not overview.studies and not overview.models:
        console.tell(f"Nothing was searched here yet: looked in {settings.state_dir}.")
        if not (settings.home / "experiments").is_dir():
            console.tell("This folder has no experiments/ either: cd to the clone first.")
        return
    _print_studies(overview.studies)
    _print_models(overview.models)
    console.out.print(f"runs with records that wait for delivery: {overview.undelivered}")


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
    note = "best: pooled out-of-fold objective of images, by one seed, so chosen by luck too"
    console.print_table("Studies", columns, rows, right=right, notes=[note])


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
