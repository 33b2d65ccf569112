"""``compare --profile`` in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from breakhis_search.cli import console
from breakhis_search.cli.console import READING
from breakhis_search.errors import StudyError
from breakhis_search.settings import read_settings

if TYPE_CHECKING:
    import pandas as pd

_BAR = 30  # characters of the longest bar


def _others_in_words(profile: pd.DataFrame) -> str:
    """What the runs that are no trials of the search took."""
    seconds = profile.drop(columns=["run", "role"]).sum(axis=1)
    by_role = seconds.groupby(profile["role"]).sum().to_dict()
    told = [f"{role} {by_role[role]:.1f} s" for role in ("finalist", "refit") if role in by_role]
    return "beside the search: " + (", ".join(told) or "nothing yet")


def profile_command(studies: Sequence[str], *, as_json: bool) -> None:
    """Print where the time of a typical trial went; write a page with every run."""
    settings = read_settings()
    with console.at_work(READING):
        from breakhis_search.comparison.profile import PHASES, medians
        from breakhis_search.comparison.profile_page import build_profile_page
        from breakhis_search.tracking.store import read_store, tracking_errors
        from breakhis_search.workflow.comparison import profile_studies

        client = read_store(settings)
        with tracking_errors(settings.tracking_uri):
            profiles = profile_studies(client, studies)
    if as_json:
        console.print_json({name: p.to_dict("records") for name, p in profiles.items()})
        return
    for name, profile in profiles.items():
        rows = medians(profile).to_dict("records")
        longest = max((row["total"] for row in rows), default=0.0) or 1.0
        table = [
            [
                row["phase"],
                f"{row['median']:.2f}",
                f"{row['total']:.1f}",
                "█" * round(_BAR * row["total"] / longest),
                row["what"],
            ]
            for row in sorted(rows, key=lambda row: -row["total"])
        ]
        console.print_table(
            f"{name}: seconds of the trials, of one (median) and of all",
            ["phase", "one", "all", "", "what"],
            table,
            right=("one", "all"),
            spare=("", "what"),
            notes=[_others_in_words(profile)],
        )
    file = settings.state_dir / "profile.html"
    try:
        file.write_text(build_profile_page(profiles, PHASES), encoding="utf-8")
    except OSError as error:
        raise StudyError(
            f"{file} cannot be written ({error.strerror})",
            remedy="make the folder writable, or ask for --json",
        ) from error
    console.say(f"every run: {file}")
