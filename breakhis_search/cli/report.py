"""``report`` in the terminal."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.cli import console
from breakhis_search.settings import read_settings


def report_command(study: str, *, out: Path | None) -> None:
    """Write the report of a study and say where it is."""
    with console.at_work("writing the report"):
        from breakhis_search.workflow.study_report import write_report

        written = write_report(study, read_settings(), out=out, say=console.say)
    if written.is_demo:
        console.print_demo_banner()
    console.tell(f"Report of {written.study}: {written.page}, and in Markdown {written.text}")
    console.say("(also in MLflow: the study's own run → Artifacts → report)")
