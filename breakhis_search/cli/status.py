"""``status`` and ``doctor`` in the terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from breakhis_search.cli import console
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.settings import read_settings


def status_command(*, as_json: bool) -> None:
    """Print studies, registered models and undelivered records."""
    from breakhis_search.workflow.overview import read_overview

    overview = read_overview(read_settings())
    if as_json:
        console.print_json(asdict(overview))
        return
    rows = [
        [s.name, s.complete, s.pruned, s.failed, s.running, s.queued, s.best]
        for s in overview.studies
    ]
    columns = ["study", "complete", "pruned", "failed", "running", "queued", "best"]
    console.print_table("Studies", columns, rows, right=columns[1:])
    models = [[m.name, m.version, m.aliases, m.study, m.score] for m in overview.models]
    console.print_table(
        "Registered models", ["model", "version", "alias", "study", "score"], models
    )
    console.out.print(f"runs with records that wait for delivery: {overview.undelivered}")


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
